"""A Gymnasium environment that does something unusual when it is built, reset, stepped or closed."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Panic(BaseException):
    """An error that `except Exception` does not catch, as some libraries raise them."""


def _act(action: str) -> None:
    """Do something unusual."""
    if action == "exit":
        sys.exit(0)
    elif action == "hard exit":
        os._exit(0)
    elif action == "panic":
        raise Panic("the engine stopped")
    elif action == "generator":
        raise GeneratorExit
    elif action == "pipe":
        raise BrokenPipeError("the simulator is gone")
    elif action == "end of file":
        raise EOFError("the simulator is gone")
    elif action == "raise":
        raise RuntimeError("no \x1b[31mlicence\n" + "x" * 10_000)
    elif action == "assert":
        assert action == "something else"
    elif action == "hang":
        time.sleep(60)


class StrangeEnv(gymnasium.Env):
    """Episodes of two steps; `when` something unusual happens, and `what`.

    Args:
        when: "build", "reset", "step" or "close".
        what: see `_act`; "none" for an ordinary environment.
        returns: what replaces parts of the results: {"reward": None}, {"step": ()}, ...
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, when: str = "build", what: str = "none", returns: Any = None) -> None:
        self.when, self.what, self.returns = when, what, dict(returns or {})
        self.time = 0
        if when == "build":
            _act(what)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.when == "reset":
            _act(self.what)
        self.time = 0
        return self.returns.get("reset", (np.zeros(2, np.float32), {}))

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.when == "step":
            _act(self.what)
        ordinary = {
            "obs": np.full(2, 0.5, np.float32),
            "reward": 1.0,
            "terminated": self.time == 2,
            "truncated": False,
            "info": {},
        }
        return self.returns.get("step", tuple({**ordinary, **self.returns}[name] for name in ordinary))

    def close(self) -> None:
        if self.when == "close":
            _act(self.what)


gymnasium.register("test/Strange-v0", StrangeEnv, disable_env_checker=True)

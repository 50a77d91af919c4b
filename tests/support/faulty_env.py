"""A Gymnasium environment that fails in a chosen way."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class FaultyEnv(gymnasium.Env):
    """Steps normally twice after it was built, and shows its fault in the third step.

    Args:
        fault: "none", "hang", "die", "exit", "raise" or "reward"; or, for an observation, "shape", "text",
            "ragged", "nothing" or "infinite".
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, fault: str = "none") -> None:
        self.fault, self.time = fault, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        obs: Any = np.full(2, 0.5, np.float32)
        reward: Any = 1.0
        if self.time == 3:
            if self.fault == "hang":
                time.sleep(60)
            elif self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.fault == "exit":
                os._exit(3)
            elif self.fault == "raise":
                raise RuntimeError("the robot fell over")
            obs = {
                "shape": np.zeros(3, np.float32),
                "text": np.array(["a", "b"]),
                "ragged": [[1.0], 2.0],
                "nothing": None,
                "infinite": np.full(2, np.inf, np.float32),
            }.get(self.fault, obs)
            reward = "much" if self.fault == "reward" else reward
        return obs, reward, False, self.time % 5 == 0, {}

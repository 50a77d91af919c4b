"""Validation of values from Gymnasium environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.environment import EnvironmentFailed
from rmc_agents.errors import shown
from rmc_agents.spaces.annotated import annotate
from rmc_agents.spaces.plain import Observations, as_member, key_of, leaf_at, to_plain
from rmc_agents.spaces.text import AnnotatedText

from .failures import call, close
from .masks import OwnMasks
from .protocol import checked_reset, checked_step, copied, with_protocol
from .success import UNREADABLE, success_of, unreadable_in


class CheckedEnv(gymnasium.Wrapper):
    """An environment whose errors become `EnvironmentFailed`, with its index and the step of the episode.

    Observations that do not fit the space, and everything that is not Gymnasium's interface, are errors, too.
    Observations and actions are copied, so that the environment may keep and change its own arrays. Of the
    infos, only the success of the episode and the action mask are kept; a method `action_masks` gives the
    mask, too.
    """

    def __init__(self, env: gymnasium.Env, index: int, name: str) -> None:
        """
        Args:
            env: the environment.
            index: its index in the batch.
            name: its id.
        """
        super().__init__(with_protocol(env))
        self._label = f"environment {index} ({name})"
        self._steps = 0
        self.observation_space = annotate(env)
        try:
            self._leaves = Observations(self.observation_space).leaves
        except ValueError:  # `GymnasiumEnvs` reports the unsupported space
            self._leaves = []
        self._masks = OwnMasks(self.env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self._steps = 0
        obs, info = self._call("in reset", lambda: checked_reset(self.env.reset(seed=seed, options=options)))
        return self._copy(obs), self._masks.entry(info, "in reset")

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._steps += 1
        own = as_member(self.action_space, copied(action))
        when = f"at step {self._steps} of its episode"
        obs, reward, terminated, truncated, info = self._call(when, lambda: checked_step(self.env.step(own)))
        # Nobody acts on the last observation, and often nothing is allowed there.
        report = _reported(info) if terminated or truncated else self._masks.entry(info, when)
        return self._copy(obs), reward, terminated, truncated, report

    def close(self) -> None:
        """Close the environment; an error becomes a warning."""
        close(self.env.close, self._label)

    def _call(self, when: str, function: Callable[[], Any]) -> Any:
        return call(function, self._label, when)

    def _copy(self, obs: Any) -> Any:
        """Return a copy of an observation.

        Raises:
            EnvironmentFailed: it does not have the shapes and kinds of numbers of its space.
        """
        path: tuple[str | int, ...] = ()
        try:
            for path, space in self._leaves:
                x = leaf_at(obs, path)
                if isinstance(space, AnnotatedText):
                    if not isinstance(x, str):
                        raise ValueError(f"type {type(x).__name__}, expected a string")
                    continue
                if type(x) is not np.ndarray or x.dtype != space.dtype or x.shape != space.shape:
                    _require_convertible(space, np.asarray(x))
                if not isinstance(space, spaces.Box):
                    to_plain(space, x)  # raises for integers outside of the space
            return copied(obs)
        except Exception as error:
            what = f"observation {key_of(path)}".strip()
            raise EnvironmentFailed(
                f"{self._label} returned an {what} that does not fit its space: {shown(error)}, at step "
                f"{self._steps} of its episode"
            ) from error


def checked(build: Callable[[], gymnasium.Env], index: int, name: str) -> Callable[[], gymnasium.Env]:
    """Return `build` with its environment wrapped in a `CheckedEnv`."""
    return lambda: CheckedEnv(build(), index, name)


def _reported(info: dict[str, Any]) -> dict[str, Any]:
    """Return the success of an episode, from the info of its last step, and what of it cannot be read."""
    success, unreadable = success_of(info), unreadable_in(info)
    return {
        **({} if success is None else {"is_success": success}),
        **({} if unreadable is None else {UNREADABLE: unreadable}),
    }


def _require_convertible(space: spaces.Space, x: NDArray) -> None:
    """Raise ValueError unless `x` can be converted to the space's type without loss of meaning."""
    if x.shape != space.shape:
        raise ValueError(f"shape {x.shape}, expected {space.shape}")
    kind = np.dtype(space.dtype).kind
    if x.dtype.kind not in "biuf" or (x.dtype.kind == "f" and kind != "f"):
        raise ValueError(f"type {x.dtype}, expected {space.dtype}")
    if kind in "iu" and x.size:
        info = np.iinfo(np.dtype(space.dtype))  # type: ignore[arg-type]
        if x.min() < info.min or x.max() > info.max:
            raise ValueError(f"numbers up to {x.max()}, too large for {space.dtype}")

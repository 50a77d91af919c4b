"""Validation of values from Gymnasium environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.environment import EnvironmentFailed

from .conversion import key_of, leaf_at, leaves_of


class CheckedEnv(gymnasium.Wrapper):
    """An environment whose errors become `EnvironmentFailed`, with its index and the step of the episode.

    Observations that do not fit the space and rewards that are not numbers are errors, too.
    """

    def __init__(self, env: gymnasium.Env, index: int, name: str) -> None:
        """
        Args:
            env: the environment.
            index: its index in the batch.
            name: its id.
        """
        super().__init__(env)
        self._label = f"environment {index} ({name})"
        self._steps = 0
        try:
            self._leaves = list(leaves_of(env.observation_space))
        except ValueError:  # `GymnasiumEnvs` reports the unsupported space
            self._leaves = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self._steps = 0
        try:
            obs, info = super().reset(seed=seed, options=options)
        except Exception as error:
            raise EnvironmentFailed(f"{self._label} raised in reset: {error!r}") from error
        self._check(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self._steps += 1
        try:
            obs, reward, terminated, truncated, info = super().step(action)
        except Exception as error:
            raise EnvironmentFailed(
                f"{self._label} raised at step {self._steps} of its episode: {error!r}"
            ) from error
        self._check(obs)
        number: Any = reward
        if np.ndim(number) or np.asarray(number).dtype.kind not in "biuf":
            raise self._failed(f"returned {reward!r} as a reward, expected a number")
        return obs, reward, terminated, truncated, info

    def _check(self, obs: Any) -> None:
        """Raise EnvironmentFailed unless an observation has the shapes and kinds of numbers of its space."""
        for path, space in self._leaves:
            try:
                x = leaf_at(obs, path)
                if type(x) is not np.ndarray or x.dtype != space.dtype or x.shape != space.shape:
                    _require_convertible(space, np.asarray(x))
            except (ValueError, TypeError, LookupError) as error:
                what = f"observation {key_of(path)}".strip()
                raise self._failed(f"returned an {what} that does not fit its space: {error}") from error

    def _failed(self, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self._label} {what}, at step {self._steps} of its episode")


def checked(build: Callable[[], gymnasium.Env], index: int, name: str) -> Callable[[], gymnasium.Env]:
    """Return `build` with its environment wrapped in a `CheckedEnv`."""
    return lambda: CheckedEnv(build(), index, name)


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

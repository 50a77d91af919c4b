"""Environments with the interface of dm_env (DeepMind's) as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MAX_SEED = 2**31 - 1
SMALLEST_PICTURE = 256
"""Smaller pictures are enlarged to about as many pixels per side."""


def to_space(spec: Any, flatten: bool = False) -> spaces.Space[Any]:
    """Return the space of a specification of dm_env: an array, a number of choices, or a dictionary of them.

    Args:
        spec: of actions or observations.
        flatten: give arrays one axis.
    """
    if isinstance(spec, dict):
        return spaces.Dict({key: to_space(value, flatten) for key, value in spec.items()})
    if hasattr(spec, "num_values"):
        return spaces.Discrete(int(spec.num_values))
    dtype = np.dtype(spec.dtype)
    low, high = -np.inf, np.inf
    if hasattr(spec, "minimum"):
        low, high = spec.minimum, spec.maximum
    elif np.issubdtype(dtype, np.integer):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    bounds = [np.broadcast_to(np.asarray(x, dtype), spec.shape) for x in (low, high)]
    if flatten:
        bounds = [x.reshape(-1) for x in bounds]
    return spaces.Box(bounds[0], bounds[1], dtype=dtype.type)


@final
class FromDmEnv(gymnasium.Env[Any, Any]):
    """An environment of dm_env as a `gymnasium.Env`.

    A last step with discount 0 terminates the episode, and one with another discount truncates it. Such
    environments are seeded when they are built, so that a reset with a seed builds a new one.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as in gymnasium.Env

    def __init__(
        self, build: Callable[[int], Any], flatten: bool = False, render_mode: str | None = None
    ) -> None:
        """
        Args:
            build: builds the environment with a seed.
            flatten: give observations one axis.
            render_mode: "rgb_array" for an environment that observes a picture, or None.
        """
        self._build, self._flatten, self.render_mode = build, flatten, render_mode
        self._env = build(int(self.np_random.integers(MAX_SEED)))
        self._seen: Any = None
        self.observation_space = to_space(self._env.observation_spec(), flatten)
        self.action_space = to_space(self._env.action_spec())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self._env.close()
            self._env = self._build(int(self.np_random.integers(MAX_SEED)))
        return self._observe(self._env.reset().observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if isinstance(self.action_space, spaces.Discrete):
            action = int(action)
        step = self._env.step(action)
        terminated = bool(step.last() and step.discount == 0.0)
        truncated = bool(step.last() and not terminated)
        return self._observe(step.observation), float(step.reward or 0.0), terminated, truncated, {}

    def _observe(self, observation: Any) -> Any:
        self._seen = self._convert(self.observation_space, observation)
        return self._seen

    def _convert(self, space: spaces.Space[Any], observation: Any) -> Any:
        """Return an observation as a member of its space."""
        if isinstance(space, spaces.Dict):
            return {key: self._convert(space[key], observation[key]) for key in space}
        if isinstance(space, spaces.Discrete):
            return np.int64(observation)
        return np.asarray(observation, space.dtype).reshape(space.shape)

    def render(self) -> NDArray[np.uint8] | None:
        """Return the picture that the agent sees, enlarged."""
        if self.render_mode is None:
            return None
        picture = self._seen["image"] if isinstance(self._seen, dict) else self._seen
        if picture is None or picture.ndim != 3:
            return None
        factor = max(SMALLEST_PICTURE // picture.shape[0], 1)
        return np.kron(picture, np.ones((factor, factor, 1), picture.dtype))

    def close(self) -> None:
        self._env.close()

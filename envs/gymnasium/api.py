"""Native tasks as Gymnasium environments: a single `Env` and a `VectorEnv`, both with NumPy arrays.

Both wrap a `BatchedEnv`, so that each task has one implementation of its dynamics. The mazes are seeded as
Farama's (`seeding="farama"`) unless the options say otherwise: here exactness matters more than speed.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol, final, runtime_checkable

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import BatchedEnv, Obs
from rmc_agents.spaces.masks import INFO_KEY

from ..building import make
from ..numbers import whole_seed
from ..registry import native

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
"""Metadata of a task that can be drawn. `gymnasium.make` reads it from the class, which serves all tasks."""


@runtime_checkable
class Drawable(Protocol):
    """A batch that can draw its environments."""

    def render(self, i: int = 0, final: bool = False) -> NDArray[np.uint8]:
        """Draw environment i, [height, width, 3].

        With `final`, draw the last state of the episode that ended in the latest step.
        """
        ...


class CannotRender(ValueError, TypeError):
    """A task does not have this `render_mode`.

    It is a TypeError, too, as that of environments whose constructor takes no `render_mode`: after it,
    Stable-Baselines3 builds an id without pictures.
    """


def _build_batch(task: str, num_envs: int, render_mode: str | None, options: dict[str, Any]) -> BatchedEnv:
    builder = native(task)
    if builder is None:
        raise ValueError(f"{task!r} is not a native task; rmc_envs.NATIVE lists them")
    if "seeding" in inspect.signature(builder).parameters:
        options = {"seeding": "farama", **options}
    batch = make(task, num_envs, "cpu", **options)
    modes = _metadata(batch)["render_modes"]
    if render_mode is not None and render_mode not in modes:
        batch.close()
        if not modes:
            raise CannotRender(f"{task} has no method `render`, so its only render_mode is None")
        raise CannotRender(
            f"render_mode={render_mode!r}: {task} has {' and '.join(['None', *map(repr, modes)])}"
        )
    return batch


def _metadata(batch: BatchedEnv) -> dict[str, Any]:
    return METADATA if isinstance(batch, Drawable) else {**METADATA, "render_modes": []}


def _row(space: spaces.Space, obs: Obs, i: int) -> Any:
    """Return environment i's observation as a member of `space`."""
    if isinstance(obs, dict):
        assert isinstance(space, spaces.Dict)
        return {key: _row(space[key], obs[key], i) for key in space}
    return np.int64(obs[i].item()) if isinstance(space, spaces.Discrete) else obs[i].numpy().copy()


def _batch(space: spaces.Space, obs: Obs) -> Any:
    """Return all observations as a member of the batched space, with the keys in the space's order."""
    if isinstance(obs, dict):
        assert isinstance(space, spaces.Dict)
        return {key: _batch(space[key], obs[key]) for key in space}
    assert isinstance(obs, Tensor)
    return obs.numpy()


def _mask_info(batch: BatchedEnv, i: int) -> dict[str, Any]:
    masks = batch.action_masks()
    return {} if masks is None else {INFO_KEY: masks[i].numpy().copy()}


@final
class SingleEnv(gymnasium.Env[Any, Any]):
    """A batch of one as a `gymnasium.Env`. It never resets automatically.

    `info` holds `is_success` at the end of an episode if the task reports success, and `action_mask` before
    it if the task has masks. A reset without a seed continues with the task's generator.
    """

    metadata = METADATA

    def __init__(self, task: str, render_mode: str | None = None, **options: Any) -> None:
        """
        Args:
            task: id of a native task.
            render_mode: "rgb_array" for a task that can be drawn, or None.
            options: of the task, as in `rmc_envs.make`.

        Raises:
            ValueError: not a native task, or a render mode or option that it does not have.
        """
        self.batch = _build_batch(task, 1, render_mode, options)
        self.metadata = _metadata(self.batch)
        self.render_mode = render_mode
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self._over = True
        self._next: Obs | None = None  # first observation of the episode after the one that ended

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        seed = whole_seed(seed)
        super().reset(seed=seed)
        # The batch started its next episode when the last one ended; this reset returns its beginning.
        obs = self._next if seed is None and self._next is not None else self.batch.reset(seed)
        self._over, self._next = False, None
        return _row(self.observation_space, obs, 0), _mask_info(self.batch, 0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("no episode is running: call reset first")
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(
                f"action {action!r}: expected a member of {self.action_space}"
            )
        step = self.batch.step(torch.as_tensor(np.asarray(action))[None])
        terminated, truncated = bool(step.terminated), bool(step.truncated)
        info: dict[str, Any] = {}
        if not (terminated or truncated):
            info = _mask_info(self.batch, 0)
        else:
            self._over, self._next = True, step.obs
            if step.success is not None:
                info["is_success"] = bool(step.success)
        return (
            _row(self.observation_space, step.final_obs, 0),
            float(step.reward),
            terminated,
            truncated,
            info,
        )

    def render(self) -> NDArray[np.uint8] | None:
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render without a render_mode: make the environment with render_mode='rgb_array'"
            )
            return None
        assert isinstance(self.batch, Drawable)
        return self.batch.render(0, final=self._over)  # after an end, the batch is in the next episode

    def close(self) -> None:
        self.batch.close()


@final
class BatchedVectorEnv(VectorEnv[Any, Any, NDArray]):
    """A batch as a `gymnasium.vector.VectorEnv` with SAME_STEP autoreset.

    Infos equal those of Gymnasium's `SyncVectorEnv`: where an episode ends, `final_obs` and `final_info`, the
    latter with `is_success` if the task reports success; and `action_mask` if the task has masks.
    """

    def __init__(self, task: str, num_envs: int = 1, render_mode: str | None = None, **options: Any) -> None:
        """
        Args:
            task: id of a native task.
            num_envs: number of environments.
            render_mode: "rgb_array" for a task that can be drawn, or None.
            options: of the task, as in `rmc_envs.make`.

        Raises:
            ValueError: not a native task, or a render mode or option that it does not have.
        """
        self.batch = _build_batch(task, num_envs, render_mode, options)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {**_metadata(self.batch), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Start a new episode in every environment; with Farama's seeding, environment i gets `seed + i`.

        Raises:
            ValueError: a seed that is not a whole number from 0 on, or a `reset_mask`, which belongs to the
                autoreset mode DISABLED.
        """
        if options is not None and "reset_mask" in options:
            raise ValueError("reset_mask: these environments reset automatically (autoreset mode SAME_STEP)")
        seed = whole_seed(seed)
        super().reset(seed=seed)
        return _batch(self.single_observation_space, self.batch.reset(seed)), self._mask_infos()

    def step(self, actions: Any) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
        step = self.batch.step(torch.as_tensor(np.asarray(actions)))
        infos = self._mask_infos()
        for i in step.done.nonzero().flatten().tolist():
            final_info = {} if step.success is None else {"is_success": bool(step.success[i])}
            final_obs = _row(self.single_observation_space, step.final_obs, i)
            infos = self._add_info(infos, {"final_obs": final_obs, "final_info": final_info}, i)
        return (
            _batch(self.single_observation_space, step.obs),
            step.reward.numpy().astype(np.float64),
            step.terminated.numpy(),
            step.truncated.numpy(),
            infos,
        )

    def _mask_infos(self) -> dict[str, Any]:
        masks = self.batch.action_masks()
        if masks is None:
            return {}
        return {INFO_KEY: masks.numpy(), f"_{INFO_KEY}": np.ones(self.num_envs, dtype=bool)}

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return None
        assert isinstance(self.batch, Drawable)
        return tuple(self.batch.render(i) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        self.batch.close()

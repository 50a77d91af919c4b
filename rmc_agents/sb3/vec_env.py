"""SB3 vectorized environment around a batched environment.

Axes: B environments.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from rmc_agents.environment import BatchedEnv, Transition
from rmc_agents.sb3.features import flip, map_parts
from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.reading import WHOLE, named_parts, with_readings

_ACTION_DTYPES = {spaces.Discrete: torch.int64, spaces.MultiDiscrete: torch.int64}


class BatchedVecEnv(VecEnv):
    """The environments of a batch as one `VecEnv`: `PPO("MlpPolicy", BatchedVecEnv(rmc_envs.make(...)))`.

    The `info` of an episode's last step has the keys that `make_vec_env` would give it:
    `terminal_observation`, `TimeLimit.truncated`, `Monitor`'s `episode` (return `r`, length `l`, time `t` in
    seconds), and `is_success` where the task reports success. Other infos are empty. Images are channels
    first, as SB3 would transpose them, so `VecTransposeImage` is not needed. Actions and integers of several
    dimensions are flattened, because SB3 expects one.

    Args:
        env: a batched environment; `close` closes it.
        seed: fixes the episodes from the first `reset` on, as `seed(seed)` does.
    """

    def __init__(self, env: BatchedEnv, seed: int | None = None) -> None:
        self.env = env
        parts = named_parts(env.observation_space)
        self._image_keys = {key for key, space in parts.items() if _is_channels_last(space)}
        self._table_keys = {key for key, space in parts.items() if _is_table(space)}
        # Annotated, since SB3's spaces do not tell the policy what the batch's own space does.
        observation_space = _to_channels_first(with_readings(env.observation_space, {}))
        super().__init__(env.num_envs, observation_space, _flattened(env.action_space))
        self._action_dtype = _ACTION_DTYPES.get(type(env.action_space), torch.float32)  # type: ignore[arg-type]
        self._actions: Tensor | None = None
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._start_time = time.time()
        if seed is not None:
            self.seed(seed)

    def reset(self) -> VecEnvObs:
        """Start an episode in every environment; a seed that was set since the last reset takes effect.

        Raises:
            ValueError: `set_options` has set reset options, which batched environments do not have.
        """
        if any(self._options):
            raise ValueError(f"options {self._options[0]}: batched environments have no reset options")
        obs = self.env.reset(self._seeds[0])
        self._reset_seeds()
        self._returns[:], self._lengths[:] = 0.0, 0
        return self._observation(obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        shape = self.env.action_space.shape or ()
        self._actions = (
            torch.as_tensor(actions).to(self.env.device, self._action_dtype).reshape(self.num_envs, *shape)
        )

    def step_wait(self) -> VecEnvStepReturn:
        """Move every environment by the actions of `step_async`.

        Raises:
            ValueError: the environments use NEXT_STEP autoreset.
        """
        assert self._actions is not None, "step_wait without step_async"
        step = self.env.step(self._actions)
        if step.valid is not None:
            raise ValueError(
                "these environments use a step for each reset (NEXT_STEP autoreset), and SB3 would train on "
                "it; make them with SAME_STEP autoreset, or with SB3's make_vec_env"
            )
        rewards, dones = _numpy(step.reward), _numpy(step.done)
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones)
        if len(ended):
            self._fill_infos(infos, ended, step)
            self._returns[ended], self._lengths[ended] = 0.0, 0
        return self._observation(step.obs), rewards, dones, infos

    def _fill_infos(self, infos: list[dict[str, Any]], ended: NDArray[Any], step: Transition) -> None:
        """Set the infos of the environments `ended`, whose episodes ended in this step."""
        rows = torch.as_tensor(ended, device=self.env.device)
        final_obs = self._observation(step.final_obs, rows)
        truncated = _numpy(step.truncated & ~step.terminated)
        success = None if step.success is None else _numpy(step.success)
        seconds = round(time.time() - self._start_time, 6)
        for row, i in enumerate(ended.tolist()):
            infos[i] = {
                "terminal_observation": (
                    {key: value[row] for key, value in final_obs.items()}
                    if isinstance(final_obs, dict)
                    else final_obs[row]  # type: ignore[index]
                ),
                "TimeLimit.truncated": bool(truncated[i]),
                "episode": {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds},
            }
            if success is not None:
                infos[i]["is_success"] = bool(success[i])

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute for each environment; a tensor of B rows gives one row each."""
        if attr_name == "render_mode":
            return [getattr(self.env, attr_name, None) for _ in self._get_indices(indices)]
        return self._per_env(getattr(self.env, attr_name), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch, which all environments share.

        Raises:
            ValueError: `indices` does not name all environments.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"{attr_name} belongs to all {self.num_envs} environments; leave indices out")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once and return its result for each environment, as `get_attr` does."""
        return self._per_env(getattr(self.env, method_name)(*method_args, **method_kwargs), indices)

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return whether the infos are those of a wrapper, which is true for `Monitor` only."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        return [None] * self.num_envs

    def _per_env(self, value: Any, indices: VecEnvIndices) -> list[Any]:
        rows = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == self.num_envs
        values = _numpy(value) if rows else [value] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def _observation(self, obs: Any, rows: Tensor | None = None) -> VecEnvObs:
        """Return observations [B, ...] as new arrays, images channels first; only `rows` if given."""
        if isinstance(obs, dict):
            return {key: self._array(key, value, rows) for key, value in obs.items()}
        return self._array(WHOLE, obs, rows)

    def _array(self, key: str, value: Tensor, rows: Tensor | None) -> NDArray[Any]:
        value = value if rows is None else value[rows]
        if key in self._table_keys:
            return _numpy(value.flatten(1))
        return _numpy(value.permute(0, 3, 1, 2) if key in self._image_keys else value)


def _to_channels_first(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space with its images channels first."""
    if isinstance(space, spaces.Dict):
        return map_parts(_to_channels_first, space)
    if _is_table(space):
        return _flattened(space)
    if not _is_channels_last(space):
        return space
    transposed = VecTransposeImage.transpose_space(space)  # type: ignore[arg-type]
    return AnnotatedBox(transposed, flip(space.read_as)) if isinstance(space, AnnotatedBox) else transposed


def _is_table(space: spaces.Space[Any]) -> bool:
    """Return whether a space holds integers in more than one dimension."""
    return isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1


def _flattened(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return an action space, or a table of integers, in one dimension."""
    if isinstance(space, spaces.Box) and (len(space.shape) != 1 or space.dtype != np.float32):
        # SB3's buffer stores actions in the type of their space, and would cut floats to integers.
        low, high = (bound.reshape(-1).astype(np.float32) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=np.float32)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1:
        return spaces.MultiDiscrete(space.nvec.reshape(-1))
    if isinstance(space, spaces.MultiBinary) and not isinstance(space.n, int):
        return spaces.MultiBinary(int(np.prod(space.shape)))
    return space


def _is_channels_last(space: spaces.Space[Any]) -> bool:
    """Return whether SB3 would transpose a space."""
    return (
        isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space)
    )


def _numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as a new, writable array."""
    return tensor.cpu().numpy().copy()

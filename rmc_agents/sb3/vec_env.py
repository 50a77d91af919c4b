"""Our batched environments as one of SB3's vectorized environments.

B is the number of environments.
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

from rmc_agents.rollout import BatchedEnv
from rmc_agents.sb3.features import map_parts, parts

_ACTION_DTYPES = {spaces.Discrete: torch.int64, spaces.MultiDiscrete: torch.int64}


class BatchedVecEnv(VecEnv):
    """All environments of a batch as one `VecEnv`: `PPO("MlpPolicy", BatchedVecEnv(envs.make(...)))`.

    An episode's last `info` holds what `make_vec_env`'s would: `terminal_observation`,
    `TimeLimit.truncated`, `Monitor`'s `episode` (return `r`, length `l`, seconds `t`), and
    `is_success` where the task says. Other infos are empty. Images appear channels first, as SB3
    would turn them, so `VecTransposeImage` is not needed.

    Args:
        env: a batched environment (`envs.base.BatchedEnv`); `close` closes it.
        seed: fixes the episodes from the first `reset` on, as `seed(seed)` does.
    """

    def __init__(self, env: BatchedEnv, seed: int | None = None) -> None:
        self.env = env
        self._turned = {key for key, space in parts(env.observation_space).items() if _to_be_turned(space)}
        super().__init__(env.num_envs, _turn(env.observation_space), env.action_space)
        self._action_dtype = _ACTION_DTYPES.get(type(env.action_space), torch.float32)  # type: ignore[arg-type]
        self._actions: Tensor | None = None
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._began = time.time()
        if seed is not None:
            self.seed(seed)

    def reset(self) -> VecEnvObs:
        """Begin an episode in every environment; a seed given since the last reset takes effect."""
        if any(self._options):
            raise ValueError(f"options {self._options[0]}: batched environments have no reset options")
        obs = self.env.reset(self._seeds[0])
        self._reset_seeds()
        self._returns[:], self._lengths[:] = 0.0, 0
        return self._observation(obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = torch.as_tensor(actions).to(self.env.device, self._action_dtype)

    def step_wait(self) -> VecEnvStepReturn:
        assert self._actions is not None, "step_wait without step_async"
        step = self.env.step(self._actions)
        if step.valid is not None:
            raise ValueError(
                "these environments spend a step on each reset (NEXT_STEP autoreset), which SB3 would learn "
                "from; make them with SAME_STEP, or with SB3's make_vec_env"
            )
        rewards = _numpy(step.reward)
        terminated, truncated = _numpy(step.terminated), _numpy(step.truncated)
        self._returns += rewards
        self._lengths += 1
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones)
        if len(ended):
            self._describe_ends(infos, ended, truncated & ~terminated, step)
        return self._observation(step.obs), rewards, dones, infos

    def _describe_ends(
        self, infos: list[dict[str, Any]], ended: NDArray[Any], cut: NDArray[np.bool_], step: Any
    ) -> None:
        rows = torch.as_tensor(ended, device=self.env.device)
        final_obs = self._observation(step.final_obs, rows)
        success = None if step.success is None else _numpy(step.success)
        seconds = round(time.time() - self._began, 6)
        for row, i in enumerate(ended.tolist()):
            infos[i] = {
                "terminal_observation": (
                    {key: value[row] for key, value in final_obs.items()}
                    if isinstance(final_obs, dict)
                    else final_obs[row]  # type: ignore[index]
                ),
                "TimeLimit.truncated": bool(cut[i]),
                "episode": {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds},
            }
            if success is not None:
                infos[i]["is_success"] = bool(success[i])
        self._returns[ended], self._lengths[ended] = 0.0, 0

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """For each environment the batch's attribute, or its row of it where that is a tensor of B rows."""
        if attr_name == "render_mode":
            return [getattr(self.env, attr_name, None) for _ in self._get_indices(indices)]
        return self._deal_out(getattr(self.env, attr_name), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch.

        Raises:
            ValueError: `indices` leaves an environment out; a batch has its attributes in common.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"{attr_name} belongs to all {self.num_envs} environments; leave indices out")
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the batch's method once and deal out its result as `get_attr` does."""
        return self._deal_out(getattr(self.env, method_name)(*method_args, **method_kwargs), indices)

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether the infos are as with this wrapper: true of `Monitor` alone."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        return [None] * self.num_envs

    def _deal_out(self, value: Any, indices: VecEnvIndices) -> list[Any]:
        rows = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == self.num_envs
        values = _numpy(value) if rows else [value] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def _observation(self, obs: Any, rows: Tensor | None = None) -> VecEnvObs:
        """Tensors -> arrays of our own, images turned; `rows` of them, or all."""
        if isinstance(obs, dict):
            return {key: self._array(key, value, rows) for key, value in obs.items()}
        return self._array("", obs, rows)

    def _array(self, key: str, value: Tensor, rows: Tensor | None) -> NDArray[Any]:
        value = value if rows is None else value[rows]
        return _numpy(value.permute(0, 3, 1, 2) if key in self._turned else value)


def _turn(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space with its images channels first."""
    if isinstance(space, spaces.Dict):
        return map_parts(_turn, space)
    return VecTransposeImage.transpose_space(space) if _to_be_turned(space) else space  # type: ignore[arg-type]


def _numpy(tensor: Tensor) -> NDArray[Any]:
    """A writable copy."""
    return tensor.cpu().numpy().copy()


def _to_be_turned(space: spaces.Space[Any]) -> bool:
    return (
        isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space)
    )

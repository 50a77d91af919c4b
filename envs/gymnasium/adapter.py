"""Adapter that turns any Gymnasium vector environment into a `BatchedEnv` of tensors.

Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import BatchedEnv, EnvironmentFailed, Obs, Transition

from .conversion import from_plain, key_of, leaf_at, leaves_of, plain_space, to_plain
from .workers import Workers


@final
class GymnasiumEnvs(BatchedEnv):
    """A `gymnasium.vector.VectorEnv` as a batch of tensors.

    ## Spaces
    Observations: `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, and `Dict` and `Tuple` of them, which
    become one flat `Dict` (a nested key is "outer.inner", the keys of a tuple are "0", "1", ...). Texts in a
    `Dict` are dropped. Floats become float32; integers keep their type if torch has it and become int64
    otherwise. `Discrete(n, start=s)` becomes `Discrete(n)`, for observations and actions.
    Actions: the same four spaces; `Box` actions are clipped to their bounds.

    ## Autoreset
    **SAME_STEP** is passed through. With **NEXT_STEP**, the end of an episode is followed by a filler step,
    in which the environment resets and ignores its action. At the end of the episode, both `obs` and
    `final_obs` are its last observation. The filler has `valid` False, reward 0, `terminated` True and the
    first observation of the next episode as `obs`. A learner that resets its memory where `done` is true
    therefore starts that episode with a fresh memory, and one that drops rows where `valid` is False learns
    from real steps only. Count episodes where `done` and `valid` are true. DISABLED is refused.

    ## Success
    Taken from `is_success` or `success` in the info of an episode's last step. Without them, and with
    `reward_is_success`, it is a termination with a positive reward; otherwise it is None. (It is also None
    until an episode has first ended with one of the two keys.)

    ## Seeding
    As Gymnasium's: environment i is seeded with `seed + i`.

    ## Saving
    The state of a Gymnasium environment cannot be saved: `state_dict` returns None. A resumed training seeds
    the environments with its own seed plus the steps done so far, starts new episodes, and reports it.
    """

    def __init__(
        self,
        env: VectorEnv,
        device: str | torch.device = "cpu",
        name: str | None = None,
        autoreset: AutoresetMode | None = None,
        reward_is_success: bool = False,
    ) -> None:
        """
        Args:
            env: the environments; `close` closes them.
            device: where observations appear and actions are expected.
            name: name in `tasks` and in error messages; by default the environment's id.
            autoreset: autoreset mode of `env`, if its metadata does not name it.
            reward_is_success: see the class.

        Raises:
            ValueError: a space or an autoreset mode that is not supported.
        """
        mode = autoreset if autoreset is not None else env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise ValueError(
                f"autoreset mode {mode} of {env}: expected SAME_STEP or NEXT_STEP; make it with one of them "
                "or, if its metadata does not name the mode, pass autoreset="
            )
        self.env = env
        self.num_envs = env.num_envs
        self.device = torch.device(device)
        self.tasks = (name or (env.spec.id if env.spec is not None else type(env).__name__),)
        self.task_of = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._next_step = mode is AutoresetMode.NEXT_STEP
        self._reward_is_success = reward_is_success
        self._success_key: str | None = None
        self._leaves = list(leaves_of(env.single_observation_space))
        if not self._leaves:
            raise ValueError(f"{self.tasks[0]}: nothing to observe in {env.single_observation_space}")
        self._structured = isinstance(env.single_observation_space, spaces.Dict | spaces.Tuple)
        self.observation_space = (
            spaces.Dict({key_of(path): plain_space(space) for path, space in self._leaves})
            if self._structured
            else plain_space(self._leaves[0][1])
        )
        if isinstance(env.single_action_space, spaces.Dict | spaces.Tuple):
            raise ValueError(
                f"{self.tasks[0]}: actions in {env.single_action_space} are not supported; "
                "wrap the environment"
            )
        self.action_space = plain_space(env.single_action_space)
        self._ended: NDArray[np.bool_] | None = None  # [B] with NEXT_STEP: the next step is a filler
        self._steps = 0

    def reset(self, seed: int | None = None) -> Obs:
        obs, _ = self._call(lambda: self.env.reset(seed=seed), "reset")
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._steps = 0
        return self._tensors(self._arrays(obs))

    def step(self, actions: Tensor) -> Transition:
        if self._ended is None:
            raise RuntimeError("step before the first reset: call reset(seed) first")
        self.require_actions(actions)
        self._steps += 1
        numpy_actions = from_plain(self.env.single_action_space, actions.detach().cpu().numpy())
        obs, reward, terminated, truncated, infos = self._call(lambda: self.env.step(numpy_actions), "step")
        arrays = self._arrays(obs)
        reward = np.array(reward, dtype=np.float32)
        terminated, truncated = np.array(terminated, dtype=bool), np.array(truncated, dtype=bool)
        self._require_finite("reward", reward)
        filler = self._ended if self._next_step else np.zeros_like(self._ended)
        ended = (terminated | truncated) & ~filler
        final_arrays = arrays
        if self._next_step:
            reward[filler], terminated[filler], truncated[filler] = 0.0, True, False
            self._ended = ended
        elif ended.any():
            final_arrays = self._final(arrays, infos["final_obs"], ended)
            infos = infos.get("final_info", {})
        success = self._success(infos, ended, reward, terminated)
        obs_tensors = self._tensors(arrays)
        return Transition(
            obs=obs_tensors,
            reward=self._tensor(reward),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            final_obs=obs_tensors if final_arrays is arrays else self._tensors(final_arrays),
            success=None if success is None else self._tensor(success),
            valid=self._tensor(~filler) if self._next_step else None,
        )

    def warnings(self) -> list[str]:
        return self.env.warnings() if isinstance(self.env, Workers) else []

    def close(self) -> None:
        self.env.close()

    def _call(self, function: Callable[[], Any], name: str) -> Any:
        """Call the environments; turn their errors into EnvironmentFailed."""
        try:
            return function()
        except EnvironmentFailed:
            raise
        except Exception as error:
            when = f"step {self._steps} of the batch" if name == "step" else name
            raise EnvironmentFailed(f"{self.tasks[0]} raised in {when}: {error!r}") from error

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _tensors(self, arrays: list[NDArray]) -> Obs:
        if not self._structured:
            return self._tensor(arrays[0])
        return {
            key_of(path): self._tensor(array) for (path, _), array in zip(self._leaves, arrays, strict=True)
        }

    def _arrays(self, obs: Any) -> list[NDArray]:
        """Copy each leaf of a batch of observations, in the type that its tensor will have."""
        arrays = []
        for path, space in self._leaves:
            raw = np.asarray(leaf_at(obs, path))
            if raw.shape != (self.num_envs, *(space.shape or ())):
                raise EnvironmentFailed(
                    f"{self.tasks[0]} returned observations {key_of(path)} of shape {raw.shape}, expected "
                    f"{(self.num_envs, *(space.shape or ()))}, at step {self._steps} of the batch"
                )
            array = to_plain(space, raw)
            self._require_finite(f"observation {key_of(path)}".strip(), array)
            arrays.append(array)
        return arrays

    def _final(self, arrays: list[NDArray], final: Any, ended: NDArray[np.bool_]) -> list[NDArray]:
        """Return `arrays` with the rows of ended episodes replaced by their last observations."""
        finals = []
        for (path, space), array in zip(self._leaves, arrays, strict=True):
            array = array.copy()
            # Gymnasium's own vector environments give an array of observations, others a batch.
            single = isinstance(final, np.ndarray) and final.dtype == object
            indices = np.flatnonzero(ended)
            rows = [leaf_at(final[i], path) for i in indices] if single else leaf_at(final, path)[ended]
            array[ended] = to_plain(space, np.asarray(rows))
            self._require_finite(f"final observation {key_of(path)}".strip(), array)
            finals.append(array)
        return finals

    def _success(
        self, infos: dict[str, Any], ended: NDArray[np.bool_], reward: NDArray, terminated: NDArray[np.bool_]
    ) -> NDArray[np.bool_] | None:
        """Return [B] whether an episode ended with success; None if that is not known."""
        if self._success_key is None and ended.any():
            self._success_key = next((key for key in ("is_success", "success") if key in infos), None)
        if self._success_key is not None:
            reported = infos.get(self._success_key, np.zeros(self.num_envs))
            return ended & np.array(reported, dtype=np.float64).astype(bool)
        if self._reward_is_success:
            return ended & terminated & (reward > 0)
        return None

    def _require_finite(self, name: str, array: NDArray) -> None:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            environment, *position = np.argwhere(~np.isfinite(array))[0].tolist()
            at = f" at {position}" if position else ""
            number = "NaN" if np.isnan(array[(environment, *position)]) else "infinity"
            raise EnvironmentFailed(
                f"environment {environment} ({self.tasks[0]}) returned {number}{at} as {name}, "
                f"at step {self._steps} of the batch"
            )

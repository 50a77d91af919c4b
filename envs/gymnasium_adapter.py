"""Any Gymnasium environment as a `BatchedEnv`: NumPy behind, tensors at the face.

B environments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from envs.base import BatchedEnv, EnvironmentFailed, Obs, StateNotSaved, Transition
from envs.workers import Workers

Path = tuple[str | int, ...]


class Watched(gymnasium.Wrapper):
    """Says which environment it was, when one raises, or gives what its own space or type rules out."""

    def __init__(self, env: gymnasium.Env, index: int, name: str) -> None:
        super().__init__(env)
        self._who = f"environment {index} ({name})"
        self._steps = 0
        try:
            self._parts = list(_leaves(env.observation_space))
        except ValueError:  # told by `GymnasiumEnvs`, once
            self._parts = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self._steps = 0
        try:
            obs, info = super().reset(seed=seed, options=options)
        except Exception as error:
            raise EnvironmentFailed(f"{self._who} raised in reset: {error!r}") from error
        self._check(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self._steps += 1
        try:
            obs, reward, terminated, truncated, info = super().step(action)
        except Exception as error:
            raise EnvironmentFailed(
                f"{self._who} raised at step {self._steps} of its episode: {error!r}"
            ) from error
        self._check(obs)
        paid: Any = reward
        if np.ndim(paid) or np.asarray(paid).dtype.kind not in "biuf":
            raise self._failed(f"gave {reward!r} as a reward, where a number was expected")
        return obs, reward, terminated, truncated, info

    def _check(self, obs: Any) -> None:
        """Raise EnvironmentFailed unless an observation has its space's shapes and kinds of numbers."""
        for path, space in self._parts:
            try:
                x = _at(obs, path)
                if type(x) is not np.ndarray or x.dtype != space.dtype or x.shape != space.shape:
                    _require_alike(space, np.asarray(x))
            except (ValueError, TypeError, LookupError) as error:
                what = f"observation {_key(path)}".strip()
                raise self._failed(f"gave an {what} that is not of its space: {error}") from error

    def _failed(self, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self._who} {what}, at step {self._steps} of its episode")


def watched(build: Callable[[], gymnasium.Env], index: int, name: str) -> Callable[[], gymnasium.Env]:
    """`build`, with its environment in a `Watched`."""
    return lambda: Watched(build(), index, name)


@final
class GymnasiumEnvs(BatchedEnv):
    """A `gymnasium.vector.VectorEnv` with tensors at its face.

    ## Spaces
    Observations: `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, and `Dict` and `Tuple` of them, which
    become one flat `Dict` (a nested key is "outer.inner", a tuple's are "0", "1", ...). Texts in a `Dict`
    are dropped. Floats become float32; integers keep their type where torch has it and else are int64.
    `Discrete(n, start=s)` is seen as `Discrete(n)`, observation and action alike.
    Actions: the same four; `Box` actions are clipped to their bounds.

    ## Autoreset
    **SAME_STEP** is passed through. With **NEXT_STEP** an episode's end is followed by a filler step, at
    which the environment resets and ignores its action. At the end `obs` is the episode's last observation
    and so is `final_obs`. The filler has `valid` False, reward 0, `terminated` True and the next episode's
    first observation as `obs`: so a learner that resets its memory after `terminated | truncated` starts
    that episode with a fresh one, and one that leaves out rows where `valid` is False learns from real
    steps only. Episodes are counted at ends where `valid` is True. DISABLED is refused.

    ## Success
    From `is_success` or `success` in the info of an episode's last step; else, with `reward_is_success`, a
    termination with a reward above 0; else None. (Until an environment has first said so, None too.)

    ## Seeding
    As Gymnasium's: environment i is seeded `seed + i`. Its state cannot be saved: a training that is resumed
    seeds it anew, with its own seed plus the steps so far, begins new episodes, and says so.
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
            env: the environments; closed by `close`.
            device: where observations appear and actions are expected.
            name: what error messages and `tasks` call it; by default its id.
            autoreset: what `env` does at an episode's end, where its metadata does not say.
            reward_is_success: see the class.

        Raises:
            ValueError: a space or an autoreset mode that is not served.
        """
        mode = autoreset if autoreset is not None else env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise ValueError(
                f"autoreset mode {mode} of {env}: expected SAME_STEP or NEXT_STEP; make it with one of them, "
                "or, where its metadata leaves it out, say it with autoreset="
            )
        self.env = env
        self.num_envs = env.num_envs
        self.device = torch.device(device)
        self.tasks = (name or (env.spec.id if env.spec is not None else type(env).__name__),)
        self.task_of = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._next_step = mode is AutoresetMode.NEXT_STEP
        self._reward_is_success = reward_is_success
        self._success_key: str | None = None
        self._leaves = list(_leaves(env.single_observation_space))
        if not self._leaves:
            raise ValueError(f"{self.tasks[0]}: nothing to observe in {env.single_observation_space}")
        self._structured = isinstance(env.single_observation_space, spaces.Dict | spaces.Tuple)
        self.observation_space = (
            spaces.Dict({_key(path): _plain(space) for path, space in self._leaves})
            if self._structured
            else _plain(self._leaves[0][1])
        )
        if isinstance(env.single_action_space, spaces.Dict | spaces.Tuple):
            raise ValueError(f"{self.tasks[0]}: {env.single_action_space} as actions is not served; wrap it")
        self.action_space = _plain(env.single_action_space)
        self._ended = np.zeros(self.num_envs, dtype=bool)  # NEXT_STEP: whose next step is a filler
        self._steps = 0

    def reset(self, seed: int | None = None) -> Obs:
        obs, _ = self._call(lambda: self.env.reset(seed=seed), "reset")
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._steps = 0
        return self._tensors(self._arrays(obs))

    def step(self, actions: Tensor) -> Transition:
        self._steps += 1
        numpy_actions = _to_space(self.env.single_action_space, actions.detach().cpu().numpy())
        obs, reward, terminated, truncated, infos = self._call(lambda: self.env.step(numpy_actions), "step")
        arrays = self._arrays(obs)
        reward = np.array(reward, dtype=np.float32)
        terminated, truncated = np.array(terminated, dtype=bool), np.array(truncated, dtype=bool)
        self._require_number("reward", reward)
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

    def state_dict(self) -> dict[str, Any]:
        raise StateNotSaved(f"{self.tasks[0]} is a Gymnasium environment, which cannot give its state")

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        raise StateNotSaved(f"{self.tasks[0]} is a Gymnasium environment, which cannot take a state")

    def news(self) -> list[str]:
        """What happened since it was last asked, such as an environment that was started again."""
        return self.env.news() if isinstance(self.env, Workers) else []

    def close(self) -> None:
        self.env.close()

    def _call(self, do: Callable[[], Any], what: str) -> Any:
        try:
            return do()
        except EnvironmentFailed:
            raise
        except Exception as error:
            when = f"step {self._steps} of the batch" if what == "step" else what
            raise EnvironmentFailed(f"{self.tasks[0]} raised in {when}: {error!r}") from error

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _tensors(self, arrays: list[NDArray]) -> Obs:
        if not self._structured:
            return self._tensor(arrays[0])
        return {
            _key(path): self._tensor(array) for (path, _), array in zip(self._leaves, arrays, strict=True)
        }

    def _arrays(self, obs: Any) -> list[NDArray]:
        """Our own copy of each leaf of a batch of observations, in the type that its tensor will have."""
        arrays = []
        for path, space in self._leaves:
            raw = np.asarray(_at(obs, path))
            if raw.shape != (self.num_envs, *(space.shape or ())):
                raise EnvironmentFailed(
                    f"{self.tasks[0]} gave observations {_key(path)} of shape {raw.shape}, expected "
                    f"{(self.num_envs, *(space.shape or ()))}, at step {self._steps} of the batch"
                )
            array = _from_space(space, raw)
            self._require_number(f"observation {_key(path)}".strip(), array)
            arrays.append(array)
        return arrays

    def _final(self, arrays: list[NDArray], final: Any, ended: NDArray[np.bool_]) -> list[NDArray]:
        """`arrays` with the rows of ended episodes replaced by their last observations."""
        finals = []
        for (path, space), array in zip(self._leaves, arrays, strict=True):
            array = array.copy()
            # Gymnasium's own vector environments give an array of observations, others a batch.
            single = isinstance(final, np.ndarray) and final.dtype == object
            rows = [_at(final[i], path) for i in np.flatnonzero(ended)] if single else _at(final, path)[ended]
            array[ended] = _from_space(space, np.asarray(rows))
            self._require_number(f"final observation {_key(path)}".strip(), array)
            finals.append(array)
        return finals

    def _success(
        self, infos: dict[str, Any], ended: NDArray[np.bool_], reward: NDArray, terminated: NDArray[np.bool_]
    ) -> NDArray[np.bool_] | None:
        """[B] who ended an episode with success."""
        if self._success_key is None and ended.any():
            self._success_key = next((key for key in ("is_success", "success") if key in infos), None)
        if self._success_key is not None:
            said = infos.get(self._success_key, np.zeros(self.num_envs))
            return ended & np.array(said, dtype=np.float64).astype(bool)
        if self._reward_is_success:
            return ended & terminated & (reward > 0)
        return None

    def _require_number(self, what: str, array: NDArray) -> None:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            environment, *position = np.argwhere(~np.isfinite(array))[0].tolist()
            at = f" at {position}" if position else ""
            number = "NaN" if np.isnan(array[(environment, *position)]) else "infinity"
            raise EnvironmentFailed(
                f"environment {environment} ({self.tasks[0]}) gave a {what} of {number}{at}, "
                f"at step {self._steps} of the batch"
            )


def _require_alike(space: spaces.Space, x: NDArray) -> None:
    """Raise ValueError unless an observation that is not exactly of its space's type can be taken for one."""
    if x.shape != space.shape:
        raise ValueError(f"shape {x.shape}, expected {space.shape}")
    kind = np.dtype(space.dtype).kind
    if x.dtype.kind not in "biuf" or (x.dtype.kind == "f" and kind != "f"):
        raise ValueError(f"type {x.dtype}, expected {space.dtype}")
    if kind in "iu" and x.size:
        info = np.iinfo(np.dtype(space.dtype))  # type: ignore[arg-type]
        if x.min() < info.min or x.max() > info.max:
            raise ValueError(f"numbers up to {x.max()}, too large for {space.dtype}")


def _leaves(space: spaces.Space, path: Path = ()) -> Iterator[tuple[Path, spaces.Space]]:
    """The parts of an observation that are not `Dict` or `Tuple`, and the way to each."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in parts:
            # MiniGrid's mission space is no `Text`, but says that it holds one.
            if not (isinstance(part, spaces.Text) or (part.dtype is not None and part.dtype.kind == "U")):
                yield from _leaves(part, (*path, key))
    else:
        _plain(space)  # raises where it is not served
        yield path, space


def _key(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _at(obs: Any, path: Path) -> Any:
    for part in path:
        obs = obs[part]
    return obs


def _torch_dtype(dtype: np.dtype) -> np.dtype:
    if dtype.kind == "f":
        return np.dtype(np.float32)
    served = ("bool", "uint8", "int8", "int16", "int32", "int64")
    return dtype if dtype.name in served else np.dtype(np.int64)


def _plain(space: spaces.Space) -> spaces.Space:
    """The space of what we hand on: float32, and counted from 0."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec)
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(space.n)
    if isinstance(space, spaces.Box):
        dtype = _torch_dtype(np.dtype(space.dtype))
        if dtype == space.dtype:
            return space
        with np.errstate(over="ignore"):  # a bound beyond float32 is as good as none
            return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype.type)
    raise ValueError(
        f"space {space}: expected Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them; "
        "wrap the environment"
    )


def _from_space(space: spaces.Space, array: NDArray) -> NDArray:
    """A fresh array of observations, as `_plain(space)` has them."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return np.array(array, dtype=np.int64) - np.asarray(space.start, dtype=np.int64)
    return np.array(array, dtype=_torch_dtype(array.dtype))


def _to_space(space: spaces.Space, actions: NDArray) -> NDArray:
    """Actions as `space` has them: counted from its start, within its bounds."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (actions + space.start).astype(space.dtype)
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype).kind in "iu":
            actions = actions.round()
        return np.clip(actions, space.low, space.high).astype(space.dtype)
    return actions.astype(space.dtype)

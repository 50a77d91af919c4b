"""Adapter that turns any Gymnasium vector environment into a `BatchedEnv` of tensors.

Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import BatchedEnv, EnvironmentFailed, Obs, Transition
from rmc_agents.spaces.annotated import annotate
from rmc_agents.spaces.plain import Actions, Observations, key_of, leaf_at, plain_leaf, to_plain

from ..numbers import whole_seed
from .checked import CheckedEnv
from .failures import call, close
from .final_obs import Overwritten, final_obs_of
from .first_episodes import FirstEpisodes
from .masks import BatchMasks
from .notes import notes_about
from .outside import Outside
from .protocol import checked_reset, checked_vector_step
from .success import infos_of_ended, success_of, unreadable_in
from .unread import UnreadWords
from .workers import Workers


@final
class GymnasiumEnvs(BatchedEnv):
    """A `gymnasium.vector.VectorEnv` as a batch of tensors.

    ## Spaces
    Observations: `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, `AnnotatedText`, and `Dict` and `Tuple`
    of them, which become one flat `Dict` (a nested key is "outer.inner", the keys of a tuple are "0", "1",
    ...). Texts become the ids of their words; those without a vocabulary, in a `Dict` or `Tuple`, are
    dropped. Floats become float32; integers keep their type if torch has it and become int64 otherwise.
    `Discrete(n, start=s)` becomes `Discrete(n)`, for observations and actions.
    Actions: the first four spaces, and `Dict` and `Tuple` of choices or of numbers, which become one vector;
    `Box` actions are clipped to their bounds. `rmc_agents.spaces.plain` converts both, and `own_spaces` holds
    the environments' own spaces.

    ## Autoreset
    **SAME_STEP** is passed through. With **NEXT_STEP**, the end of an episode is followed by a filler step,
    in which the environment resets and ignores its action. At the end of the episode, both `obs` and
    `final_obs` are its last observation. The filler has `valid` False, reward 0, `terminated` True and the
    first observation of the next episode as `obs`. A learner that resets its memory where `done` is true
    therefore starts that episode with a fresh memory, and one that drops rows where `valid` is False learns
    from real steps only. Count episodes where `done` and `valid` are true. DISABLED is refused.

    ## Success
    Taken from `is_success` or `success` in the info of an episode's last step, if one of them is True, False,
    1 or 0. Without them, and with `reward_is_success`, it is a termination with a positive reward; otherwise
    it is None. (It is also None until an episode has first ended with one of the two keys.)

    ## Action masks
    Taken from `action_mask` in the infos of reset and step or, for environments in Gymnasium's vector
    environments and ours, from their method `action_masks`; see `rmc_agents.spaces.masks.ActionMasks` for
    their form. Before a filler step, every action is allowed.

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
        self._success_in_infos = False
        self._messages, self._unreadable = list[str](), set[str]()
        self.reports_success = True if reward_is_success else None
        self._overwritten = Overwritten() if _may_overwrite(env, self.tasks[0]) else None
        self.own_spaces = _observation_space(env), env.single_action_space
        try:
            self._observations = Observations(self.own_spaces[0])
            self._actions = Actions(env.single_action_space)
        except ValueError as error:
            raise ValueError(f"{self.tasks[0]}: {error}") from error
        self.observation_space, self.action_space = self._observations.plain, self._actions.plain
        self.notes = notes_about(env, self.tasks[0])
        self._masks = BatchMasks(env, self.tasks[0])
        self._outside = Outside(self._observations.leaves)
        self._unread = UnreadWords(self._observations.leaves)
        self._shapes = {
            key_of(path): plain_leaf(space).shape or () for path, space in self._observations.leaves
        }
        self._ended: NDArray[np.bool_] | None = None  # [B] with NEXT_STEP: the next step is a filler
        self._steps = 0

    def reset(self, seed: int | None = None) -> Obs:
        """Start a new episode in every environment, and return the observations.

        Args:
            seed: of the first environment, from 0 to 2**63 - 1; None continues the environments' generators.

        Raises:
            ValueError: a seed that is no such number.
            EnvironmentFailed: an environment raised, or returned what does not fit its space.
        """
        seed = whole_seed(seed)
        obs, infos = self._call(lambda: checked_reset(self.env.reset(seed=seed)), "reset")
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._steps = 0
        self._masks.start(infos)
        return self._tensors(self._arrays(obs))

    def step(self, actions: Tensor) -> Transition:
        if self._ended is None:
            raise RuntimeError("step before the first reset: call reset(seed) first")
        self.require_actions(actions)
        self._steps += 1
        numpy_actions = self._actions.batch(actions.detach().cpu().numpy())
        obs, reward, terminated, truncated, infos = self._call(
            lambda: checked_vector_step(self.env.step(numpy_actions), self.num_envs), "step"
        )
        arrays = self._arrays(obs)
        filler = self._ended if self._next_step else np.zeros_like(self._ended)
        ended = (terminated | truncated) & ~filler
        final_arrays = arrays
        if self._next_step:
            reward[filler], terminated[filler], truncated[filler] = 0.0, True, False
            self._ended = ended
        elif ended.any():
            final_arrays = self._final(arrays, final_obs_of(infos), ended)
        self._require_finite("reward", reward)
        self._take_masks(infos)
        self._look_for_overwritten(arrays, final_arrays, ended)
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

    def action_masks(self) -> Tensor | None:
        masks = self._call(self._masks.read, "action_masks")
        return None if masks is None else self._tensor(masks)

    def warnings(self) -> list[str]:
        messages, self._messages = self._messages, []
        return messages + (self.env.warnings() if isinstance(self.env, Workers) else [])

    def close(self) -> None:
        """Close the environments; an error becomes a warning."""
        close(self.env.close, self.tasks[0])

    def _call(self, function: Callable[[], Any], name: str) -> Any:
        when = f"step {self._steps} of the batch" if name == "step" else name
        return call(function, self.tasks[0], f"in {when}")

    def _take_masks(self, infos: dict[str, Any]) -> None:
        """Take the action masks of a step."""
        ended = self._ended if self._next_step else None
        fillers_follow = ended is not None and bool(ended.any())
        self._masks.advance(infos, ended if fillers_follow else None, self._steps)
        self._messages += self._masks.messages()

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _tensors(self, arrays: dict[str, NDArray]) -> Obs:
        tensors = {key: self._tensor(array) for key, array in arrays.items()}
        return tensors if self._observations.structured else tensors[""]

    def _arrays(self, obs: Any) -> dict[str, NDArray]:
        """Copy each part of a batch of observations, in the type that its tensor will have."""
        try:
            arrays = self._observations.batch(obs)
        except ValueError as error:
            raise self._failed(f"observations that do not fit their space: {error}") from error
        for key, array in arrays.items():
            expected = (self.num_envs, *(self._shapes[key]))
            if array.shape != expected:
                raise self._failed(f"observations {key} of shape {array.shape}, expected {expected}")
            self._require_finite(f"observation {key}".strip(), array)
        found = self._outside.found_in(arrays) + self._unread.found_in(obs, arrays)
        self._messages += [f"warning: {self.tasks[0]} {each}" for each in found]
        return arrays

    def _final(self, arrays: dict[str, NDArray], final: Any, ended: NDArray[np.bool_]) -> dict[str, NDArray]:
        """Return `arrays` with the rows of ended episodes replaced by their last observations."""
        if final is None:
            raise self._failed(
                "no `final_obs` in the infos of a step that ends an episode, as SAME_STEP autoreset has it "
                "(if the next step resets, pass autoreset=AutoresetMode.NEXT_STEP)"
            )
        finals = {}
        # Gymnasium's own vector environments give an array of observations, others a batch.
        single = isinstance(final, list) or (isinstance(final, np.ndarray) and final.dtype == object)
        indices = np.flatnonzero(ended)
        for path, space in self._observations.leaves:
            key = key_of(path)
            rows = [leaf_at(final[i], path) for i in indices] if single else leaf_at(final, path)[ended]
            try:
                last = to_plain(space, np.asarray(rows))
            except ValueError as error:
                raise self._failed(f"a final observation that does not fit its space: {error}") from error
            finals[key] = arrays[key].copy()
            finals[key][ended] = last
            self._require_finite(f"final observation {key}".strip(), finals[key])
        return finals

    def _failed(self, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self.tasks[0]} returned {what}, at step {self._steps} of the batch")

    def _success(
        self, infos: dict[str, Any], ended: NDArray[np.bool_], reward: NDArray, terminated: NDArray[np.bool_]
    ) -> NDArray[np.bool_] | None:
        """Return [B] whether an episode ended with success; None if that is not known."""
        success = np.zeros(self.num_envs, dtype=bool)
        for row, info in infos_of_ended(infos, ended).items():
            reported = success_of(info)
            if reported is not None:
                success[row], self._success_in_infos = reported, True
            elif (unreadable := unreadable_in(info)) and unreadable not in self._unreadable:
                self._unreadable.add(unreadable)
                self._messages.append(
                    f"warning: environment {row} ({self.tasks[0]}) ended an episode with {unreadable}, which "
                    "does not count as a report of success: expected True or False"
                )
        if self._success_in_infos:
            self.reports_success = True
            return success
        if self._reward_is_success:
            return ended & terminated & (reward > 0)
        if ended.any():
            self.reports_success = False
        return None

    def _look_for_overwritten(
        self, arrays: dict[str, NDArray], final: dict[str, NDArray], ended: NDArray[np.bool_]
    ) -> None:
        if self._overwritten is not None and self._overwritten.detects(arrays, final, ended):
            self._messages.append(
                f"warning: every final observation of {self.tasks[0]} equals the first one of the next "
                "episode: the environments seem to hand out the same array each time; return copies"
            )

    def _require_finite(self, name: str, array: NDArray) -> None:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            environment, *position = np.argwhere(~np.isfinite(array))[0].tolist()
            at = f" at {position}" if position else ""
            is_nan = np.isnan(array[(environment, *position)])
            number, limit = ("NaN", "") if is_nan else ("infinity", ", as float32, which ends at 3.4e38")
            raise EnvironmentFailed(
                f"environment {environment} ({self.tasks[0]}) returned {number}{at} as {name}, "
                f"at step {self._steps} of the batch{limit}"
            )


def _observation_space(env: VectorEnv) -> gymnasium.Space:
    """Return the space of one environment's observation, with what MiniGrid's wrappers say about it."""
    singles = getattr(env, "envs", ())
    if singles and isinstance(singles[0], gymnasium.Env):
        annotated = annotate(singles[0])
        if annotated == env.single_observation_space:
            return annotated
    return env.single_observation_space


def _may_overwrite(env: VectorEnv, name: str) -> bool:
    """Return whether a vector environment with SAME_STEP autoreset may overwrite its final observations.

    Ours copy them. In Gymnasium's `SyncVectorEnv` every environment gets a wrapper that copies.
    """
    inner = env
    while isinstance(inner, VectorWrapper):
        inner = inner.env
    if isinstance(inner, SyncVectorEnv):
        inner.envs = [
            each if isinstance(each, CheckedEnv) else CheckedEnv(each, i, name)
            for i, each in enumerate(inner.envs)
        ]
    return not isinstance(inner, SyncVectorEnv | Workers | FirstEpisodes)

"""Evaluation of a policy on complete episodes: success, return and length, with intervals.

Axes: B environments of a batch, R rows (the environments whose episode still runs), n episodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.environment import BatchedEnv, KnownStarts
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.statistics import Interval, mean_interval, wilson
from rmc_agents.spaces.masks import allowed_actions, random_allowed
from rmc_agents.tree import Tree, map_tree

FIRST_SEED = 1_000_000
"""Default seed of the first episode, far from the seeds of training."""
STEP_LIMIT = 100_000
"""Steps after which an episode counts as endless."""


class Policy(ABC):
    """Anything that acts on batches of observations.

    Rows are independent: the action of a row may depend on no other row.

    Attributes:
        deterministic: whether the policy draws nothing at random. Episodes that must then be equal are played
            once (see `KnownStarts`).
        uses_action_masks: whether `act` is given the masks of environments that have some.
    """

    deterministic: bool = False
    uses_action_masks: bool = False

    @abstractmethod
    def initial_state(self, batch_size: int) -> Tree:
        """Return what the policy carries from step to step, before the first: tensors [R, ...], or None."""

    @abstractmethod
    def act(
        self,
        obs: Tree,
        episode_starts: Tensor,
        reward: Tensor,
        state: Tree,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tree]:
        """Choose an action for one step.

        Args:
            obs: [R, ...].
            episode_starts: [R] bool, true where `obs` is the first observation of an episode.
            reward: [R] the reward of the previous step.
            state: from the previous step, or `initial_state`.
            action_masks: [R, P] bool, true where a choice is allowed; given only to policies that use masks,
                which others need not accept.

        Returns:
            the actions [R, ...] on the device of `episode_starts`, and the next state.
        """


class AgentPolicy(Policy):
    """A trained agent as a policy.

    Args:
        agent: the agent; the environments may be on another device.
        deterministic: choose the most likely action instead of drawing one.
        seed: of the drawn actions.
    """

    def __init__(self, agent: ActorCritic, deterministic: bool = True, seed: int = 0) -> None:
        self.agent, self.deterministic = agent, deterministic
        self.uses_action_masks = agent.config.action_masks != "ignore"
        self.generator = torch.Generator(agent.device).manual_seed(seed)

    def initial_state(self, batch_size: int) -> Tree:
        return self.agent.initial_state(batch_size)

    def act(
        self,
        obs: Tree,
        episode_starts: Tensor,
        reward: Tensor,
        state: Tree,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tree]:
        device = self.agent.device
        obs = map_tree(lambda x: x.to(device), obs)
        state = state._replace(reward=reward.to(device))
        masks = None if action_masks is None else action_masks.to(device)
        action, _, _, state = self.agent.act(
            obs, episode_starts.to(device), state, self.generator, self.deterministic, masks
        )
        return action.to(episode_starts.device), state


class RandomPolicy(Policy):
    """A policy that ignores observations and draws actions uniformly (Gymnasium's `sample`).

    Args:
        action_space: the space of one environment's action.
        seed: of the draws; each call of `initial_state` uses the next seed.
        uses_action_masks: draw uniformly from the allowed actions, where the environments have masks.
    """

    def __init__(
        self, action_space: spaces.Space[Any], seed: int = 0, uses_action_masks: bool = False
    ) -> None:
        self.action_space, self.seed = action_space, seed
        self.uses_action_masks = uses_action_masks
        self.generator = torch.Generator()
        self.batched = gymnasium.vector.utils.batch_space(action_space, 1)

    def initial_state(self, batch_size: int) -> Tree:
        self.batched = gymnasium.vector.utils.batch_space(self.action_space, batch_size)
        self.batched.seed(self.seed)
        self.generator.manual_seed(self.seed)
        self.seed += 1
        return None

    def act(
        self,
        obs: Tree,
        episode_starts: Tensor,
        reward: Tensor,
        state: Tree,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tree]:
        if action_masks is not None:
            return random_allowed(action_masks, self.action_space, self.generator), None
        actions = torch.as_tensor(np.asarray(self.batched.sample())[: len(episode_starts)])
        real = isinstance(self.action_space, spaces.Box | spaces.MultiBinary)
        return actions.to(episode_starts.device, torch.float32 if real else torch.int64), None


@dataclass(frozen=True)
class Episodes:
    """Outcomes of n complete episodes; row j belongs to episode j."""

    returns: NDArray[np.float64]
    """[n] sums of rewards."""
    lengths: NDArray[np.int64]
    """[n] in steps."""
    success: NDArray[np.bool_] | None
    """[n]; None if the task does not report success."""
    first_seed: int
    """Episode j started in an environment seeded with `first_seed + j`, if each has its own generator."""

    @property
    def episodes(self) -> int:
        return len(self.returns)

    @property
    def success_rate(self) -> float | None:
        """Share of solved episodes; None if the task does not report success."""
        return None if self.success is None else float(self.success.mean())

    @property
    def success_ci95(self) -> Interval | None:
        """Wilson's interval of the success rate."""
        return None if self.success is None else wilson(int(self.success.sum()), self.episodes)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean())

    @cached_property
    def return_ci95(self) -> Interval | None:
        """Bootstrap interval of the mean return; None for a single episode."""
        return mean_interval(self.returns)

    @property
    def mean_length(self) -> float:
        """In steps."""
        return float(self.lengths.mean())

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON; success is None if the task does not report it."""
        names = ("success_rate", "success_ci95", "mean_return", "return_ci95", "mean_length", "episodes")
        figures = {name: getattr(self, name) for name in (*names, "first_seed")}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in figures.items()}


def evaluate(
    policy: ActorCritic | Policy,
    env: BatchedEnv,
    episodes: int = 1000,
    *,
    seed: int = FIRST_SEED,
    deterministic: bool = True,
    step_limit: int = STEP_LIMIT,
    progress: Callable[[int], None] | None = None,
) -> Episodes:
    """Play complete episodes; short and long ones are equally likely to be counted.

    The episodes are played in waves of `num_envs`. The environments are reset with `seed + k * num_envs` for
    wave k, and each counts only its first episode of a wave. So episode j is the first of an environment
    seeded with `seed + j`, whatever `num_envs` is, if environment i of the batch is seeded with `seed + i`,
    as Gymnasium's are. Counting episodes as they end in autoresetting environments would favour short ones,
    which in these tasks are the solved ones.

    Args:
        policy: an agent or a `Policy`.
        env: the environments; they are reset, and stay open.
        episodes: number of episodes, 1 or more.
        seed: of the first episode. The default is far from the seeds of training.
        deterministic: for an agent, choose the most likely action instead of drawing one.
        step_limit: steps after which an episode counts as endless.
        progress: called after each step with the number of episodes that have ended.

    Raises:
        UsageError: an episode did not end within `step_limit` steps, or `episodes` is below 1.
    """
    if episodes < 1:
        raise UsageError(f"episodes={episodes}: expected 1 or more")
    if isinstance(policy, ActorCritic):
        for name in ("observation_space", "action_space"):
            if getattr(policy, name) != getattr(env, name):
                raise UsageError(
                    f"{name} of agent and environments differ: {getattr(policy, name)}, {getattr(env, name)}"
                )
        policy = AgentPolicy(policy, deterministic, seed)
    waves = []
    for first in range(0, episodes, env.num_envs):
        counted = min(env.num_envs, episodes - first)
        ended = partial(_report, progress, first + counted)
        waves.append(_play_wave(policy, env, counted, seed=seed + first, step_limit=step_limit, report=ended))
    returns, lengths, success = (np.concatenate(parts) for parts in zip(*waves, strict=True))
    reported = success >= 0  # some adapters know only after a first ended episode whether success is reported
    return Episodes(returns, lengths, success > 0 if reported.all() else None, seed)


def _report(progress: Callable[[int], None] | None, total: int, running: int) -> None:
    if progress is not None:
        progress(total - running)


@torch.no_grad()
def _play_wave(
    policy: Policy,
    env: BatchedEnv,
    counted: int,
    *,
    seed: int,
    step_limit: int,
    report: Callable[[int], None],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int8]]:
    """Play the first episode of environments 0 to `counted` - 1.

    Returns:
        returns, lengths and success (1, 0, or -1 for unknown), [counted] each.
    """
    device = env.device
    returns = torch.zeros(counted, dtype=torch.float64, device=device)
    lengths = torch.zeros(counted, dtype=torch.int64, device=device)
    success = torch.full((counted,), -1, dtype=torch.int8, device=device)

    obs = env.reset(seed)
    rows, representative = _select_rows(policy, env, counted)
    obs = map_tree(lambda x: x[rows], obs)
    starts = torch.ones(len(rows), dtype=torch.bool, device=device)
    reward = torch.zeros(len(rows), device=device)
    state = policy.initial_state(len(rows))
    # [B, ...]; finished environments repeat their last action, or take one that is allowed
    actions: Tensor | None = None
    for _ in range(step_limit):
        masks = env.action_masks() if policy.uses_action_masks else None
        if masks is None:
            acted, state = policy.act(obs, starts, reward, state)
        else:
            acted, state = policy.act(obs, starts, reward, state, masks[rows])
        if actions is None:
            actions = acted.new_zeros(env.num_envs, *acted.shape[1:])
        if masks is not None:
            actions = allowed_actions(actions, masks, env.action_space)
        actions[rows] = acted
        step = env.step(actions)

        done = step.done[rows]
        valid = torch.ones_like(done) if step.valid is None else step.valid[rows]
        reward = torch.where(valid, step.reward[rows], 0.0)
        ended = done & valid
        returns[rows] += reward.double()
        lengths[rows] += valid
        if step.success is not None:
            success[rows[ended]] = step.success[rows[ended]].to(torch.int8)

        keep = ~ended
        starts, reward, rows = done[keep], reward[keep], rows[keep]
        report(len(rows))
        if not len(rows):
            figures = [x[representative].cpu().numpy() for x in (returns, lengths, success)]
            return figures[0], figures[1], figures[2]
        obs = map_tree(lambda x: x[rows], step.obs)  # noqa: B023 - called at once
        state = map_tree(lambda x: x[keep.to(x.device)], state)  # noqa: B023 - called at once
    unfinished = int(torch.isin(representative, rows).sum())
    raise UsageError(
        f"{unfinished} of {counted} episodes of {', '.join(env.tasks)} did not end within {step_limit} steps "
        f"(environment {int(rows[0])}, seed {seed + int(rows[0])}, is one); give it a time limit, "
        "such as gymnasium.make(..., max_episode_steps=1000)"
    )


def _select_rows(policy: Policy, env: BatchedEnv, counted: int) -> tuple[Tensor, Tensor]:
    """Select the environments to play right after a reset.

    A deterministic policy repeats itself from equal starts. Where the environments identify their starts (a
    maze of fixed size has 4 for each cell of its hallway), one environment per start is played.

    Returns:
        the environments to play, [R], and for each counted environment the one whose episode represents it,
        [counted].
    """
    everyone = torch.arange(counted, device=env.device)
    if not (policy.deterministic and isinstance(env, KnownStarts)):
        return everyone, everyone
    distinct, start = torch.unique(env.start_ids()[:counted], return_inverse=True)
    first = torch.full_like(distinct, counted).scatter_reduce(0, start, everyone, "amin")
    return first, first[start]

"""Complete episodes of a policy, and what they say about it, with intervals.

Axes: B environments of a batch, R rows: the environments whose episode still runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.actor_critic import ActorCritic
from rmc_agents.errors import UsageError
from rmc_agents.rollout import BatchedEnv
from rmc_agents.statistics import Interval, mean_interval, wilson
from rmc_agents.tree import Tree, map_tree

STEP_LIMIT = 100_000
"""Steps after which an episode is taken to be one that never ends."""


class Policy(Protocol):
    """Anything that acts. Rows are independent: a row's action may depend on no other row.

    One that draws nothing may say so by an attribute `deterministic = True`: what must go the same way is
    then played once.
    """

    def initial_state(self, batch_size: int) -> Tree:
        """What the policy carries from step to step, before the first: tensors [R, ...], or None."""
        ...

    def act(self, obs: Tree, starts: Tensor, reward: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        """Act on obs [R, ...]; starts [R] bool marks first observations, reward [R] is the last one."""
        ...


class AgentPolicy:
    """A trained agent as a policy.

    Args:
        agent: the agent; the environments may be on another device.
        deterministic: the most likely action rather than a drawn one.
        seed: of the draws.
    """

    def __init__(self, agent: ActorCritic, deterministic: bool = True, seed: int = 0) -> None:
        self.agent, self.deterministic = agent, deterministic
        self.generator = torch.Generator(agent.device).manual_seed(seed)

    def initial_state(self, batch_size: int) -> Tree:
        return self.agent.initial_state(batch_size)

    def act(self, obs: Tree, starts: Tensor, reward: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        device = self.agent.device
        obs = map_tree(lambda x: x.to(device), obs)
        state = state._replace(reward=reward.to(device))
        action, _, _, state = self.agent.act(
            obs, starts.to(device), state, self.generator, deterministic=self.deterministic
        )
        return action.to(starts.device), state


class RandomPolicy:
    """Actions drawn uniformly from a space (Gymnasium's `sample`), whatever is seen."""

    def __init__(self, action_space: spaces.Space[Any], seed: int = 0) -> None:
        self.action_space, self.seed = action_space, seed
        self.batched = gymnasium.vector.utils.batch_space(action_space, 1)

    def initial_state(self, batch_size: int) -> Tree:
        self.batched = gymnasium.vector.utils.batch_space(self.action_space, batch_size)
        self.batched.seed(self.seed)
        self.seed += 1  # another wave, other actions
        return None

    def act(self, obs: Tree, starts: Tensor, reward: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        actions = torch.as_tensor(np.asarray(self.batched.sample())[: len(starts)])
        kind = (
            torch.float32 if isinstance(self.action_space, spaces.Box | spaces.MultiBinary) else torch.int64
        )
        return actions.to(starts.device, kind), None


@dataclass(frozen=True)
class Episodes:
    """What happened in n complete episodes; episode j is row j."""

    returns: NDArray[np.float64]
    """[n] sums of rewards."""
    lengths: NDArray[np.int64]
    """[n] steps."""
    success: NDArray[np.bool_] | None
    """[n], or None where the task does not say."""
    first_seed: int
    """Episode j began in an environment seeded `first_seed + j`, if each has a generator of its own."""

    @property
    def episodes(self) -> int:
        return len(self.returns)

    @property
    def success_rate(self) -> float | None:
        return None if self.success is None else float(self.success.mean())

    @property
    def success_ci95(self) -> Interval | None:
        """Wilson's interval."""
        return None if self.success is None else wilson(int(self.success.sum()), self.episodes)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean())

    @cached_property
    def return_ci95(self) -> Interval | None:
        """Bootstrap interval of the mean return."""
        return mean_interval(self.returns)

    @property
    def mean_length(self) -> float:
        """In steps."""
        return float(self.lengths.mean())

    def summary(self) -> dict[str, Any]:
        """The figures, as JSON; those of success are None where the task does not say."""
        names = ("success_rate", "success_ci95", "mean_return", "return_ci95", "mean_length", "episodes")
        figures = {name: getattr(self, name) for name in (*names, "first_seed")}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in figures.items()}


def evaluate(
    policy: ActorCritic | Policy,
    env: BatchedEnv,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    step_limit: int = STEP_LIMIT,
) -> Episodes:
    """Run complete episodes, each as likely to be counted whether it is short or long.

    The environments are reset with `seed + k * num_envs` for wave k, and each counts only the first episode
    of a wave. So episode j is the first of an environment seeded `seed + j` whatever `num_envs` is,
    provided that environment i of the batch is seeded `seed + i`, as Gymnasium's are. Counting episodes as
    they end in autoresetting environments would favour short ones: here, those that succeed.

    Args:
        policy: an agent, or any other `Policy`.
        env: the environments; reset here, not closed.
        episodes: how many, 1 or more.
        seed: of the first episode.
        deterministic: for an agent, the most likely action rather than a drawn one.
        step_limit: steps after which an episode is taken to be one that never ends.

    Raises:
        UsageError: an episode did not end within `step_limit` steps, or `episodes` is below 1.
    """
    if episodes < 1:
        raise UsageError(f"{episodes} episodes to evaluate: ask for 1 or more")
    if isinstance(policy, ActorCritic):
        policy = AgentPolicy(policy, deterministic, seed)
    waves = [
        _wave(policy, env, min(env.num_envs, episodes - first), seed + first, step_limit)
        for first in range(0, episodes, env.num_envs)
    ]
    returns, lengths, success = (np.concatenate(parts) for parts in zip(*waves, strict=True))
    told = success >= 0  # a wave may hear of success for the first time at its first end
    return Episodes(returns, lengths, success > 0 if told.all() else None, seed)


@torch.no_grad()
def _wave(
    policy: Policy, env: BatchedEnv, counted: int, seed: int, step_limit: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int8]]:
    """The first episode of environments 0 to `counted` - 1: returns, lengths, success (-1 unknown)."""
    device = env.device
    returns = torch.zeros(counted, dtype=torch.float64, device=device)
    lengths = torch.zeros(counted, dtype=torch.int64, device=device)
    success = torch.full((counted,), -1, dtype=torch.int8, device=device)

    obs = env.reset(seed)
    # [R] the environments whose episode still runs, and of each environment the one that plays for it
    rows, player = _players(policy, env, counted)
    obs = map_tree(lambda x: x[rows], obs)
    starts = torch.ones(len(rows), dtype=torch.bool, device=device)
    reward = torch.zeros(len(rows), device=device)
    state = policy.initial_state(len(rows))
    actions: Tensor | None = None  # [B, ...]; finished environments repeat their last
    for _ in range(step_limit):
        acted, state = policy.act(obs, starts, reward, state)
        if actions is None:
            actions = acted.new_zeros(env.num_envs, *acted.shape[1:])
        actions[rows] = acted
        step = env.step(actions)

        valid = torch.ones_like(rows, dtype=torch.bool) if step.valid is None else step.valid[rows]
        reward = torch.where(valid, step.reward[rows], 0.0)
        ended = (step.terminated | step.truncated)[rows] & valid
        returns[rows] += reward.double()
        lengths[rows] += valid
        if step.success is not None:
            success[rows[ended]] = step.success[rows[ended]].to(torch.int8)

        keep = ~ended
        starts, reward, rows = (step.terminated | step.truncated)[rows][keep], reward[keep], rows[keep]
        if not len(rows):
            returns, lengths, success = (figures[player].cpu() for figures in (returns, lengths, success))
            return returns.numpy(), lengths.numpy(), success.numpy()
        obs = map_tree(lambda x: x[rows], step.obs)  # noqa: B023 - called at once
        state = map_tree(lambda x: x[keep.to(x.device)], state)  # noqa: B023 - called at once
    unfinished = int(torch.isin(player, rows).sum())
    raise UsageError(
        f"{unfinished} of {counted} episodes of {', '.join(env.tasks)} did not end within {step_limit} steps "
        f"(environment {int(rows[0])}, seed {seed + int(rows[0])}, is one); give it a time limit, "
        "such as gymnasium.make(..., max_episode_steps=1000)"
    )


def _players(policy: Policy, env: BatchedEnv, counted: int) -> tuple[Tensor, Tensor]:
    """Which environments are played, [R], and whose episode stands for each, [counted].

    A policy that draws nothing goes the same way from the same start: where an environment can tell its
    starts apart (a maze of fixed size has 4 for each cell of its hallway), one of each is played.
    """
    everyone = torch.arange(counted, device=env.device)
    starts_now = getattr(env, "starts_now", None)
    if starts_now is None or not getattr(policy, "deterministic", False):
        return everyone, everyone
    distinct, start = torch.unique(starts_now()[:counted], return_inverse=True)
    first = torch.full_like(distinct, counted).scatter_reduce(0, start, everyone, "amin")
    return first, first[start]

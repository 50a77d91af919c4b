"""Rollouts: experience as tensors [T, B, ...] on the device, split into chunks for truncated BPTT.

Axes: T steps of a rollout, B environments, L steps of a chunk, C chunks, K auxiliary targets. Nothing here
reads a tensor back to the host, so that a GPU never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic, AgentState
from rmc_agents.environment import AuxiliaryTargets, BatchedEnv
from rmc_agents.tree import Tree, map_tree


class Carry(NamedTuple):
    """State between two rollouts."""

    obs: Tree
    """[B, ...]."""
    starts: Tensor
    """[B] bool: `obs` is the first observation of an episode."""
    state: AgentState
    """State of the agent before it reads `obs`."""


@dataclass
class Rollout:
    """T steps of B environments."""

    obs: Tree
    """[T, B, ...]."""
    starts: Tensor
    """[T, B] bool: an episode starts with `obs[t]`."""
    states: AgentState
    """[T + 1, B, ...] state of the agent before it read `obs[t]`, before any reset."""
    actions: Tensor
    """[T, B, ...]."""
    log_probs: Tensor
    """[T, B] log-probabilities of the actions when they were drawn."""
    values: Tensor
    """[T, B]."""
    rewards: Tensor
    """[T, B]."""
    terminated: Tensor
    """[T, B] bool."""
    truncated: Tensor
    """[T, B] bool."""
    success: Tensor
    """[T, B] bool."""
    valid: Tensor
    """[T, B] bool: false for filler steps, which no loss may see."""
    final_obs: Tree
    """[T, B, ...] the observation that step t led to, in the same episode."""
    last_value: Tensor
    """[B] value of the observation after the last step."""
    aux_targets: AuxiliaryTargets | None = None
    """[T, B, K] what the memory should predict after `obs[t]`; None for agents without auxiliary targets."""
    reports_success: bool = False
    """Whether the environment reports which episodes were solved."""

    @classmethod
    def allocate(cls, agent: ActorCritic, carry: Carry, num_steps: int) -> Rollout:
        """Allocate buffers for `num_steps` steps, which `collect` fills repeatedly."""

        def buffer(example: Tensor, steps: int = num_steps) -> Tensor:
            return torch.zeros(steps, *example.shape, dtype=example.dtype, device=example.device)

        batch = carry.starts.shape[0]
        number = torch.zeros(batch, device=agent.device)
        flag = torch.zeros(batch, dtype=torch.bool, device=agent.device)
        targets = torch.zeros(batch, agent.aux_size, device=agent.device)
        return cls(
            obs=map_tree(buffer, carry.obs),
            starts=buffer(flag),
            states=map_tree(lambda x: buffer(x, num_steps + 1), carry.state),
            actions=buffer(carry.state.action),
            log_probs=buffer(number),
            values=buffer(number),
            rewards=buffer(number),
            terminated=buffer(flag),
            truncated=buffer(flag),
            success=buffer(flag),
            valid=torch.ones_like(buffer(flag)),
            final_obs=map_tree(buffer, carry.obs),
            last_value=number,
            aux_targets=AuxiliaryTargets(buffer(targets), buffer(targets)) if agent.aux_size else None,
        )


def initial_carry(agent: ActorCritic, env: BatchedEnv, seed: int | None) -> Carry:
    """Reset the environments: every row starts an episode."""
    obs = env.reset(seed)
    starts = torch.ones(env.num_envs, dtype=torch.bool, device=agent.device)
    return Carry(obs, starts, agent.initial_state(env.num_envs))


@torch.no_grad()
def collect(
    agent: ActorCritic, env: BatchedEnv, carry: Carry, rollout: Rollout, generator: torch.Generator | None
) -> Carry:
    """Fill `rollout` with T steps of every environment; return where it stopped."""
    obs, starts, state = carry
    for t in range(rollout.rewards.shape[0]):
        _store(rollout.states, t, state)
        if rollout.aux_targets is not None:
            _store(rollout.aux_targets, t, env.auxiliary_targets())
        action, log_prob, value, state = agent.act(obs, starts, state, generator)
        step = env.step(action)
        state = state._replace(reward=step.reward)
        _store(rollout.obs, t, obs)
        _store(rollout.final_obs, t, step.final_obs)
        rollout.starts[t] = starts
        rollout.actions[t] = action
        rollout.log_probs[t] = log_prob
        rollout.values[t] = value
        rollout.rewards[t] = step.reward
        rollout.terminated[t] = step.terminated
        rollout.truncated[t] = step.truncated
        if step.success is not None:
            rollout.reports_success = True
            rollout.success[t] = step.success
        if step.valid is not None:
            rollout.valid[t] = step.valid
        obs, starts = step.obs, step.done
    _store(rollout.states, rollout.rewards.shape[0], state)
    rollout.last_value = agent.value(obs, starts, state)
    return Carry(obs, starts, state)


@torch.no_grad()
def final_values(agent: ActorCritic, rollout: Rollout) -> Tensor:
    """Return [T, B] values of `final_obs` under the memory after each step, to bootstrap truncated episodes.

    Only the values of truncated steps are ever read. A GPU computes all of them in one batch, about as much
    work as collecting: finding out which steps were truncated would make the host wait. On a CPU finding out
    is free, and the other values stay 0.
    """
    steps, batch = rollout.rewards.shape
    after = map_tree(lambda x: x[1:].flatten(0, 1), rollout.states)
    obs = map_tree(lambda x: x.flatten(0, 1), rollout.final_obs)
    no_starts = torch.zeros(steps * batch, dtype=torch.bool, device=rollout.rewards.device)
    if no_starts.device.type != "cpu" or torch.compiler.is_compiling():
        return agent.value(obs, no_starts, after).view(steps, batch)
    values = torch.zeros(steps * batch)
    which = rollout.truncated.flatten().nonzero().squeeze(1)
    if len(which):
        obs, after = (map_tree(lambda x: x.index_select(0, which), tree) for tree in (obs, after))
        values.index_copy_(0, which, agent.value(obs, no_starts[: len(which)], after))
    return values.view(steps, batch)


class Chunks(NamedTuple):
    """A rollout as C sequences of L steps, each with the state stored at its first step."""

    obs: Tree
    """[L, C, ...]."""
    starts: Tensor
    """[L, C] bool."""
    state: AgentState
    """[C, ...]."""
    actions: Tensor
    """[L, C, ...]."""
    rewards: Tensor
    """[L, C]."""
    log_probs: Tensor
    """[L, C]."""
    values: Tensor
    """[L, C]."""
    advantages: Tensor
    """[L, C]."""
    returns: Tensor
    """[L, C]."""
    valid: Tensor
    """[L, C] bool."""
    aux_targets: AuxiliaryTargets | None = None
    """[L, C, K]."""

    def select(self, index: Tensor) -> Chunks:
        """Return the chunks of a minibatch; index [c] int64."""

        def along(dim: int) -> Any:
            return lambda x: x.index_select(dim, index)

        picked = [map_tree(along(0 if name == "state" else 1), getattr(self, name)) for name in self._fields]
        return Chunks(*picked)


def split_into_chunks(rollout: Rollout, advantages: Tensor, returns: Tensor, bptt_length: int) -> Chunks:
    """Split a rollout into chunks of L = `bptt_length` steps; T must be a multiple of L."""

    def pieces(x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, bptt_length)).transpose(0, 1).flatten(1, 2)  # [L, T/L * B, ...]

    return Chunks(
        obs=map_tree(pieces, rollout.obs),
        starts=pieces(rollout.starts),
        state=map_tree(lambda x: x[:-1:bptt_length].flatten(0, 1), rollout.states),
        actions=pieces(rollout.actions),
        rewards=pieces(rollout.rewards),
        log_probs=pieces(rollout.log_probs),
        values=pieces(rollout.values),
        advantages=pieces(advantages),
        returns=pieces(returns),
        valid=pieces(rollout.valid),
        aux_targets=map_tree(pieces, rollout.aux_targets),
    )


def _store(buffers: Tree, t: int, values: Tree) -> None:
    map_tree(lambda buffer, value: buffer[t].copy_(value), buffers, values)

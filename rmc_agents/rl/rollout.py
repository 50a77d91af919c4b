"""Rollouts: experience as tensors [T, B, ...] on the device, split into chunks for truncated BPTT.

Axes: T steps of a rollout, B environments, L steps of a chunk, C chunks, K auxiliary targets. Nothing here
reads a tensor back to the host, so that a GPU never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic, AgentState
from rmc_agents.agent.observation_table import EncodedTable
from rmc_agents.agent.prepared import prepare_acting
from rmc_agents.environment import AuxiliaryTargets, BatchedEnv, Obs, ObservationIds, observing_ids
from rmc_agents.spaces.masks import choice_sizes
from rmc_agents.tree import Tree, leaves, map_tree


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
    action_masks: Tensor | None = None
    """[T, B, P] bool: the choices that were allowed when the action was chosen; None without masks."""
    advice: Tensor | None = None
    """[T, B, P] the teacher's probabilities of the choices; None without a teacher."""

    @classmethod
    def allocate(cls, agent: ActorCritic, carry: Carry, num_steps: int, teacher: bool = False) -> Rollout:
        """Allocate buffers for `num_steps` steps, which `collect` fills repeatedly.

        Args:
            agent: the agent that acts.
            carry: where it begins.
            num_steps: T.
            teacher: whether the environments' teacher is asked for its advice.
        """

        def buffer(example: Tensor, steps: int = num_steps) -> Tensor:
            return torch.zeros(steps, *example.shape, dtype=example.dtype, device=example.device)

        batch = carry.starts.shape[0]
        number = torch.zeros(batch, device=agent.device)
        flag = torch.zeros(batch, dtype=torch.bool, device=agent.device)
        targets = torch.zeros(batch, agent.aux_size, device=agent.device)
        choices = torch.zeros(batch, sum(choice_sizes(agent.action_space) or ()), device=agent.device)
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
            action_masks=_mask_buffer(agent, num_steps, batch),
            advice=buffer(choices) if teacher else None,
        )


def _mask_buffer(agent: ActorCritic, num_steps: int, batch: int) -> Tensor | None:
    sizes = choice_sizes(agent.action_space)
    if agent.config.action_masks != "use" or sizes is None:
        return None
    return torch.ones(num_steps, batch, sum(sizes), dtype=torch.bool, device=agent.device)


def initial_carry(agent: ActorCritic, env: BatchedEnv, seed: int | None, ids: bool = False) -> Carry:
    """Reset the environments: every row starts an episode. With `ids`, `collect` continues with ids."""
    with observing_ids(env, ids):
        obs = env.reset(seed)
    starts = torch.ones(env.num_envs, dtype=torch.bool, device=agent.device)
    return Carry(obs, starts, agent.initial_state(env.num_envs))


@torch.no_grad()
def collect(
    agent: ActorCritic, env: BatchedEnv, carry: Carry, rollout: Rollout, generator: torch.Generator | None
) -> Carry:
    """Fill `rollout` with T steps of every environment; return where it stopped."""
    obs, starts, state = carry
    # The weights stay the same until the last value.
    encoded = agent.encode_ahead(rollout.rewards.numel())
    act = _prepare_acting(agent, rollout, carry, encoded.features, generator)
    if act is None:
        act = _act_with(agent, rollout, encoded, generator)
    store_obs, store_final_obs = map(_writer, (rollout.obs, rollout.final_obs))
    store_step = _writer((rollout.rewards, rollout.terminated, rollout.truncated))
    for t in range(rollout.rewards.shape[0]):
        if rollout.aux_targets is not None:
            _store(rollout.aux_targets, t, env.auxiliary_targets())
        if rollout.advice is not None:
            _store(rollout.advice, t, env.teacher_actions())
        if rollout.action_masks is not None:
            _store(rollout.action_masks, t, env.action_masks())
        action, state = act(t, obs, starts, state)
        with observing_ids(env, isinstance(obs, ObservationIds)):
            step = env.step(action)
        state = state._replace(reward=step.reward)
        store_obs(t, obs)
        store_final_obs(t, step.final_obs)
        store_step(t, (step.reward, step.terminated, step.truncated))
        if step.success is not None:
            rollout.reports_success = True
            rollout.success[t] = step.success
        if step.valid is not None:
            rollout.valid[t] = step.valid
        obs, starts = step.obs, step.done
    _store(rollout.states, rollout.rewards.shape[0], state)
    rollout.last_value = agent.value(encoded(obs), starts, state)
    return Carry(obs, starts, state)


Act = Callable[[int, Obs, Tensor, AgentState], tuple[Tensor, AgentState]]
"""Steps t, observations, episode starts and state -> actions and the next state. Stores state, starts,
actions, their log-probabilities and values in a rollout."""


def _act_with(
    agent: ActorCritic, rollout: Rollout, encoded: EncodedTable, generator: torch.Generator | None
) -> Act:
    store = _writer((rollout.states, rollout.starts, rollout.actions, rollout.log_probs, rollout.values))
    masks = rollout.action_masks

    def act(t: int, obs: Obs, starts: Tensor, state: AgentState) -> tuple[Tensor, AgentState]:
        if masks is None:
            action, log_prob, value, after = agent.act(encoded(obs), starts, state, generator)
        else:
            action, log_prob, value, after = agent.act(
                encoded(obs), starts, state, generator, action_masks=masks[t]
            )
        store(t, (state, starts, action, log_prob, value))
        return action, after

    return act


def _prepare_acting(
    agent: ActorCritic,
    rollout: Rollout,
    carry: Carry,
    features: Tensor | None,
    generator: torch.Generator | None,
) -> Act | None:
    """Return what does the same as `_act_with` in less time; None if it cannot."""
    states = rollout.states
    if rollout.action_masks is not None:
        return None
    if features is None or not isinstance(carry.obs, ObservationIds) or states.critic_memory is not None:
        return None
    results = rollout.actions, rollout.log_probs, rollout.values
    prepared = prepare_acting(agent, features, states.memory, rollout.starts, results)
    if prepared is None:
        return None
    map_tree(lambda buffer, value: buffer[0].copy_(value), states.memory, carry.state.memory)
    store = _writer((rollout.starts, states.action, states.reward))
    actions = rollout.actions.unbind(0)

    def act(t: int, obs: Obs, starts: Tensor, state: AgentState) -> tuple[Tensor, AgentState]:
        assert isinstance(obs, ObservationIds)
        store(t, (starts, state.action, state.reward))
        prepared.act(t, obs.ids, generator)
        action = actions[t].clone()
        memory = state.memory if t + 1 < len(actions) else map_tree(lambda x: x[-1].clone(), states.memory)
        return action, state._replace(action=action, memory=memory)

    return act


@torch.no_grad()
def final_values(agent: ActorCritic, rollout: Rollout, truncated: int | None = None) -> Tensor:
    """Return [T, B] values of `final_obs` under the memory after each step, to bootstrap truncated episodes.

    Only the values of truncated steps are ever read. Those of most others stay 0.

    Args:
        agent: the agent.
        rollout: T steps.
        truncated: number of steps that are truncated. If None, a CPU counts them here; a GPU, where counting
            would make the host wait, computes the values of all steps.
    """
    steps, batch = rollout.rewards.shape
    after = map_tree(lambda x: x[1:].flatten(0, 1), rollout.states)
    obs = map_tree(lambda x: x.flatten(0, 1), rollout.final_obs)
    values = torch.zeros(steps * batch, device=rollout.rewards.device)
    if truncated is None:
        truncated = int(rollout.truncated.sum()) if values.device.type == "cpu" else steps * batch
    # Truncated steps first, in their order. Pieces of B rows have the shape of acting: they need no more
    # memory than it does, and no other compiled network.
    first = rollout.truncated.flatten().logical_not().byte().argsort(stable=True)
    for start in range(0, truncated, batch):
        rows = first[start : start + batch]
        picked, memory = (map_tree(partial(torch.index_select, dim=0, index=rows), x) for x in (obs, after))
        no_starts = torch.zeros(batch, dtype=torch.bool, device=values.device)
        values.index_copy_(0, rows, agent.value(picked, no_starts, memory))
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
    action_masks: Tensor | None = None
    """[L, C, P] bool."""
    advice: Tensor | None = None
    """[L, C, P]."""

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
        action_masks=map_tree(pieces, rollout.action_masks),
        advice=map_tree(pieces, rollout.advice),
    )


def _writer(buffers: Tree) -> Callable[[int, Tree], None]:
    """Return a function of t and a tree that does what `_store` does, with less work per call."""
    if isinstance(buffers, dict):  # the order of its keys may change
        return lambda t, values: _store(buffers, t, values)
    rows = [buffer.unbind(0) for buffer in leaves(buffers)]

    def write(t: int, values: Tree) -> None:
        for row, value in zip(rows, leaves(values), strict=True):
            row[t].copy_(value)

    return write


def _store(buffers: Tree, t: int, values: Tree) -> None:
    """Copy a tree of tensors [B, ...] to step t of buffers [T, B, ...]."""
    map_tree(lambda buffer, value: buffer[t].copy_(value), buffers, values)

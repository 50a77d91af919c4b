"""Rollouts: alignment of observations, memory and episode ends; no reads to the host; compilation."""

from __future__ import annotations

import pytest
import torch

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.cores import RMC
from rmc_agents.rl.optimizer import make_optimizer
from rmc_agents.rl.ppo import PPOConfig, ppo_loss
from rmc_agents.rl.rollout import Rollout, collect, final_values, initial_carry, split_into_chunks
from rmc_agents.rl.update import Updater
from rmc_agents.tree import leaves, map_tree
from tests.support.agents import MAZE, chunks_of, collected, small_agent, small_env


def test_final_values_equal_the_next_values_where_the_episode_continues(any_core: str) -> None:
    """The same observation under the same memory: truncation bootstraps with the memory after the step."""
    agent = small_agent(any_core, previous_action=True, previous_reward=True)
    _, rollout = collected(agent, steps=24)
    continues = ~(rollout.terminated | rollout.truncated)
    rollout.truncated |= continues  # only truncated steps are valued
    final = final_values(agent, rollout)
    assert continues[:-1].any()
    assert (~continues[:-1]).any()
    torch.testing.assert_close(
        final[:-1][continues[:-1]], rollout.values[1:][continues[:-1]], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(final[-1][continues[-1]], rollout.last_value[continues[-1]], atol=1e-5, rtol=0)


def test_final_values_of_some_steps_equal_those_of_all() -> None:
    agent = small_agent("rmc")
    _, rollout = collected(agent, steps=24)
    rollout.truncated = torch.zeros_like(rollout.truncated)
    assert not final_values(agent, rollout).any()
    rollout.truncated[:] = True
    every = final_values(agent, rollout)
    rollout.truncated = torch.rand(every.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    some = final_values(agent, rollout)
    torch.testing.assert_close(some[rollout.truncated], every[rollout.truncated])


def test_episode_starts_follow_episode_ends() -> None:
    _, rollout = collected(small_agent("lstm"), steps=24)
    ended = rollout.terminated | rollout.truncated
    assert torch.equal(rollout.starts[1:], ended[:-1])


def test_memory_of_a_started_row_is_fresh() -> None:
    """After the first step of an episode the memory equals one step from the initial state."""
    agent = small_agent("rmc")
    assert isinstance(agent.core, RMC)
    _, rollout = collected(agent, steps=24)
    t, env = rollout.starts[1:].nonzero()[0].tolist()
    t += 1
    obs = map_tree(lambda x: x[t, env : env + 1], rollout.obs)
    _, fresh = agent.core.step(agent.encoder(obs), agent.core.initial_state(1))
    torch.testing.assert_close(rollout.states.memory.memory[t + 1, env], fresh.memory[0])


def test_chunks_hold_the_rollout_in_order() -> None:
    agent = small_agent("gru")
    _, rollout = collected(agent, steps=12)
    chunks = split_into_chunks(rollout, rollout.values, rollout.values, 4)
    pieces, batch = 3, rollout.rewards.shape[1]
    assert chunks.starts.shape == (4, pieces * batch)
    for c in range(pieces * batch):
        piece, env = divmod(c, batch)
        steps = slice(4 * piece, 4 * piece + 4)
        assert torch.equal(chunks.values[:, c], rollout.values[steps, env])
        assert torch.equal(chunks.obs[:, c], rollout.obs[steps, env])
        assert torch.equal(chunks.state.memory.h[c], rollout.states.memory.h[4 * piece, env])


def test_values_do_not_depend_on_the_chunk_length() -> None:
    """A rollout evaluated in one piece from its first stored state gives the same values as in chunks."""
    agent = small_agent("rmc")
    _, rollout = collected(agent, steps=24)
    whole, parts = chunks_of(agent, rollout, 24), chunks_of(agent, rollout, 4)
    one, many = (
        agent.evaluate_actions(x.obs, x.actions, x.rewards, x.starts, x.state).values for x in (whole, parts)
    )
    many = many.unflatten(1, (6, -1)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(one, many, atol=1e-5, rtol=0)


def aux_agent(core: str, device: str = "cpu") -> tuple[rmc_envs.NthFarthest, ActorCritic]:
    env = rmc_envs.NthFarthest(4, device, num_objects=3, num_dims=2)
    return env, small_agent(core, env, aux_size=env.aux_size).to(device)


def test_auxiliary_targets_match_the_observations_shown_so_far() -> None:
    env, agent = aux_agent("gru")
    _, rollout = collected(agent, steps=12, env=env)
    assert rollout.aux_targets is not None
    episodes = rollout.obs.unflatten(0, (4, 3))
    for i, episode in enumerate(episodes):
        vectors, labels, reference = episode[..., :2], episode[..., 2:5], episode[0, :, 8:]
        at = (labels * reference).sum(-1).argmax(0)
        for row in range(4):
            for t in range(3):
                values, weights = (x[3 * i + t, row] for x in rollout.aux_targets)
                known = labels[: t + 1, row].sum(0)
                assert torch.equal(weights[:6].view(3, 2) * 2, known.unsqueeze(1).expand(3, 2))
                assert weights[-3:].tolist() == (known * (t >= at[row])).tolist()
                for seen in range(t + 1):
                    label = int(labels[seen, row].argmax())
                    torch.testing.assert_close(values[2 * label : 2 * label + 2], vectors[seen, row] * 3**0.5)
    chunks = split_into_chunks(rollout, rollout.values, rollout.values, 6)
    assert chunks.aux_targets is not None
    picked = chunks.select(torch.tensor([5])).aux_targets
    assert picked is not None
    assert torch.equal(picked.values[:, 0], rollout.aux_targets.values[6:, 1])
    assert (
        split_into_chunks(collected(small_agent("gru"), 8)[1], *[torch.zeros(8, 4)] * 2, 4).aux_targets
        is None
    )


def test_collect_and_update_with_auxiliary_targets_run_on_meta_and_compile(any_core: str) -> None:
    config = PPOConfig(num_steps=6, bptt_length=2, minibatch_size=12, epochs=1, aux_coef=2.0)
    env, agent = aux_agent(any_core, "meta")
    carry = initial_carry(agent, env, None)
    rollout = Rollout.allocate(agent, carry, 6)
    collect(agent, env, carry, rollout, None)
    updater = Updater(agent, make_optimizer(agent, config), config)
    metrics = updater.update(chunks_of(agent, rollout, 2), 1e-3, 0.01, None)
    assert all(m.is_meta for m in metrics)

    env, agent = aux_agent(any_core)
    chunks = chunks_of(agent, collected(agent, steps=6, env=env)[1], 2)

    def loss(batch):  # type: ignore[no-untyped-def]
        return ppo_loss(agent, batch, config, 0.01)[0]

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(chunks), loss(chunks))


@pytest.mark.parametrize("task", [MAZE, "rmc/Recall-v0"])
def test_collect_and_update_run_on_the_meta_device(any_core: str, task: str) -> None:
    """A meta tensor has no data: a hidden read to the host or a stray CPU tensor fails here."""
    env = rmc_envs.make(task, 4, "meta")
    agent = small_agent(any_core, env).to("meta")
    carry = initial_carry(agent, env, None)
    rollout = Rollout.allocate(agent, carry, 4)
    carry = collect(agent, env, carry, rollout, None)
    assert all(x.is_meta for x in leaves(carry))
    config = PPOConfig(num_steps=4, bptt_length=2, minibatch_size=8, epochs=1)
    updater = Updater(agent, make_optimizer(agent, config), config)
    metrics = updater.update(chunks_of(agent, rollout, 2), 1e-3, 0.01, None)
    assert all(m.is_meta for m in metrics)


def test_acting_and_loss_compile_without_graph_breaks(any_core: str) -> None:
    """`fullgraph=True` fails at the first Python branch on a tensor."""
    env = small_env()
    agent = small_agent(any_core, env)
    _, rollout = collected(agent, steps=4, env=env)
    chunks = chunks_of(agent, rollout, 2)
    config = PPOConfig(num_steps=4, bptt_length=2)

    def loss(batch):  # type: ignore[no-untyped-def]
        return ppo_loss(agent, batch, config, 0.01)[0]

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(chunks), loss(chunks))

    def act(obs, starts, state):  # type: ignore[no-untyped-def]
        return agent.act(obs, starts, state, deterministic=True)[2]

    state = map_tree(lambda x: x[3], rollout.states)
    arguments = map_tree(lambda x: x[3], rollout.obs), rollout.starts[3], state
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(act, fullgraph=True, backend="eager")(*arguments), act(*arguments)
        )


def test_gradients_flow_to_every_parameter(any_core: str) -> None:
    agent = small_agent(any_core, critic_memory="separate", previous_action=True, previous_reward=True)
    _, rollout = collected(agent, steps=16)
    ppo_loss(agent, chunks_of(agent, rollout, 8), PPOConfig(), 0.01)[0].backward()
    silent = [name for name, p in agent.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent

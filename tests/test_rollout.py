"""Rollouts: alignment of observations, memory and ends; no hidden host access; compilation."""

from __future__ import annotations

import pytest
import torch

import envs
from rmc_agents import ActorCritic
from rmc_agents.cores import RMC
from rmc_agents.ppo import PPOConfig, make_optimizer, ppo_loss, update_epoch
from rmc_agents.rollout import Rollout, collect, cut, final_values, first_carry
from rmc_agents.tree import leaves, map_tree
from tests.support import MAZE, chunks_of, collected, small_agent, small_env


def test_final_values_are_the_next_values_where_the_episode_goes_on(any_core: str) -> None:
    """The same observation under the same memory: so truncation bootstraps with the post-step memory."""
    agent = small_agent(any_core, previous_action=True, previous_reward=True)
    _, rollout = collected(agent, steps=24)
    goes_on = ~(rollout.terminated | rollout.truncated)
    rollout.truncated |= goes_on  # only truncated steps are valued
    final = final_values(agent, rollout)
    assert goes_on[:-1].any()
    assert (~goes_on[:-1]).any()
    torch.testing.assert_close(final[:-1][goes_on[:-1]], rollout.values[1:][goes_on[:-1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(final[-1][goes_on[-1]], rollout.last_value[goes_on[-1]], atol=1e-5, rtol=0)


def test_final_values_of_some_steps_are_those_of_all() -> None:
    agent = small_agent("rmc")
    _, rollout = collected(agent, steps=24)
    rollout.truncated = torch.zeros_like(rollout.truncated)
    assert not final_values(agent, rollout).any()
    rollout.truncated[:] = True
    every = final_values(agent, rollout)
    rollout.truncated = torch.rand(every.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    some = final_values(agent, rollout)
    torch.testing.assert_close(some[rollout.truncated], every[rollout.truncated])


def test_starts_follow_ends() -> None:
    _, rollout = collected(small_agent("lstm"), steps=24)
    ended = rollout.terminated | rollout.truncated
    assert torch.equal(rollout.starts[1:], ended[:-1])


def test_the_memory_of_a_started_row_is_fresh() -> None:
    """After the first step of an episode the memory is what one step from the identity gives."""
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
    chunks = cut(rollout, rollout.values, rollout.values, 4)
    pieces, batch = 3, rollout.rewards.shape[1]
    assert chunks.starts.shape == (4, pieces * batch)
    for c in range(pieces * batch):
        piece, env = divmod(c, batch)
        steps = slice(4 * piece, 4 * piece + 4)
        assert torch.equal(chunks.values[:, c], rollout.values[steps, env])
        assert torch.equal(chunks.obs[:, c], rollout.obs[steps, env])
        assert torch.equal(chunks.state.memory.h[c], rollout.states.memory.h[4 * piece, env])


def test_a_rollout_is_one_long_sequence() -> None:
    """Evaluated in one piece from its first stored state it gives the same as in chunks."""
    agent = small_agent("rmc")
    _, rollout = collected(agent, steps=24)
    whole, parts = chunks_of(agent, rollout, 24), chunks_of(agent, rollout, 4)
    one = agent.evaluate(whole.obs, whole.actions, whole.rewards, whole.starts, whole.state)[2]
    many = agent.evaluate(parts.obs, parts.actions, parts.rewards, parts.starts, parts.state)[2]
    many = many.unflatten(1, (6, -1)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(one, many, atol=1e-5, rtol=0)


def hinted(core: str, device: str = "cpu") -> tuple[envs.NthFarthest, ActorCritic]:
    env = envs.NthFarthest(4, device, num_objects=3, num_dims=2)
    return env, small_agent(core, env, hint_size=env.hint_size).to(device)


def test_hints_stand_beside_the_observation_that_they_are_of() -> None:
    env, agent = hinted("gru")
    _, rollout = collected(agent, steps=12, env=env)
    assert rollout.hints is not None
    episodes = rollout.obs.unflatten(0, (4, 3))
    for i, episode in enumerate(episodes):
        vectors, labels, reference = episode[..., :2], episode[..., 2:5], episode[0, :, 8:]
        at = (labels * reference).sum(-1).argmax(0)
        for row in range(4):
            for t in range(3):
                values, weights = (x[3 * i + t, row] for x in rollout.hints)
                known = labels[: t + 1, row].sum(0)
                assert torch.equal(weights[:6].view(3, 2) * 2, known.unsqueeze(1).expand(3, 2))
                assert weights[-3:].tolist() == (known * (t >= at[row])).tolist()
                for seen in range(t + 1):
                    label = int(labels[seen, row].argmax())
                    torch.testing.assert_close(values[2 * label : 2 * label + 2], vectors[seen, row] * 3**0.5)
    chunks = cut(rollout, rollout.values, rollout.values, 6)
    assert chunks.hints is not None
    picked = chunks.select(torch.tensor([5])).hints
    assert picked is not None
    assert torch.equal(picked.values[:, 0], rollout.hints.values[6:, 1])
    assert cut(collected(small_agent("gru"), 8)[1], *[torch.zeros(8, 4)] * 2, 4).hints is None


def test_with_hints_too_nothing_is_read_back_and_the_loss_compiles(any_core: str) -> None:
    config = PPOConfig(num_steps=6, bptt_length=3, minibatch_size=12, hint_coef=2.0)
    env, agent = hinted(any_core, "meta")
    carry = first_carry(agent, env, None)
    rollout = Rollout.allocate(agent, carry, 6)
    collect(agent, env, carry, rollout, None)
    optimizer = make_optimizer(agent, config)
    metrics = update_epoch(agent, optimizer, chunks_of(agent, rollout, 3), config, 0.01, None)
    assert all(m.is_meta for m in metrics)

    env, agent = hinted(any_core)
    chunks = chunks_of(agent, collected(agent, steps=6, env=env)[1], 3)

    def loss(batch):  # type: ignore[no-untyped-def]
        return ppo_loss(agent, batch, config, 0.01)[0]

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(chunks), loss(chunks))


@pytest.mark.parametrize("task", [MAZE, "rmc/Recall-v0"])
def test_collect_and_update_run_on_the_meta_device(any_core: str, task: str) -> None:
    """A meta tensor has no data: a hidden read-back or stray CPU tensor fails here."""
    env = envs.make(task, 4, "meta")
    agent = small_agent(any_core, env).to("meta")
    carry = first_carry(agent, env, None)
    rollout = Rollout.allocate(agent, carry, 8)
    carry = collect(agent, env, carry, rollout, None)
    assert all(x.is_meta for x in leaves(carry))
    config = PPOConfig(num_steps=8, bptt_length=4, minibatch_size=16)
    metrics = update_epoch(
        agent, make_optimizer(agent, config), chunks_of(agent, rollout, 4), config, 0.01, None
    )
    assert all(m.is_meta for m in metrics)


def test_acting_and_the_loss_compile_without_a_break(any_core: str) -> None:
    """`fullgraph=True` fails at the first python branch on a tensor."""
    env = small_env()
    agent = small_agent(any_core, env)
    _, rollout = collected(agent, steps=8, env=env)
    chunks = chunks_of(agent, rollout, 4)
    config = PPOConfig(num_steps=8, bptt_length=4)

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

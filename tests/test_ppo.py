"""PPO's mathematics: advantages by hand, ratios of one, masks, schedules."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import envs
from rmc_agents.ppo import PPOConfig, explained_variance, gae, make_optimizer, ppo_loss, update_epoch
from tests.support import chunks_of, collected, small_agent


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers).unsqueeze(1)


def flags(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.bool).unsqueeze(1)


def test_gae_by_hand_without_ends() -> None:
    # gamma .5, lambda .5: deltas are 1 + .5*2 - 1 = 1, 2 + .5*4 - 2 = 2, 3 + .5*8 - 4 = 3
    advantages = gae(
        column(1, 2, 3),
        column(1, 2, 4),
        flags(0, 0, 0),
        flags(0, 0, 0),
        column(9, 9, 9),
        torch.tensor([8.0]),
        0.5,
        0.5,
    )
    torch.testing.assert_close(advantages, column(1 + 0.25 * (2 + 0.25 * 3), 2 + 0.25 * 3, 3))


def test_gae_by_hand_with_a_termination_and_a_truncation() -> None:
    # step 0 terminates: delta = 1 - 1 = 0, nothing follows
    # step 1 is truncated with final value 6: delta = 2 + .5*6 - 2 = 3, nothing follows
    # step 2 goes on to the last value 8: delta = 3 + .5*8 - 4 = 3
    advantages = gae(
        column(1, 2, 3),
        column(1, 2, 4),
        flags(1, 0, 0),
        flags(0, 1, 0),
        column(9, 6, 9),
        torch.tensor([8.0]),
        0.5,
        0.5,
    )
    torch.testing.assert_close(advantages, column(0.0, 3.0, 3.0))


def test_gae_termination_wins_over_truncation() -> None:
    advantages = gae(
        column(1.0), column(0.0), flags(1), flags(1), column(100.0), torch.tensor([100.0]), 0.9, 0.9
    )
    torch.testing.assert_close(advantages, column(1.0))


def test_gae_with_lambda_one_is_the_discounted_return() -> None:
    torch.manual_seed(1)
    rewards, values, last = torch.randn(20, 3), torch.randn(20, 3), torch.randn(3)
    none = torch.zeros(20, 3, dtype=torch.bool)
    advantages = gae(rewards, values, none, none, torch.full((20, 3), torch.nan), last, 0.9, 1.0)
    expected = last
    for t in reversed(range(20)):
        expected = rewards[t] + 0.9 * expected
        torch.testing.assert_close(advantages[t] + values[t], expected)


@pytest.mark.parametrize("bptt_length", [1, 4, 32])
@pytest.mark.parametrize("critic_memory", ["shared", "separate", "none"])
def test_ratios_are_one_before_the_first_update(any_core: str, critic_memory: str, bptt_length: int) -> None:
    """Catches errors of resets, stored states, alignment and previous inputs, all at once."""
    agent = small_agent(any_core, critic_memory=critic_memory, previous_action=True, previous_reward=True)
    _, rollout = collected(agent, steps=32)
    assert rollout.starts[1:].any(), "episodes must begin in mid-sequence, or the test shows nothing"
    chunks = chunks_of(agent, rollout, bptt_length)
    log_probs, _, values = agent.evaluate(
        chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
    )
    torch.testing.assert_close(log_probs, chunks.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(values, chunks.values, atol=1e-5, rtol=0)
    _, metrics = ppo_loss(agent, chunks, PPOConfig(), 0.0)
    assert metrics.approx_kl.abs() < 1e-6
    assert metrics.clip_fraction == 0


def test_a_wrong_reset_would_be_caught() -> None:
    """The test above can fail: without the resets the ratios are not one."""
    agent = small_agent("rmc")
    _, rollout = collected(agent, steps=32)
    chunks = chunks_of(agent, rollout, 8)
    log_probs, _, _ = agent.evaluate(
        chunks.obs, chunks.actions, chunks.rewards, torch.zeros_like(chunks.starts), chunks.state
    )
    assert (log_probs - chunks.log_probs).abs().max() > 1e-4


def test_filler_steps_have_no_weight() -> None:
    agent = small_agent("gru")
    _, rollout = collected(agent, steps=16)
    chunks = chunks_of(agent, rollout, 8)
    chunks = chunks._replace(valid=torch.rand_like(chunks.returns) < 0.7)
    spoiled = torch.where(chunks.valid, 0.0, 1e6)
    config = PPOConfig(clip_range_value=0.2)
    loss, _ = ppo_loss(agent, chunks, config, 0.01)
    other, _ = ppo_loss(
        agent,
        chunks._replace(advantages=chunks.advantages + spoiled, returns=chunks.returns - spoiled),
        config,
        0.01,
    )
    torch.testing.assert_close(loss, other)
    everything, _ = ppo_loss(agent, chunks._replace(valid=torch.ones_like(chunks.valid)), config, 0.01)
    assert not torch.allclose(loss, everything)


@pytest.mark.parametrize("skip", [True, False])
def test_hints_are_a_loss_of_the_memory_alone(any_core: str, skip: bool) -> None:
    env = envs.NthFarthest(4, num_objects=3, num_dims=2)
    agent = small_agent(any_core, env, hint_size=env.hint_size, skip=skip)
    chunks = chunks_of(agent, collected(agent, steps=12, env=env)[1], 6)
    assert agent.hint is not None
    assert chunks.hints is not None

    _, without = ppo_loss(agent, chunks, PPOConfig(), 0.01)
    chunks = chunks._replace(valid=torch.rand_like(chunks.returns) < 0.7)
    plain, _ = ppo_loss(agent, chunks, PPOConfig(), 0.01)
    loss, metrics = ppo_loss(agent, chunks, PPOConfig(hint_coef=3.0), 0.01)
    outputs, _ = agent.core.unroll(agent.encoder(chunks.obs), chunks.state.memory, chunks.starts)
    wrong, weight = torch.tensor(0.0), torch.tensor(0.0)
    for t, c in chunks.valid.nonzero().tolist():
        values, weights = (x[t, c] for x in chunks.hints)
        wrong += ((agent.hint(outputs[t, c]) - values).square() * weights).sum()
        weight += weights.sum()
    torch.testing.assert_close(metrics.hint_loss, wrong / weight)
    torch.testing.assert_close(loss, plain + 3 * wrong / weight)
    assert not torch.isclose(without.hint_loss, metrics.hint_loss)  # of all steps

    agent.zero_grad()
    added = loss - plain
    added.backward()
    moved = {
        name.split(".")[0]
        for name, p in agent.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 1e-6
    }
    assert moved >= {"hint", "encoder"}
    assert moved <= {"hint", "encoder", "core"}


def test_the_clipped_surrogate_by_hand() -> None:
    """One transition that was half as likely before: ratio 2, clipped at 1.2, advantage 3 -> loss -3.6."""
    agent = small_agent("feedforward")
    _, rollout = collected(agent, steps=8)
    chunks = chunks_of(agent, rollout, 8)
    chunks = chunks._replace(
        log_probs=chunks.log_probs - torch.log(torch.tensor(2.0)),
        advantages=torch.full_like(chunks.advantages, 3.0),
    )
    config = PPOConfig(normalize_advantage=False, clip_range=0.2)
    _, metrics = ppo_loss(agent, chunks, config, 0.0)
    torch.testing.assert_close(metrics.policy_loss, torch.tensor(-3.6))
    torch.testing.assert_close(metrics.clip_fraction, torch.tensor(1.0))
    torch.testing.assert_close(metrics.approx_kl, torch.tensor(1 - 0.6931472), atol=1e-5, rtol=0)
    _, metrics = ppo_loss(agent, chunks._replace(advantages=-chunks.advantages), config, 0.0)
    torch.testing.assert_close(metrics.policy_loss, torch.tensor(6.0))  # a bad action is not clipped upwards


def test_an_update_improves_the_objective_and_clips_the_gradient() -> None:
    agent = small_agent("lstm")
    _, rollout = collected(agent, steps=32)
    chunks = chunks_of(agent, rollout, 8)
    config = PPOConfig(num_steps=32, bptt_length=8, minibatch_size=64, learning_rate=1e-3, max_grad_norm=0.1)
    before, _ = ppo_loss(agent, chunks, config, 0.0)
    optimizer = make_optimizer(agent, config)
    for _ in range(4):
        metrics = update_epoch(agent, optimizer, chunks, config, 0.0, torch.Generator().manual_seed(0))
    after, _ = ppo_loss(agent, chunks, config, 0.0)
    assert after < before
    assert metrics.grad_norm > 0
    length = torch.stack([p.grad.norm() for p in agent.parameters() if p.grad is not None]).norm()
    assert length <= 0.1 + 1e-5


def test_every_chunk_is_used_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = small_agent("rnn")
    _, rollout = collected(agent, steps=32)
    chunks = chunks_of(agent, rollout, 8)
    seen: list[int] = []
    select = type(chunks).select

    def watch(self, index):  # type: ignore[no-untyped-def]
        seen.extend(index.tolist())
        return select(self, index)

    monkeypatch.setattr(type(chunks), "select", watch)
    config = PPOConfig(num_steps=32, bptt_length=8, minibatch_size=32)
    update_epoch(agent, make_optimizer(agent, config), chunks, config, 0.0, None)
    assert sorted(seen) == list(range(chunks.starts.shape[1]))


def test_explained_variance() -> None:
    returns = torch.randn(100)
    assert explained_variance(returns, returns) == 1
    torch.testing.assert_close(explained_variance(torch.zeros(100), returns), torch.tensor(0.0))


def test_schedules_are_linear() -> None:
    config = PPOConfig(learning_rate=1e-3, learning_rate_end=0, entropy_coef=0.03, entropy_coef_end=0.01)
    assert config.learning_rate_at(0.25) == pytest.approx(7.5e-4)
    assert config.entropy_coef_at(0.5) == pytest.approx(0.02)
    assert config.entropy_coef_at(7) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bptt_length": 48}, ["bptt_length=48", "num_steps=128"]),
        ({"minibatch_size": 100}, ["minibatch_size=100", "bptt_length=16"]),
        ({"gamma": 1.5}, ["gamma", "1.5"]),
        ({"total_steps": 0}, ["total_steps", "0"]),
        ({"learning_rate": -1.0}, ["learning_rate", "-1"]),
        ({"target_kl": 0.0}, ["target_kl"]),
        ({"entropy_coef": float("nan")}, ["entropy_coef"]),
    ],
)
def test_bad_numbers_are_named(changes: dict[str, float], words: list[str]) -> None:
    with pytest.raises(ValueError, match=words[0]) as error:
        dataclasses.replace(PPOConfig(), **changes)
    assert all(word in str(error.value) for word in words)


def test_a_rollout_must_be_whole_minibatches_and_a_fit_is_offered() -> None:
    with pytest.raises(ValueError, match="minibatch_size=384 would fit"):
        PPOConfig(minibatch_size=512).check_num_envs(3)
    PPOConfig(minibatch_size=384).check_num_envs(3)

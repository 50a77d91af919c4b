"""PPO: hand-computed advantages, ratios of one before the first update, masks, schedules."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import rmc_envs
from rmc_agents.rl.optimizer import make_optimizer
from rmc_agents.rl.ppo import PPOConfig, explained_variance, gae, ppo_loss
from rmc_agents.rl.update import Updater
from tests.support.agents import chunks_of, collected, small_agent


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers).unsqueeze(1)


def flags(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.bool).unsqueeze(1)


def test_gae_without_episode_ends_matches_hand_computation() -> None:
    # gamma .5, lambda .5: deltas are 1 + .5*2 - 1 = 1, 2 + .5*4 - 2 = 2, 3 + .5*8 - 4 = 3
    advantages = gae(
        rewards=column(1, 2, 3),
        values=column(1, 2, 4),
        terminated=flags(0, 0, 0),
        truncated=flags(0, 0, 0),
        final_values=column(9, 9, 9),
        last_value=torch.tensor([8.0]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    torch.testing.assert_close(advantages, column(1 + 0.25 * (2 + 0.25 * 3), 2 + 0.25 * 3, 3))


def test_gae_with_termination_and_truncation_matches_hand_computation() -> None:
    # step 0 terminates: delta = 1 - 1 = 0, nothing follows
    # step 1 is truncated with final value 6: delta = 2 + .5*6 - 2 = 3, nothing follows
    # step 2 continues to the last value 8: delta = 3 + .5*8 - 4 = 3
    advantages = gae(
        rewards=column(1, 2, 3),
        values=column(1, 2, 4),
        terminated=flags(1, 0, 0),
        truncated=flags(0, 1, 0),
        final_values=column(9, 6, 9),
        last_value=torch.tensor([8.0]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    torch.testing.assert_close(advantages, column(0.0, 3.0, 3.0))


def test_gae_prefers_termination_to_truncation() -> None:
    advantages = gae(
        rewards=column(1.0),
        values=column(0.0),
        terminated=flags(1),
        truncated=flags(1),
        final_values=column(100.0),
        last_value=torch.tensor([100.0]),
        gamma=0.9,
        gae_lambda=0.9,
    )
    torch.testing.assert_close(advantages, column(1.0))


def test_gae_with_lambda_one_equals_the_discounted_return() -> None:
    torch.manual_seed(1)
    rewards, values, last = torch.randn(20, 3), torch.randn(20, 3), torch.randn(3)
    none = torch.zeros(20, 3, dtype=torch.bool)
    advantages = gae(
        rewards=rewards,
        values=values,
        terminated=none,
        truncated=none,
        final_values=torch.full((20, 3), torch.nan),
        last_value=last,
        gamma=0.9,
        gae_lambda=1.0,
    )
    expected = last
    for t in reversed(range(20)):
        expected = rewards[t] + 0.9 * expected
        torch.testing.assert_close(advantages[t] + values[t], expected)


@pytest.mark.parametrize(
    "name", ["rewards", "values", "terminated", "truncated", "final_values", "last_value"]
)
def test_gae_refuses_batch_major_sequences(name: str) -> None:
    numbers, ends = torch.zeros(5, 3), torch.zeros(5, 3, dtype=torch.bool)
    inputs = {"rewards": numbers, "values": numbers, "terminated": ends, "truncated": ends}
    inputs |= {"final_values": numbers, "last_value": torch.zeros(3)}
    assert gae(**inputs, gamma=0.9, gae_lambda=0.9).shape == (5, 3)
    wrong = inputs[name].T if name != "last_value" else torch.zeros(5)
    with pytest.raises(ValueError, match=r"gae expects \[T, B\] sequences and last_value \[B\], got"):
        gae(**{**inputs, name: wrong}, gamma=0.9, gae_lambda=0.9)
    with pytest.raises(ValueError, match="gae expects"):
        gae(**{**inputs, "last_value": torch.zeros(1, 3)}, gamma=0.9, gae_lambda=0.9)


@pytest.mark.parametrize("name", ["rewards", "log_probs", "values", "advantages", "returns", "valid"])
def test_ppo_loss_refuses_tensors_of_another_shape(name: str) -> None:
    agent = small_agent("gru")
    chunks = chunks_of(agent, collected(agent, steps=16)[1], 8)
    with pytest.raises(ValueError, match=rf"\[L, C\] = \[8, 8\] as of starts, got {name}") as error:
        ppo_loss(agent, chunks._replace(**{name: getattr(chunks, name)[1:]}), PPOConfig(), 0.0)
    assert f"{name} [7, 8]" in str(error.value)


@pytest.mark.parametrize("bptt_length", [1, 4, 32])
@pytest.mark.parametrize("critic_memory", ["shared", "separate", "none"])
def test_ratios_are_one_before_the_first_update(any_core: str, critic_memory: str, bptt_length: int) -> None:
    """Catch errors of resets, stored states, alignment and previous inputs, all at once."""
    more = dict.fromkeys(("previous_action", "previous_reward", "start_flag"), True)
    agent = small_agent(any_core, critic_memory=critic_memory, clock=5, **more)
    _, rollout = collected(agent, steps=32)
    assert rollout.starts[1:].any(), "without episode starts in mid-sequence the test shows nothing"
    chunks = chunks_of(agent, rollout, bptt_length)
    evaluation = agent.evaluate_actions(
        chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
    )
    torch.testing.assert_close(evaluation.log_probs, chunks.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(evaluation.values, chunks.values, atol=1e-5, rtol=0)
    _, metrics = ppo_loss(agent, chunks, PPOConfig(), 0.0)
    assert metrics.approx_kl.abs() < 1e-6
    assert metrics.clip_fraction == 0


def test_ratios_without_resets_are_not_one() -> None:
    """Show that the test above can fail."""
    agent = small_agent("rmc")
    _, rollout = collected(agent, steps=32)
    chunks = chunks_of(agent, rollout, 8)
    evaluation = agent.evaluate_actions(
        chunks.obs, chunks.actions, chunks.rewards, torch.zeros_like(chunks.starts), chunks.state
    )
    assert (evaluation.log_probs - chunks.log_probs).abs().max() > 1e-4


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
def test_auxiliary_loss_trains_memory_and_encoder_only(any_core: str, skip: bool) -> None:
    env = rmc_envs.NthFarthest(4, num_objects=3, num_dims=2)
    agent = small_agent(any_core, env, aux_size=env.aux_size, skip=skip)
    chunks = chunks_of(agent, collected(agent, steps=12, env=env)[1], 6)
    assert agent.aux_head is not None
    assert chunks.aux_targets is not None

    _, without = ppo_loss(agent, chunks, PPOConfig(), 0.01)
    chunks = chunks._replace(valid=torch.rand_like(chunks.returns) < 0.7)
    plain, _ = ppo_loss(agent, chunks, PPOConfig(), 0.01)
    loss, metrics = ppo_loss(agent, chunks, PPOConfig(aux_coef=3.0), 0.01)
    outputs, _ = agent.core.unroll(agent.encoder(chunks.obs), chunks.state.memory, chunks.starts)
    wrong, weight = torch.tensor(0.0), torch.tensor(0.0)
    for t, c in chunks.valid.nonzero().tolist():
        values, weights = (x[t, c] for x in chunks.aux_targets)
        wrong += ((agent.aux_head(outputs[t, c]) - values).square() * weights).sum()
        weight += weights.sum()
    torch.testing.assert_close(metrics.aux_loss, wrong / weight)
    torch.testing.assert_close(loss, plain + 3 * wrong / weight)
    assert not torch.isclose(without.aux_loss, metrics.aux_loss)  # filler steps counted there

    agent.zero_grad()
    added = loss - plain
    added.backward()
    moved = {
        name.split(".")[0]
        for name, p in agent.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 1e-6
    }
    assert moved >= {"aux_head", "encoder"}
    assert moved <= {"aux_head", "encoder", "core"}


def test_clipped_surrogate_matches_hand_computation() -> None:
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


def test_update_improves_the_objective_and_clips_the_gradient() -> None:
    agent = small_agent("lstm")
    _, rollout = collected(agent, steps=32)
    chunks = chunks_of(agent, rollout, 8)
    config = PPOConfig(num_steps=32, bptt_length=8, minibatch_size=64, learning_rate=1e-3, max_grad_norm=0.1)
    before, _ = ppo_loss(agent, chunks, config, 0.0)
    updater = Updater(agent, make_optimizer(agent, config), config)
    metrics = updater.update(chunks, config.learning_rate, 0.0, torch.Generator().manual_seed(0))
    after, _ = ppo_loss(agent, chunks, config, 0.0)
    assert after < before
    assert metrics.grad_norm > 0.1
    # A mean of clipped gradients, which are at most as long.
    assert 0 < updater.optimizer.exp_avg.norm() <= 0.1 + 1e-5


def test_epoch_uses_every_chunk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = small_agent("rnn")
    _, rollout = collected(agent, steps=32)
    chunks = chunks_of(agent, rollout, 8)
    seen: list[int] = []
    select = type(chunks).select

    def recorded(self, index):  # type: ignore[no-untyped-def]
        seen.extend(index.tolist())
        return select(self, index)

    monkeypatch.setattr(type(chunks), "select", recorded)
    config = PPOConfig(num_steps=32, bptt_length=8, minibatch_size=32)
    Updater(agent, make_optimizer(agent, config), config).epoch(chunks, None)
    assert sorted(seen) == list(range(chunks.starts.shape[1]))


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_a_constant_one() -> None:
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
def test_ppo_config_names_values_out_of_range(changes: dict[str, float], words: list[str]) -> None:
    with pytest.raises(ValueError, match=words[0]) as error:
        dataclasses.replace(PPOConfig(), **changes)
    assert all(word in str(error.value) for word in words)


def test_minibatches_must_divide_the_rollout_and_a_size_that_fits_is_suggested() -> None:
    with pytest.raises(ValueError, match="minibatch_size=384 would fit"):
        PPOConfig(minibatch_size=512).check_num_envs(3)
    PPOConfig(minibatch_size=384).check_num_envs(3)

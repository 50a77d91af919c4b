"""Tests of memories inside sb3-contrib: resets, and equal results in rollouts, updates and agents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from rmc_agents.cores import LSTM, RMC, MemoryCore, make_core
from rmc_agents.sb3 import RMCPolicy
from rmc_agents.sb3.packing import PackedCore
from rmc_agents.tree import leaves
from tests.conftest import small_options
from tests.support.sb3 import CRITIC_MEMORIES, collect, maze, recall, small_model


@pytest.mark.parametrize("batch_size", [1, 3])
def test_states_survive_packing(any_core: str, batch_size: int) -> None:
    core = make_core(any_core, 5, small_options(any_core))
    packed_core = PackedCore(core)
    _, state = core.step(torch.randn(batch_size, 5), core.initial_state(batch_size))
    packed = packed_core.pack(state)
    assert [tuple(x.shape) for x in packed] == [(1, batch_size, packed_core.hidden_size)] * 2
    for before, after in zip(leaves(state), leaves(packed_core.unpack(packed)), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_zeros_unpack_to_the_initial_state(any_core: str) -> None:
    core = make_core(any_core, 5, small_options(any_core))
    packed_core = PackedCore(core)
    zeros = torch.zeros(1, 3, packed_core.hidden_size)
    for initial, unpacked in zip(
        leaves(core.initial_state(3)), leaves(packed_core.unpack((zeros, zeros))), strict=True
    ):
        assert torch.equal(initial, unpacked)


def test_zeros_unpack_to_rmc_slots_that_stay_different() -> None:
    core = RMC(5, num_slots=4, num_heads=2, head_size=8)
    packed_core = PackedCore(core)
    zeros = torch.zeros(1, 1, packed_core.hidden_size)
    memory = packed_core.unpack((zeros, zeros)).memory
    assert torch.equal(memory[0, :, :4], torch.eye(4))
    _, states = packed_core(torch.randn(6, 1, 5), (zeros, zeros), torch.zeros(6, 1, dtype=torch.bool))
    after = packed_core.unpack(states).memory[0]
    assert torch.cdist(after, after).fill_diagonal_(1).min() > 0.01


@pytest.mark.parametrize("critic", CRITIC_MEMORIES)
@pytest.mark.parametrize("make_env", [recall, maze], ids=["recall", "maze"])
def test_first_probability_ratio_is_one(any_core: str, critic: str, make_env) -> None:
    """The update computes the probabilities and values of the rollout, for any size of minibatch."""
    model = small_model(make_env(), any_core, **CRITIC_MEMORIES[critic])
    collect(model)
    for batch_size in (64, 20):
        for batch in model.rollout_buffer.get(batch_size):
            values, log_prob, _ = model.policy.evaluate_actions(
                batch.observations, batch.actions.long().flatten(), batch.lstm_states, batch.episode_starts
            )
            mask = batch.mask > 0
            torch.testing.assert_close(
                torch.exp(log_prob - batch.old_log_prob)[mask], torch.ones(int(mask.sum())), rtol=0, atol=1e-5
            )
            torch.testing.assert_close(values.flatten()[mask], batch.old_values[mask], rtol=0, atol=1e-5)


def test_first_probability_ratio_is_not_one_with_a_wrong_state() -> None:
    model = small_model(recall())
    collect(model)
    batch = next(iter(model.rollout_buffer.get(64)))
    wrong = batch.lstm_states._replace(pi=tuple(x + 1 for x in batch.lstm_states.pi))
    _, log_prob, _ = model.policy.evaluate_actions(
        batch.observations, batch.actions.long().flatten(), wrong, torch.zeros_like(batch.episode_starts)
    )
    assert (torch.exp(log_prob - batch.old_log_prob) - 1).abs().max() > 1e-2


def test_sb3_contrib_starts_episodes_only_at_the_start_of_sequences() -> None:
    """The result does not depend on it, but the speed does."""
    model = small_model(recall())
    collect(model)
    for batch in model.rollout_buffer.get(20):
        sequences = batch.lstm_states.pi[0].shape[1]
        assert not batch.episode_starts.reshape(sequences, -1)[:, 1:].any()


@pytest.mark.parametrize("critic", CRITIC_MEMORIES)
def test_policy_computes_what_the_agent_of_to_agent_computes(any_core: str, critic: str) -> None:
    """For a sequence with episode starts in the middle: equal log-probabilities and values."""
    model = small_model(maze(), any_core, **CRITIC_MEMORIES[critic])
    policy, agent = model.policy, model.policy.to_agent()
    generator = torch.Generator().manual_seed(1)
    hidden = torch.zeros(policy.lstm_actor.num_layers, 4, policy.lstm_actor.hidden_size)
    states = type(model._last_lstm_states)((hidden, hidden), (hidden, hidden))
    state = agent.initial_state(4)
    env = maze().env
    obs = env.reset(seed=3)
    with torch.no_grad():
        for _ in range(12):
            starts = torch.rand(4, generator=generator) < 0.3
            transposed = {**obs, "image": obs["image"].permute(0, 3, 1, 2)}
            distribution, _ = policy.get_distribution(transposed, states.pi, starts.float())
            expected_value = policy.predict_values(transposed, states.vf, starts.float()).flatten()
            *_, states = policy(transposed, states, starts.float())
            action, log_prob, value, state = agent.act(obs, starts, state, generator)
            torch.testing.assert_close(distribution.log_prob(action), log_prob, rtol=0, atol=1e-5)
            torch.testing.assert_close(expected_value, value, rtol=0, atol=1e-5)
            obs = env.step(action).obs


class _LearnedInitialState(LSTM):
    """A core whose initial state is a parameter."""

    def __init__(self, input_size: int) -> None:
        super().__init__(input_size, hidden_size=4)
        self.start = torch.nn.Parameter(torch.randn(4))

    def initial_state(self, batch_size: int):
        start = self.start.expand(batch_size, -1)
        return super().initial_state(batch_size)._replace(c=start)


def test_learned_initial_states_get_gradients() -> None:
    packed_core = PackedCore(_LearnedInitialState(3))
    zeros = torch.zeros(1, 2, packed_core.hidden_size)
    outputs, _ = packed_core(torch.randn(4, 2, 3), (zeros, zeros), torch.zeros(4, 2, dtype=torch.bool))
    outputs.sum().backward()
    assert packed_core.core.start.grad.abs().sum() > 0


class _Counter(MemoryCore):
    """A core with integers in its state."""

    output_size = 1

    def initial_state(self, batch_size: int):
        return (torch.full((batch_size,), 7), torch.zeros(batch_size, 3))

    def step(self, inputs: torch.Tensor, state):
        count, rows = state
        return count[:, None].float(), (count + 1, rows + inputs)

    def unroll(self, inputs: torch.Tensor, state, starts: torch.Tensor):
        outputs = []
        for x in inputs:
            output, state = self.step(x, state)
            outputs.append(output)
        return torch.stack(outputs), state


def test_integers_in_a_state_stay_integers() -> None:
    packed_core = PackedCore(_Counter(3))
    zeros = torch.zeros(1, 2, packed_core.hidden_size)
    _, states = packed_core(torch.rand(4, 2, 3), (zeros, zeros), torch.zeros(4, 2, dtype=torch.bool))
    count, rows = packed_core.unpack(states)
    assert count.tolist() == [11, 11]
    assert count.dtype == torch.int64
    assert rows.shape == (2, 3)


@pytest.mark.slow
def test_rmc_in_recurrent_ppo_learns_recall_and_ppo_without_memory_does_not() -> None:
    settings = {
        "n_steps": 28,
        "batch_size": 448,
        "n_epochs": 4,
        "learning_rate": 1e-3,
        "ent_coef": 0.01,
        "seed": 0,
    }
    chance, delay = 1 / 3, 5
    control = PPO("MlpPolicy", recall(64, delay=delay), device="cpu", **settings)
    control.learn(64 * 28 * 10)
    without, _ = evaluate_policy(control, recall(64, delay=delay), 512)
    assert without < chance + 0.1  # more than four standard deviations

    model = RecurrentPPO(
        RMCPolicy,
        recall(64, delay=delay),
        policy_kwargs={"num_slots": 2, "num_heads": 2, "head_size": 16, "enable_critic_lstm": False},
        device="cpu",
        **settings,
    )
    model.learn(64 * 28 * 10)
    with_memory, _ = evaluate_policy(model, recall(64, delay=delay), 512)
    assert with_memory > 0.95


def test_predict_returns_states_of_the_declared_shape() -> None:
    model = small_model(recall())
    _, state = model.predict(model.observation_space.sample())
    assert isinstance(state, tuple)
    assert [x.shape for x in state] == [model.policy.lstm_hidden_state_shape] * 2
    assert all(np.isfinite(x).all() for x in state)

"""Running statistics of observations: `VecNormalize`'s numbers, saved with the weights, fixed in acting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import rmc_envs
from rmc_agents import ActorCritic, UsageError
from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.normalization import NormalizedPart, RunningMoments
from rmc_agents.environment import ObservationIds
from rmc_agents.rl.ppo import PPOConfig, ppo_loss
from rmc_agents.rl.rollout import Rollout, collect, initial_carry
from rmc_agents.runs.weights import half_precision, load_weights
from tests.conftest import small_options
from tests.support.agents import chunks_of

MIXED = spaces.Dict(
    {
        "speed": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "bounded": spaces.Box(-1.0, 100.0, (2,), np.float32),
        "large": spaces.Box(0, 10**6, (1,), np.int64),
        "digit": spaces.Discrete(4),
        "bits": spaces.MultiBinary(2),
        "picture": spaces.Box(0, 255, (36, 36, 3), np.uint8),
    }
)


def agent_of(space: spaces.Space[Any], **options: Any) -> ActorCritic:
    options = {"features": 16, "hidden_size": 16, "normalize_observations": True, **options}
    return ActorCritic(space, spaces.Discrete(3), "gru", small_options("gru"), **options)


def moments_of(agent: ActorCritic) -> RunningMoments:
    part = agent.encoder.parts[0]
    assert isinstance(part, NormalizedPart)
    return part.moments


def batches(count: int = 5) -> list[np.ndarray]:
    """Return observations of three numbers: one of order 1, one far from 0, one of a large scale."""
    rng = np.random.default_rng(0)
    scale, shift = np.array([1.0, 0.01, 1e4]), np.array([0.5, 1000.0, -3e3])
    return [(rng.normal(size=(8, 4, 3)) * scale + shift).astype(np.float32) for _ in range(count)]


def test_statistics_and_normalised_values_equal_those_of_vecnormalize() -> None:
    """With one update per rollout, of all its observations."""
    space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    single = gymnasium.make("Pendulum-v1")
    oracle = VecNormalize(DummyVecEnv([lambda: single]))
    assert isinstance(oracle.obs_rms, RunningMeanStd)
    agent = agent_of(space)
    moments = moments_of(agent)
    for batch in batches():
        obs = torch.tensor(batch)
        np.testing.assert_allclose(moments.normalize(obs).numpy(), oracle.normalize_obs(batch), rtol=1e-6)
        oracle.obs_rms.update(batch.reshape(-1, 3).astype(np.float64))
        agent.update_statistics(obs, torch.ones(8, 4, dtype=torch.bool))
        np.testing.assert_allclose(moments.mean.numpy(), oracle.obs_rms.mean, rtol=1e-12)
        np.testing.assert_allclose(moments.var.numpy(), oracle.obs_rms.var, rtol=1e-9)
    assert int(moments.count) == 5 * 32
    outlier = np.full((1, 3), 1e9, np.float32)
    assert moments.normalize(torch.tensor(outlier)).tolist() == [[10.0, 10.0, 10.0]]
    np.testing.assert_allclose(
        moments.normalize(torch.tensor(batches()[2])).numpy(), oracle.normalize_obs(batches()[2]), rtol=1e-6
    )


def test_filler_steps_do_not_count() -> None:
    every, real = agent_of(spaces.Box(-1, 1, (3,))), agent_of(spaces.Box(-1, 1, (3,)))
    obs = torch.randn(6, 4, 3)
    counted = torch.rand(6, 4) < 0.5
    every.update_statistics(torch.where(counted.unsqueeze(-1), obs, torch.nan), counted)
    real.update_statistics(obs[counted].unsqueeze(1), torch.ones(int(counted.sum()), 1, dtype=torch.bool))
    torch.testing.assert_close(moments_of(every).state_dict(), moments_of(real).state_dict())


def test_update_without_samples_changes_nothing() -> None:
    moments = RunningMoments(2)
    moments.update(torch.ones(3, 2), torch.zeros(3, dtype=torch.bool))
    assert (moments.count.item(), moments.mean.tolist(), moments.var.tolist()) == (0, [0, 0], [1, 1])


def test_parts_of_two_processes_give_the_statistics_of_the_whole() -> None:
    obs = torch.randn(6, 3) * 7 + 100
    whole, share = RunningMoments(3), RunningMoments(3)
    whole.update(obs, torch.ones(6, dtype=torch.bool))
    others = iter(
        [
            torch.cat([torch.tensor([2.0]), obs[4:].double().sum(0)]),
            (obs[4:].double() - obs.double().mean(0)).square().sum(0),
        ]
    )
    share.update(obs[:4], torch.ones(4, dtype=torch.bool), lambda x: x + next(others))
    torch.testing.assert_close(share.state_dict(), whole.state_dict())


def test_only_numbers_are_normalised() -> None:
    encoder = Encoder(MIXED, 8, normalize=True)
    assert encoder.keys is not None
    normalized = [
        key for key, part in zip(encoder.keys, encoder.parts, strict=True) if isinstance(part, NormalizedPart)
    ]
    assert sorted(normalized) == ["bounded", "large", "speed"]
    plain = Encoder(MIXED, 8)
    assert not any(isinstance(part, NormalizedPart) for part in plain.parts)
    obs = {key: torch.tensor(np.stack([MIXED[key].sample() for _ in range(8)])) for key in MIXED}
    encoder.update_statistics(obs, torch.ones(8, dtype=torch.bool))
    assert torch.isfinite(encoder(obs)).all()


def test_numbers_of_a_table_count_as_often_as_they_are_seen() -> None:
    env = rmc_envs.Recall(4)
    agent, control = (agent_of(env.observation_space) for _ in range(2))
    table = env.observation_table()
    if table is None:
        table = torch.eye(env.observation_space.shape[0])
    agent.use_observation_table(table)
    ids = torch.randint(len(table), (6, 4))
    counted = torch.rand(6, 4) < 0.7
    agent.update_statistics(ObservationIds(ids), counted)
    control.update_statistics(table[ids], counted)
    torch.testing.assert_close(moments_of(agent).state_dict(), moments_of(control).state_dict())


def test_acting_and_predicting_leave_the_statistics_unchanged() -> None:
    agent = agent_of(spaces.Box(-1, 1, (3,)))
    agent.update_statistics(torch.randn(8, 4, 3), torch.ones(8, 4, dtype=torch.bool))
    before = {name: x.clone() for name, x in moments_of(agent).state_dict().items()}
    agent.train()
    agent.predict(np.full(3, 0.5, np.float32))
    agent.act(torch.randn(4, 3), torch.ones(4, dtype=torch.bool), agent.initial_state(4))
    torch.testing.assert_close(moments_of(agent).state_dict(), before, rtol=0, atol=0)


def test_ratio_is_one_before_the_first_update_whatever_the_statistics() -> None:
    env = rmc_envs.make("Pendulum-v1", 4)
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        "gru",
        small_options("gru"),
        normalize_observations=True,
        scale_actions=True,
    )
    carry = initial_carry(agent, env, seed=0)
    rollout = Rollout.allocate(agent, carry, 16)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        carry = collect(agent, env, carry, rollout, generator)
        _, metrics = ppo_loss(agent, chunks_of(agent, rollout, 8), PPOConfig(), 0.0)
        assert metrics.clip_fraction == 0
        assert abs(float(metrics.approx_kl)) < 1e-6
        agent.update_statistics(rollout.obs, rollout.valid)
    env.close()


def test_agent_with_statistics_survives_json_and_half_precision(tmp_path: Path) -> None:
    agent = agent_of(spaces.Box(-np.inf, np.inf, (3,), np.float32))
    agent.update_statistics(torch.randn(64, 4, 3) * 1e4 + 1e6, torch.ones(64, 4, dtype=torch.bool))
    again = ActorCritic.from_json(agent.to_json())
    assert again.config.normalize_observations
    load_weights(again, {"agent": half_precision(agent.state_dict(), tmp_path)}, tmp_path)
    torch.testing.assert_close(moments_of(again).state_dict(), moments_of(agent).state_dict(), rtol=0, atol=0)


def test_agent_described_before_there_was_normalisation_has_none() -> None:
    described = agent_of(spaces.Box(-1, 1, (3,)), normalize_observations=False).to_json()
    del described["agent"]["normalize_observations"], described["agent"]["scale_actions"]
    agent = ActorCritic.from_json(described)
    assert not agent.config.normalize_observations
    assert not any("moments" in name for name in agent.state_dict())


@pytest.mark.parametrize("name", ["count", "var"])
def test_negative_statistics_of_a_file_are_refused(name: str, tmp_path: Path) -> None:
    agent = agent_of(spaces.Box(-1, 1, (3,)))
    weights = {key: x.clone() for key, x in agent.state_dict().items()}
    weights[f"encoder.parts.0.moments.{name}"].fill_(-1)
    with pytest.raises(UsageError, match="a count or variance is negative"):
        load_weights(agent, {"agent": weights}, tmp_path)


def test_update_reads_nothing_back_to_the_host() -> None:
    """On torch's meta device, which holds no numbers, any such read raises."""
    moments = RunningMoments(3).to("meta")
    moments.update(torch.zeros(8, 3, device="meta"), torch.ones(8, dtype=torch.bool, device="meta"))
    assert moments.normalize(torch.zeros(8, 3, device="meta")).shape == (8, 3)

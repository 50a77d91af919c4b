"""Action persistence: correlated exploration, with the probabilities that the actions were drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.agent.heads import ActionHead, make_action_head
from rmc_agents.rl.ppo import PPOConfig, ppo_loss
from rmc_agents.rl.rollout import Rollout, collect, initial_carry
from tests.conftest import small_options
from tests.support.agents import chunks_of

SPACES = {
    "discrete": spaces.Discrete(3),
    "multidiscrete": spaces.MultiDiscrete([2, 5]),
    "multibinary": spaces.MultiBinary(2),
    "box": spaces.Box(-np.inf, np.inf, (2,)),
}


def chain(head: ActionHead, steps: int = 400, batch: int = 200) -> torch.Tensor:
    """Return encoded actions [steps, batch, n] of a policy without preferences."""
    parameters = torch.zeros(batch, head(torch.zeros(1, 4)).shape[-1])
    starts, generator = torch.ones(batch, dtype=torch.bool), torch.Generator().manual_seed(0)
    action = torch.zeros(batch, *head.action_shape, dtype=head.action_dtype)
    drawn = []
    for _ in range(steps):
        action = head.sample(head.persist(parameters, action, starts), generator)
        starts = torch.zeros_like(starts)
        drawn.append(head.encode(action))
    return torch.stack(drawn)


@pytest.mark.parametrize("name", SPACES)
def test_successive_actions_of_an_untrained_policy_have_the_correlation(name: str) -> None:
    x = chain(make_action_head(4, SPACES[name], persistence=0.8))
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    torch.testing.assert_close((x[1:] * x[:-1]).mean((0, 1)), torch.full(x.shape[2:], 0.8), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", SPACES)
def test_persistence_keeps_the_distribution_of_single_actions(name: str) -> None:
    x, alone = (chain(make_action_head(4, SPACES[name], persistence=rho)) for rho in (0.8, 0.0))
    for found, expected in ((x.mean((0, 1)), alone.mean((0, 1))), (x.std((0, 1)), alone.std((0, 1)))):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", SPACES)
def test_first_action_of_an_episode_ignores_the_previous_one(name: str) -> None:
    head = make_action_head(4, SPACES[name], persistence=0.8)
    parameters = head(torch.randn(6, 4))
    previous = head.sample(parameters)
    starts = torch.tensor([True, False] * 3)
    persistent = head.persist(parameters, previous, starts)
    torch.testing.assert_close(persistent[starts], parameters[starts])
    assert not torch.isclose(persistent[~starts], parameters[~starts]).all(1).any()


def test_persistent_normal_is_moved_by_the_action_within_the_box() -> None:
    space = spaces.Box(np.array([0.0], np.float32), np.array([10.0], np.float32))
    head = make_action_head(4, space, scale=True, persistence=0.6)
    previous = torch.tensor([[7.5], [25.0]])  # 0.5 and, clipped, 1 on the scale of the policy
    mean, log_std = head.persist(torch.zeros(2, 2), previous, torch.zeros(2, dtype=torch.bool)).unbind(-1)
    torch.testing.assert_close(mean, torch.tensor([0.3, 0.6]))
    torch.testing.assert_close(log_std.exp(), torch.tensor([0.8, 0.8]))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_ratio_is_one_before_the_first_update(env_id: str) -> None:
    env = rmc_envs.make(env_id, 4)
    agent = persistent_agent(env.observation_space, env.action_space, 0.9)
    carry = initial_carry(agent, env, seed=0)
    rollout = Rollout.allocate(agent, carry, 32)
    for _ in range(2):
        carry = collect(agent, env, carry, rollout, torch.Generator().manual_seed(0))
        _, metrics = ppo_loss(agent, chunks_of(agent, rollout, 8), PPOConfig(), 0.0)
        assert metrics.clip_fraction == 0
        assert abs(float(metrics.approx_kl)) < 1e-6
    env.close()


def persistent_agent(
    observation: spaces.Space[Any], action: spaces.Space[Any], persistence: float
) -> ActorCritic:
    options: dict[str, Any] = {"features": 16, "hidden_size": 16, "action_persistence": persistence}
    return ActorCritic(observation, action, "gru", small_options("gru"), **options)


def test_agent_described_before_there_was_persistence_has_none() -> None:
    described = persistent_agent(spaces.Box(-1, 1, (3,)), spaces.Discrete(3), 0.0).to_json()
    del described["agent"]["action_persistence"]
    assert ActorCritic.from_json(described).config.action_persistence == 0


@pytest.mark.parametrize("rho", [-0.1, 1.0])
def test_persistence_out_of_range_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="action_persistence must be at least 0 and below 1"):
        persistent_agent(spaces.Box(-1, 1, (3,)), spaces.Discrete(3), rho)

"""Agents with action masks: acting, evaluating and predicting choose and score allowed actions only."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic
from rmc_agents.agent.acceleration import accelerate
from tests.conftest import small_options

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
PAIR = spaces.MultiDiscrete([2, 3], start=[1, 4])
MASK = np.array([1, 0, 0, 1, 0])
"""Allows one action only, [0, 1] in the plain space."""


def agent_for(action_space: spaces.Space[Any] = PAIR, core: str = "gru", **options: Any) -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(VECTOR, action_space, core, small_options(core), **options).eval()


def test_prediction_is_an_allowed_action_of_the_own_space() -> None:
    agent = agent_for()
    action, state = agent.predict(np.zeros(3, np.float32), action_masks=MASK)
    assert action.tolist() == [1, 5]
    tuples = (MASK[:2], MASK[2:])
    for deterministic in (True, False):
        again, _ = agent.predict(
            np.zeros(3, np.float32), state, deterministic=deterministic, action_masks=tuples
        )
        assert again.tolist() == [1, 5]


def test_batch_is_predicted_with_a_mask_for_each_row() -> None:
    masks = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]])
    actions, _ = agent_for().predict(np.zeros((2, 3), np.float32), action_masks=masks)
    assert actions.tolist() == [[1, 5], [2, 6]]


@pytest.mark.parametrize(
    ("space", "masks", "message"),
    [
        (PAIR, MASK[:4], "an action mask of shape (4,), expected one of shape (5,)"),
        (PAIR, MASK[None], "an action mask of shape (1, 5), expected one of shape (5,)"),
        (PAIR, MASK * 0, "an action mask without an allowed choice"),
        (spaces.MultiBinary(2), [1, 1], "an action mask of shape (2,), expected one of shape (4,)"),
    ],
)
def test_prediction_refuses_a_wrong_mask(space: spaces.Space[Any], masks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        agent_for(space).predict(np.zeros(3, np.float32), action_masks=masks)


@pytest.mark.parametrize("core", ["gru", "rmc"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.filterwarnings("ignore")
def test_probability_ratio_is_one_with_masks(core: str, precision: Any) -> None:
    steps, batch = 6, 16
    agent = agent_for(core=core)
    accelerate(agent, precision)
    generator = torch.Generator().manual_seed(1)
    obs = torch.rand(steps, batch, 3, generator=generator)
    starts = torch.rand(steps, batch, generator=generator) < 0.3
    masks = torch.rand(steps, batch, 5, generator=generator) < 0.5
    masks[..., [0, 2]] = True
    state = first = agent.initial_state(batch)
    actions, log_probs = [], []
    for t in range(steps):
        with torch.no_grad():
            action, log_prob, _, state = agent.act(obs[t], starts[t], state, generator, action_masks=masks[t])
        actions.append(action)
        log_probs.append(log_prob)
    chosen = torch.stack(actions)
    assert not (agent.policy.encode(chosen).bool() & ~masks).any()
    given = obs, chosen, torch.zeros(steps, batch), starts, first
    found = agent.evaluate_actions(*given, action_masks=masks)
    tolerance = 1e-5 if precision == "float32" else 2e-2
    torch.testing.assert_close(found.log_probs, torch.stack(log_probs), atol=tolerance, rtol=tolerance)
    (found.log_probs.sum() + found.entropies.sum() + found.values.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in agent.parameters())


def test_masks_that_allow_everything_change_nothing() -> None:
    agent, obs, starts = agent_for(), torch.rand(8, 3), torch.ones(8, dtype=torch.bool)
    everything = torch.ones(8, 5, dtype=torch.bool)
    with torch.no_grad():
        plain, masked = (
            agent.act(
                obs,
                starts,
                agent.initial_state(8),
                torch.Generator().manual_seed(3),
                action_masks=masks,
            )
            for masks in (None, everything)
        )
    assert torch.equal(plain[0], masked[0])
    torch.testing.assert_close(plain[1:3], masked[1:3])


def test_agent_records_that_it_uses_masks() -> None:
    agent = agent_for()
    assert agent.config.action_masks == "auto"
    agent.use_action_masks()
    assert ActorCritic.from_json(agent.to_json()).config.action_masks == "use"
    with pytest.raises(
        ValueError, match=r"^action masks are for Discrete, MultiDiscrete and MultiBinary actions: build"
    ):
        agent_for(VECTOR).use_action_masks()
    with pytest.raises(ValueError, match=r"action_masks must be one of .*, got 'yes'"):
        agent_for(action_masks="yes")

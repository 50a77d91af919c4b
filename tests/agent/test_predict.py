"""Tests of `predict`'s arguments: what does not fit is refused by name, and nothing is broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic
from tests.conftest import small_options
from tests.support.agents import small_agent
from tests.support.spaces import MAZE_SPACE


def rows(n: int) -> np.ndarray:
    return np.zeros((n, 4), np.float32)


@pytest.mark.parametrize("critic_memory", ["shared", "separate"])
@pytest.mark.parametrize(("given", "asked"), [(1, 4), (4, 1), (2, 3)])
def test_states_of_another_number_of_rows_are_refused(
    any_core: str, given: int, asked: int, critic_memory: Any
) -> None:
    agent = small_agent(any_core, critic_memory=critic_memory)
    _, state = agent.predict(rows(given))
    if any_core == "feedforward" and not list(agent.initial_state(1).memory or ()):
        assert state.action.shape == (given,)
    with pytest.raises(ValueError, match=f"state does not belong to this agent and obs of {asked} row"):
        agent.predict(rows(asked), state)


def test_states_of_other_agents_are_refused() -> None:
    agent = small_agent("lstm")
    for state in (small_agent("gru").initial_state(2), agent.initial_state(2).memory, "state", (), 3):
        with pytest.raises(ValueError, match="state does not belong to this agent"):
            agent.predict(rows(2), state)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"direction": 1}, "obs has no 'image'.*got dict with 'direction'"),
        ({"image": np.zeros((7, 7, 3), np.uint8)}, "obs has no 'direction'"),
        (
            {"image": np.zeros((5, 7, 3), np.uint8), "direction": 1},
            r"obs\['image'\] has shape \(5, 7, 3\); expected \(7, 7, 3\)",
        ),
        ({"image": np.zeros((2, 7, 7, 3), np.uint8), "direction": 1}, "has shape"),
        ({"image": np.zeros((2, 7, 7, 3), np.uint8), "direction": [1, 2, 3]}, "has shape"),
        (
            {"image": np.zeros((7, 7, 3), np.uint8), "direction": 4},
            r"direction holds 4, which is not in Discrete\(4\)",
        ),
        ({"image": np.zeros((7, 7, 3), np.uint8), "direction": "left"}, "direction has type"),
        ({"image": np.full((7, 7, 3), 0.5), "direction": 1}, "image has type float64, expected uint8"),
        (np.zeros(3), "obs has no 'direction'|obs has no 'image'"),
        (None, "obs has no"),
    ],
)
def test_observations_that_do_not_fit_are_refused(obs: Any, message: str) -> None:
    agent = ActorCritic(MAZE_SPACE, spaces.Discrete(3), "gru")
    with pytest.raises(ValueError, match=message):
        agent.predict(obs)


def test_dictionaries_may_hold_further_keys() -> None:
    agent = ActorCritic(MAZE_SPACE, spaces.Discrete(3), "gru")
    obs = MAZE_SPACE.sample()
    assert agent.predict({**obs, "mission": "go"})[0] == agent.predict(obs)[0]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("episode_start", [True, False, True]),
        ("episode_start", "yes"),
        ("reward", [1.0, 2.0, 3.0]),
        ("reward", np.zeros((2, 2))),
        ("reward", {}),
    ],
)
def test_arguments_of_another_number_of_rows_are_refused(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a number, or one for each of the 2 rows"):
        small_agent("gru").predict(rows(2), **{argument: value})


def reading_rewards() -> ActorCritic:
    torch.manual_seed(0)
    agent = ActorCritic(
        spaces.Box(-1, 1, (4,)), spaces.Box(-9, 9, (2,)), "gru", small_options("gru"), previous_reward=True
    )
    torch.nn.init.normal_(agent.policy.linear.weight)
    return agent


def test_agents_that_read_rewards_ask_for_them() -> None:
    agent = reading_rewards()
    _, state = agent.predict(rows(2), episode_start=True)
    with pytest.raises(ValueError, match="reads the previous reward: pass the reward"):
        agent.predict(rows(2), state)
    with pytest.raises(ValueError, match="reads the previous reward"):
        agent.predict(rows(2), state, episode_start=[True, False])
    agent.predict(rows(2), state, episode_start=True)
    low, _ = agent.predict(rows(2), state, reward=0.0)
    high, _ = agent.predict(rows(2), state, reward=[5.0, 0.0])
    assert not np.allclose(low[0], high[0])
    np.testing.assert_allclose(low[1], high[1], atol=1e-6)
    filled = state._replace(reward=torch.tensor([5.0, 0.0]))
    np.testing.assert_array_equal(agent.predict(rows(2), filled)[0], high)


def test_a_fresh_state_starts_an_episode() -> None:
    """Without a state there is no previous action, so none is fed to the core."""
    agent = ActorCritic(
        spaces.Box(-1, 1, (4,)), spaces.Box(-9, 9, (2,)), "gru", small_options("gru"), previous_action=True
    )
    obs = rows(1)[0]
    np.testing.assert_array_equal(agent.predict(obs)[0], agent.predict(obs, episode_start=True)[0])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
def test_predict_refuses_numbers_that_are_not_finite(number: float) -> None:
    space = spaces.Dict(x=spaces.Box(-1, 1, (2,)), n=spaces.Discrete(3))
    agent = ActorCritic(space, spaces.Discrete(2), "gru", {"hidden_size": 4}, previous_reward=True)
    obs = {"x": np.zeros(2, np.float32), "n": 1}
    state = agent.predict(obs)[1]
    with pytest.raises(ValueError, match=r"obs\['x'\] holds NaN or infinity"):
        agent.predict({**obs, "x": np.array([0, number])})
    with pytest.raises(ValueError, match=r"reward must be a number.*and finite, got"):
        agent.predict(obs, state, reward=number)
    with pytest.raises(ValueError, match=r"obs\['n'\] has shape \(\), of one observation; .* a batch of 3"):
        agent.predict({"x": np.zeros((3, 2)), "n": 1})
    with pytest.raises(ValueError, match="obs"):
        agent.predict({"x": np.zeros((0, 2)), "n": np.zeros(0, np.int64)})

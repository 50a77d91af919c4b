"""Tests of the actor-critic: acting, NumPy predictions, critic memories, JSON, and wrapped networks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic, AgentConfig
from rmc_agents.agent.actor_critic import NetworkOutput, Networks
from rmc_agents.tree import leaves
from tests.conftest import small_options
from tests.support.agents import small_agent
from tests.support.spaces import ACTION_SPACES, MAZE_SPACE, OBSERVATION_SPACES


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_predict_returns_actions_of_the_space(space: spaces.Space, any_core: str) -> None:
    agent = ActorCritic(MAZE_SPACE, space, any_core, previous_action=True)
    obs = MAZE_SPACE.sample()
    action, state = agent.predict(obs, None, episode_start=True)
    assert space.contains(action if action.shape else int(action))
    actions, _ = agent.predict(
        {k: np.stack([v, v]) for k, v in obs.items()}, None, episode_start=[True, True]
    )
    assert len(actions) == 2
    np.testing.assert_allclose(actions[0], action, atol=1e-6)
    again, _ = agent.predict(obs, state, episode_start=True)
    np.testing.assert_allclose(again, action, atol=1e-6, err_msg="an episode start must reset the memory")


def test_predict_depends_on_earlier_observations() -> None:
    agent = ActorCritic(spaces.Box(-1, 1, (3,)), spaces.Box(-9, 9, (2,)), "rmc")
    torch.nn.init.normal_(agent.policy.linear.weight)
    first, second = np.ones(3, np.float32), np.zeros(3, np.float32)
    _, state = agent.predict(first)
    after, _ = agent.predict(second, state)
    alone, _ = agent.predict(second)
    assert np.abs(after - alone).max() > 1e-3


def assert_same_agent(first: ActorCritic, second: ActorCritic) -> None:
    """Check that two agents have the same options and, with the same weights, the same actions."""
    assert second.config == first.config
    assert second.to_json() == first.to_json()
    second.load_state_dict(first.state_dict())
    obs = first.observations.space.sample()
    np.testing.assert_array_equal(first.predict(obs)[0], second.predict(obs)[0])


def test_from_json_rebuilds_agents_with_any_core(any_core: str) -> None:
    agent = small_agent(any_core, critic_memory="separate", previous_reward=True, aux_size=3)
    assert_same_agent(agent, ActorCritic.from_json(json.loads(json.dumps(agent.to_json()))))


@pytest.mark.parametrize("space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_from_json_rebuilds_agents_with_any_observation_space(space: spaces.Space) -> None:
    agent = ActorCritic(space, spaces.Discrete(3), "gru", small_options("gru"))
    again = ActorCritic.from_json(json.loads(json.dumps(agent.to_json())))
    assert again.observations.space == space
    assert_same_agent(agent, again)


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_from_json_rebuilds_agents_with_any_action_space(space: spaces.Space) -> None:
    agent = ActorCritic(MAZE_SPACE, space, "gru", small_options("gru"), previous_action=True)
    again = ActorCritic.from_json(json.loads(json.dumps(agent.to_json())))
    assert again.action_space == space
    assert_same_agent(agent, again)


def test_from_config_builds_the_agent_of_the_constructor(any_core: str) -> None:
    options: dict[str, Any] = {"features": 16, "hidden_size": 12, "critic_memory": "none", "skip": False}
    config = AgentConfig(any_core, small_options(any_core), **options)
    torch.manual_seed(0)
    agent = ActorCritic.from_config(MAZE_SPACE, spaces.Discrete(3), config, aux_size=2)
    torch.manual_seed(0)
    other = ActorCritic(
        MAZE_SPACE, spaces.Discrete(3), any_core, small_options(any_core), aux_size=2, **options
    )
    assert agent.config == config
    torch.testing.assert_close(agent.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_from_json_ignores_other_keys_of_a_run_and_knows_the_current_format_only() -> None:
    """`runs.migrations` turns older descriptions into the current one, so that no other file reads them."""
    agent = small_agent("gru")
    description = agent.to_json()
    assert_same_agent(agent, ActorCritic.from_json({**description, "format": 2, "ppo": {}}))
    network = {**description.pop("agent"), **description}
    with pytest.raises(KeyError, match="observation_space"):
        ActorCritic.from_json({"agent": network})


def test_wrap_networks_reaches_every_method() -> None:
    agent = small_agent("rmc")
    obs, starts, state = torch.rand(2, 4), torch.zeros(2, dtype=torch.bool), agent.initial_state(2)
    expected = agent.value(obs, starts, state)
    calls: list[str] = []

    def counted(name: str) -> Any:
        def wrapper(networks: Networks) -> Networks:
            def run(*args: Any) -> NetworkOutput:
                calls.append(name)
                output = networks(*args)
                return output._replace(values=output.values + 1)

            return run

        return wrapper

    agent.wrap_networks(counted("inner"))
    agent.wrap_networks(counted("outer"))
    sequence = obs.unsqueeze(0), torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2), starts.unsqueeze(0)
    for call in (
        lambda: agent.act(obs, starts, state)[2],
        lambda: agent.value(obs, starts, state),
        lambda: agent.evaluate_actions(*sequence, state).values[0],
    ):
        torch.testing.assert_close(call(), expected + 2)
        assert calls == ["outer", "inner"]
        calls.clear()
    agent.predict(obs.numpy())
    assert calls == ["outer", "inner"]


def test_separate_critic_memory_differs_from_the_actors() -> None:
    agent = small_agent("lstm", critic_memory="separate")
    state = agent.initial_state(2)
    obs, starts = torch.rand(2, 4), torch.zeros(2, dtype=torch.bool)
    _, _, _, after = agent.act(obs, starts, state)
    assert not torch.allclose(after.memory.h, after.critic_memory.h)
    assert len(list(leaves(after))) == 6


def test_critic_without_memory_reads_the_current_observation_only() -> None:
    agent = small_agent("rmc", critic_memory="none")
    obs = torch.rand(5, 2, 4)
    no_starts = torch.zeros(5, 2, dtype=torch.bool)
    actions, rewards = torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2)
    values = agent.evaluate_actions(obs, actions, rewards, no_starts, agent.initial_state(2)).values
    alone = torch.stack([agent.value(x, no_starts[0], agent.initial_state(2)) for x in obs])
    torch.testing.assert_close(values, alone)


def test_evaluate_actions_predicts_auxiliary_targets() -> None:
    obs, starts = torch.rand(5, 2, 4), torch.zeros(5, 2, dtype=torch.bool)
    actions, rewards = torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2)
    for aux_size, shape in ((3, (5, 2, 3)), (0, None)):
        agent = small_agent("gru", aux_size=aux_size)
        found = agent.evaluate_actions(obs, actions, rewards, starts, agent.initial_state(2)).aux_predictions
        assert (None if found is None else tuple(found.shape)) == shape


def test_constructor_names_invalid_options() -> None:
    with pytest.raises(ValueError, match="critic_memory"):
        ActorCritic(MAZE_SPACE, spaces.Discrete(3), critic_memory="both")
    with pytest.raises(ValueError, match="Did you mean 'num_slots'"):
        ActorCritic(MAZE_SPACE, spaces.Discrete(3), "rmc", {"num_slot": 3})


def test_start_flag_is_an_input_of_the_core_at_first_steps() -> None:
    options = small_options("gru")
    plain = ActorCritic(spaces.Discrete(3), spaces.Discrete(2), "gru", options)
    agent = ActorCritic(spaces.Discrete(3), spaces.Discrete(2), "gru", options, start_flag=True)
    obs, starts = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[True, False], [False, True]])
    nothing = torch.zeros(2, 2)
    inputs = agent.core_inputs(obs, nothing.long(), nothing, starts)
    assert isinstance(inputs, torch.Tensor)
    torch.testing.assert_close(inputs[..., :-1], agent.encoder(obs))
    assert inputs[..., -1].tolist() == [[1, 0], [0, 1]]
    assert inputs.shape[-1] == plain.config.features + 1
    # The same observation is valued differently at the first step of an episode.
    state = agent.initial_state(2)
    values = agent.value(torch.zeros(2, dtype=torch.int64), torch.tensor([True, False]), state)
    assert values[0] != values[1]

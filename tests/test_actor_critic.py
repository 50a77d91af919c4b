"""The agent's face: acting, predicting on NumPy, building again from JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic
from rmc_agents.tree import leaves
from tests.support import small_agent

MAZE = spaces.Dict(image=spaces.Box(0, 255, (7, 7, 3), np.uint8), direction=spaces.Discrete(4))
ACTIONS = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary(4),
    spaces.Box(-0.1, 0.1, (2,)),
]


@pytest.mark.parametrize("space", ACTIONS, ids=lambda s: type(s).__name__)
def test_predict_gives_actions_of_the_space(space: spaces.Space, any_core: str) -> None:
    agent = ActorCritic(MAZE, space, any_core, previous_action=True)
    obs = MAZE.sample()
    action, state = agent.predict(obs, None, episode_start=True)
    assert space.contains(action if action.shape else int(action))
    actions, _ = agent.predict(
        {k: np.stack([v, v]) for k, v in obs.items()}, None, episode_start=[True, True]
    )
    assert len(actions) == 2
    np.testing.assert_allclose(actions[0], action, atol=1e-6)
    again, _ = agent.predict(obs, state, episode_start=True)
    np.testing.assert_allclose(again, action, atol=1e-6, err_msg="a start forgets what was before")


def test_predict_remembers() -> None:
    agent = ActorCritic(spaces.Box(-1, 1, (3,)), spaces.Box(-9, 9, (2,)), "rmc")
    torch.nn.init.normal_(agent.policy.linear.weight)
    first, second = np.ones(3, np.float32), np.zeros(3, np.float32)
    _, state = agent.predict(first)
    after, _ = agent.predict(second, state)
    alone, _ = agent.predict(second)
    assert np.abs(after - alone).max() > 1e-3


def test_an_agent_can_be_built_again_from_json(any_core: str) -> None:
    agent = small_agent(any_core, critic_memory="separate", previous_reward=True)
    again = ActorCritic.from_config(json.loads(json.dumps(agent.config())))
    again.load_state_dict(agent.state_dict())
    assert again.config() == agent.config()
    obs = agent.observation_space.sample()
    np.testing.assert_array_equal(agent.predict(obs)[0], again.predict(obs)[0])


def test_the_critics_own_memory_is_its_own() -> None:
    agent = small_agent("lstm", critic_memory="separate")
    state = agent.initial_state(2)
    obs, starts = torch.rand(2, 4), torch.zeros(2, dtype=torch.bool)
    _, _, _, after = agent.act(obs, starts, state)
    assert not torch.allclose(after.memory.h, after.critic_memory.h)
    assert len(list(leaves(after))) == 6


def test_a_critic_without_memory_sees_only_the_present() -> None:
    agent = small_agent("rmc", critic_memory="none")
    obs = torch.rand(5, 2, 4)
    no_starts = torch.zeros(5, 2, dtype=torch.bool)
    actions, rewards = torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2)
    _, _, values = agent.evaluate(obs, actions, rewards, no_starts, agent.initial_state(2))
    alone = torch.stack([agent.value(x, no_starts[0], agent.initial_state(2)) for x in obs])
    torch.testing.assert_close(values, alone)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="critic_memory"):
        ActorCritic(MAZE, spaces.Discrete(3), critic_memory="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean 'num_slots'"):
        ActorCritic(MAZE, spaces.Discrete(3), "rmc", {"num_slot": 3})

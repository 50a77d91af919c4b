"""Weights go to our own agents and come back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.torch_layers import FlattenExtractor

from rmc_agents import ActorCritic
from rmc_agents.sb3 import RMCPolicy, policy_kwargs_for
from rmc_agents.tree import map_tree
from tests.conftest import small_options
from tests.sb3.sb3_support import maze, recall, small_model

ACTIONS = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary(4),
    spaces.Box(-1, 1, (2,)),
]


def policy_for(agent: ActorCritic, **changes: Any) -> RMCPolicy:
    kwargs = {**policy_kwargs_for(agent), **changes}
    return RMCPolicy(agent.observation_space, agent.action_space, lambda _: 1e-3, **kwargs)


def randomised(agent: ActorCritic) -> ActorCritic:
    for parameter in agent.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return agent


@pytest.mark.parametrize("action_space", ACTIONS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("critic_memory", ["separate", "shared", "none"])
@pytest.mark.parametrize("skip", [False, True], ids=["", "skip"])
def test_an_agent_of_ours_goes_there_and_back(
    any_core: str, critic_memory: Any, skip: bool, action_space: spaces.Space
) -> None:
    agent = ActorCritic(
        spaces.Box(-1, 1, (5,)),
        action_space,
        any_core,
        small_options(any_core),
        features=12,
        hidden_size=10,
        critic_memory=critic_memory,
        skip=skip,
    )
    randomised(agent)
    policy = policy_for(agent)
    policy.load_agent(agent)
    back = policy.to_agent()
    assert back.config() == agent.config()
    weights = back.state_dict()
    for name, value in agent.state_dict().items():
        assert torch.equal(weights[name], value), name

    obs = torch.randn(3, 5)
    starts = torch.ones(3)
    hidden = torch.zeros(policy.lstm_hidden_state_shape).expand(-1, 3, -1)
    distribution, _ = policy.get_distribution(obs, (hidden, hidden), starts)
    action, log_prob, value, _ = agent.act(obs, starts.bool(), agent.initial_state(3))
    torch.testing.assert_close(distribution.log_prob(action), log_prob, rtol=1e-4, atol=1e-4)
    values = policy.predict_values(obs, (hidden, hidden), starts).flatten()
    torch.testing.assert_close(values, value, rtol=1e-4, atol=1e-4)


def test_an_agent_from_sb3_acts_on_the_environment_itself() -> None:
    """SB3 learned with channels first; the agent takes the maze's own observations."""
    model = small_model(maze()).learn(64)
    agent = model.policy.to_agent()
    env = maze().env
    assert agent.observation_space == env.observation_space
    obs = env.reset(seed=0)
    action, _ = agent.predict(map_tree(lambda x: x.numpy(), obs), None, episode_start=True)
    turned = {"image": obs["image"].permute(0, 3, 1, 2).numpy(), "direction": obs["direction"].numpy()}
    expected, _ = model.predict(turned, deterministic=True)
    assert action.tolist() == expected.tolist()


def test_a_model_of_sb3_made_for_an_agent_goes_on_learning() -> None:
    env = recall()
    agent = randomised(ActorCritic(env.observation_space, env.action_space, "gru", {"hidden_size": 12}))
    kwargs = policy_kwargs_for(agent)
    model = RecurrentPPO(RMCPolicy, env, n_steps=16, batch_size=32, device="cpu", policy_kwargs=kwargs)
    model.policy.load_agent(agent)
    before = torch.nn.utils.parameters_to_vector(agent.parameters()).clone()
    model.learn(64)
    after = torch.nn.utils.parameters_to_vector(agent.parameters())
    assert torch.equal(before, after), "the weights were copied, not shared"


def small_agent(**options: Any) -> ActorCritic:
    return ActorCritic(spaces.Box(-1, 1, (5,)), spaces.Discrete(3), "gru", **options)


def test_what_sb3_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="reads its previous action or reward"):
        policy_kwargs_for(small_agent(previous_action=True))
    with pytest.raises(ValueError, match="reads its previous action or reward"):
        policy_for(small_agent()).load_agent(small_agent(previous_reward=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features_extractor_class": FlattenExtractor, "features_extractor_kwargs": {}}, "FlattenExtractor"),
        ({"share_features_extractor": False}, "share_features_extractor=True"),
        ({"net_arch": [64, 64]}, r"net_arch \[64, 64\]"),
        ({"net_arch": {"pi": [64], "vf": [32]}}, "expected dict"),
        ({"activation_fn": torch.nn.ReLU}, "ReLU in its heads"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_our_agents_cannot_do_is_said(changes: dict[str, Any], message: str) -> None:
    policy = policy_for(small_agent(critic_memory="separate"), **changes)
    with pytest.raises(ValueError, match=message):
        policy.to_agent()
    with pytest.raises(ValueError, match=message):
        policy.load_agent(small_agent(critic_memory="separate"))


def test_state_dependent_exploration_is_refused() -> None:
    policy = RMCPolicy(spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (2,)), lambda _: 1e-3, use_sde=True)
    with pytest.raises(ValueError, match="state-dependent exploration"):
        policy.to_agent()


def test_other_shapes_are_named_and_nothing_is_copied() -> None:
    policy = policy_for(small_agent())
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    wider = ActorCritic(spaces.Box(-1, 1, (5,)), spaces.Discrete(4), "gru")
    with pytest.raises(ValueError, match=r"weight \(4, 64\) where \(3, 64\) is expected"):
        policy.load_agent(randomised(wider))
    with pytest.raises(ValueError, match=r"are \('gru', 'none', .*\) in the agent, \('gru', 'shared'"):
        policy.load_agent(small_agent(critic_memory="none"))
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())

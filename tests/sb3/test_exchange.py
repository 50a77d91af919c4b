"""Tests of exchanging weights between SB3 policies and agents."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from rmc_agents import ActorCritic
from rmc_agents.cores import reads_entities
from rmc_agents.sb3 import RMCPolicy, policy_kwargs_for
from rmc_agents.tree import map_tree
from tests.conftest import small_options
from tests.support.sb3 import maze, recall, small_model
from tests.support.spaces import ACTION_SPACES


def policy_for(agent: ActorCritic, **changes: Any) -> RMCPolicy:
    """Return a new policy that accepts the agent's weights, with changed arguments if any."""
    kwargs = {**policy_kwargs_for(agent), **changes}
    return RMCPolicy(agent.observation_space, agent.action_space, lambda _: 1e-3, **kwargs)


def randomised(agent: ActorCritic) -> ActorCritic:
    """Draw new weights for all parameters of the agent, and return it."""
    for parameter in agent.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return agent


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
@pytest.mark.parametrize("critic_memory", ["separate", "shared", "none"])
@pytest.mark.parametrize("skip", [False, True], ids=["no skip", "skip"])
def test_agents_survive_the_way_to_a_policy_and_back(
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
        cell_size=0 if reads_entities(any_core) else None,
    )
    randomised(agent)
    policy = policy_for(agent)
    policy.load_agent(agent)
    back = policy.to_agent()
    assert back.config == agent.config
    assert back.to_json() == agent.to_json()
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


def test_agent_of_a_policy_acts_in_the_unwrapped_environment() -> None:
    """SB3 trained with channels first; the agent reads the maze's own observations."""
    model = small_model(maze()).learn(64)
    agent = model.policy.to_agent()
    env = maze().env
    assert agent.observation_space == env.observation_space
    obs = env.reset(seed=0)
    action, _ = agent.predict(map_tree(lambda x: x.numpy(), obs), None, episode_start=True)
    transposed = {"image": obs["image"].permute(0, 3, 1, 2).numpy(), "direction": obs["direction"].numpy()}
    expected, _ = model.predict(transposed, deterministic=True)
    assert action.tolist() == expected.tolist()


def test_model_with_an_agents_weights_trains_a_copy_of_them() -> None:
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


def test_agents_that_read_previous_actions_or_rewards_are_rejected() -> None:
    with pytest.raises(ValueError, match="reads its previous action or reward"):
        policy_kwargs_for(small_agent(previous_action=True))
    with pytest.raises(ValueError, match="reads its previous action or reward"):
        policy_for(small_agent()).load_agent(small_agent(previous_reward=True))
    with pytest.raises(ValueError, match="start_flag=False"):
        policy_kwargs_for(small_agent(start_flag=True))
    with pytest.raises(ValueError, match="action_persistence=0"):
        policy_kwargs_for(small_agent(action_persistence=0.5))


def test_agents_that_were_trained_with_action_masks_are_rejected() -> None:
    agent = small_agent()
    agent.use_action_masks()
    with pytest.raises(ValueError, match="trained with action masks, which RecurrentPPO does not have"):
        policy_kwargs_for(agent)


@pytest.mark.parametrize("option", ["normalize_observations", "scale_actions"])
def test_agents_that_normalise_by_themselves_are_rejected(option: str) -> None:
    with pytest.raises(ValueError, match="normalises observations or scales actions itself"):
        policy_kwargs_for(small_agent(**{option: True}))
    with pytest.raises(ValueError, match=f"{option}=False"):
        policy_for(small_agent()).load_agent(small_agent(**{option: True}))


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
def test_policies_with_parts_that_agents_lack_are_rejected(changes: dict[str, Any], message: str) -> None:
    policy = policy_for(small_agent(critic_memory="separate"), **changes)
    with pytest.raises(ValueError, match=message):
        policy.to_agent()
    with pytest.raises(ValueError, match=message):
        policy.load_agent(small_agent(critic_memory="separate"))


def test_policies_with_state_dependent_exploration_are_rejected() -> None:
    policy = RMCPolicy(spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (2,)), lambda _: 1e-3, use_sde=True)
    with pytest.raises(ValueError, match="state-dependent exploration"):
        policy.to_agent()


def test_agents_of_other_shapes_are_rejected_and_nothing_is_copied() -> None:
    policy = policy_for(small_agent())
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    wider = ActorCritic(spaces.Box(-1, 1, (5,)), spaces.Discrete(4), "gru")
    with pytest.raises(ValueError, match=r"weight \(4, 64\) where \(3, 64\) is expected"):
        policy.load_agent(randomised(wider))
    with pytest.raises(ValueError, match=r"are \('gru', 'none', .*\) in the agent but \('gru', 'shared'"):
        policy.load_agent(small_agent(critic_memory="none"))
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())


@pytest.mark.parametrize("shape", [(3, 3, 3), (7, 7, 20), (7, 7, 3), (40, 40, 3)], ids=str)
def test_readings_of_pictures_survive_the_exchange(shape: tuple[int, ...]) -> None:
    """SB3 transposes some pictures and takes others for channels first; the values stay the same."""
    env = spaced(spaces.Box(0, 255, shape, np.uint8))
    agent = ActorCritic(env.observation_space, env.action_space, "gru", {"hidden_size": 4})
    model = recurrent_ppo(env, **policy_kwargs_for(agent))
    model.policy.load_agent(agent)
    assert_equal_values(model, model.policy.to_agent(env.observation_space))
    assert_equal_values(model, agent)


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2000, 3]),
        spaces.Discrete(1500),
        spaces.Dict(a=spaces.Discrete(3), b=spaces.Discrete(1500)),
    ],
    ids=str,
)
def test_integers_with_many_values_are_embedded_in_both(space: spaces.Space) -> None:
    env = spaced(space)
    model = recurrent_ppo(env, core="gru", hidden_size=4, **SHARED)
    assert_equal_values(model, model.policy.to_agent(env.observation_space))


def test_parts_in_another_order_get_their_own_weights() -> None:
    parts = {"b": spaces.Discrete(3), "a": spaces.Discrete(3)}
    env = spaced(spaces.Dict(list(parts.items())))
    model = recurrent_ppo(env, core="gru", hidden_size=4, **SHARED)
    assert_equal_values(model, model.policy.to_agent(spaces.Dict(sorted(parts.items()))))


SHARED = {"shared_lstm": True, "enable_critic_lstm": False}


def spaced(space: spaces.Space) -> gymnasium.Env:
    """Return an environment whose observations are samples of `space`."""
    return gymnasium.wrappers.TransformObservation(
        gymnasium.make("CartPole-v1"), lambda obs: space.sample(), space
    )


def recurrent_ppo(env: gymnasium.Env, **policy_kwargs: Any) -> RecurrentPPO:
    """Return an untrained model on an environment that SB3 wraps as its own."""
    return RecurrentPPO(
        RMCPolicy,
        DummyVecEnv([lambda: env]),
        n_steps=8,
        batch_size=8,
        device="cpu",
        policy_kwargs=policy_kwargs,
    )


def assert_equal_values(model: RecurrentPPO, agent: ActorCritic) -> None:
    """Compare the values of one observation, given as the environment returns it."""
    obs = model.get_env().envs[0].observation_space.sample()  # type: ignore[union-attr]
    tensors, _ = model.policy.obs_to_tensor(obs)
    zeros = torch.zeros(1, 1, model.policy.lstm_actor.hidden_size)
    theirs = model.policy.predict_values(tensors, (zeros, zeros), torch.ones(1))
    arrays, _ = agent.observations.read(obs)
    row = (
        {k: torch.as_tensor(x) for k, x in arrays.items()}
        if isinstance(arrays, dict)
        else torch.as_tensor(arrays)
    )
    starts = torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        ours = agent.act(row, starts, agent.initial_state(1))[2]
    torch.testing.assert_close(theirs.reshape(-1), ours, rtol=1e-4, atol=1e-5)

"""Exchange of weights between `RMCPolicy` and `rmc_agents.ActorCritic`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution, StateDependentNoiseDistribution
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from torch import nn

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.config import AgentConfig, CriticMemory
from rmc_agents.cores import reads_entities
from rmc_agents.sb3.features import EncoderExtractor
from rmc_agents.sb3.packing import PackedCore
from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.plain import Observations
from rmc_agents.spaces.reading import named_parts, with_readings


class ExchangeablePolicy(Protocol):
    """The options and modules of an `RMCPolicy` that correspond to those of an agent."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    core_name: str
    core_options: dict[str, Any]
    shared_lstm: bool
    enable_critic_lstm: bool
    skip: bool
    share_features_extractor: bool
    net_arch: list[int] | dict[str, list[int]]
    activation_fn: type[nn.Module]
    features_extractor: BaseFeaturesExtractor
    lstm_actor: PackedCore
    lstm_critic: PackedCore | None
    mlp_extractor: MlpExtractor
    action_dist: Distribution
    action_net: nn.Module
    value_net: nn.Linear

    @property
    def features_dim(self) -> int: ...
    @property
    def device(self) -> torch.device: ...


def policy_kwargs_for(agent: ActorCritic) -> dict[str, Any]:
    """Return the `policy_kwargs` of an `RMCPolicy` that accepts the agent's weights.

    After `RecurrentPPO(RMCPolicy, env, policy_kwargs=policy_kwargs_for(agent))`, call
    `model.policy.load_agent(agent)`.

    Raises:
        ValueError: the agent reads its previous action or reward, which SB3 does not give to a policy, or
            normalises what SB3's `VecNormalize` and `RescaleAction` normalise outside of the policy.
    """
    _require_exchangeable(agent)
    config = agent.config
    return {
        "features_extractor_kwargs": {
            "features_dim": config.features,
            "read_as": {
                key: part.read_as
                for key, part in named_parts(agent.observation_space).items()
                if isinstance(part, AnnotatedBox)
            },
        },
        "net_arch": {"pi": [config.hidden_size], "vf": [config.hidden_size]},
        "shared_lstm": config.critic_memory == "shared",
        "enable_critic_lstm": config.critic_memory == "separate",
        "skip": config.skip,
        "core": config.core,
        **config.core_options,
    }


def copy_to_agent(policy: ExchangeablePolicy, observation_space: spaces.Space[Any] | None) -> ActorCritic:
    """Build an agent with the policy's weights; see `RMCPolicy.to_agent`."""
    _require_same_architecture(policy)
    config = AgentConfig(
        core=policy.core_name,
        core_options=policy.core_options,
        features=int(policy.features_dim),
        cell_size=0 if reads_entities(policy.core_name) else None,
        hidden_size=int(policy.mlp_extractor.latent_dim_pi),
        critic_memory=_critic_memory(policy),
        skip=policy.skip,
    )
    extractor = policy.features_extractor
    assert isinstance(extractor, EncoderExtractor)
    own = extractor.own_space
    if observation_space is not None:
        own = with_readings(_in_order(Observations(observation_space).plain, own), _kinds(own))
    agent = ActorCritic.from_config(own, policy.action_space, config)
    if observation_space is not None:
        agent.use_spaces(observation_space, policy.action_space)
    agent.to(policy.device)
    _copy([(theirs, ours) for ours, theirs in _corresponding_modules(agent, policy)])
    log_std = _log_std(policy)
    if log_std is not None:
        agent.policy.get_parameter("log_std").data.copy_(log_std.data)
    return agent


def _in_order(space: spaces.Space[Any], of: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return a plain `Dict` with its parts in the order of another: the encoder's weights depend on it."""
    order = [str(key) for key in named_parts(of)]
    if not isinstance(space, spaces.Dict) or sorted(order) != sorted(space.spaces):
        return space
    return spaces.Dict([(key, space[key]) for key in order])


def _kinds(space: spaces.Space[Any]) -> dict[str, str]:
    """Return how each `Box` is read, without the order of a picture's axes."""
    parts = named_parts(space)
    readings = {key: part.read_as for key, part in parts.items() if isinstance(part, AnnotatedBox)}
    return {str(key): x if x.startswith("codes") else x.partition(":")[0] for key, x in readings.items()}


def copy_from_agent(policy: ExchangeablePolicy, agent: ActorCritic) -> None:
    """Copy an agent's weights into the policy; see `RMCPolicy.load_agent`."""
    _require_exchangeable(agent)
    _require_same_architecture(policy)
    ours = agent.config.core, agent.config.critic_memory, agent.config.skip
    theirs = policy.core_name, _critic_memory(policy), policy.skip
    if ours != theirs:
        raise ValueError(
            f"core, critic_memory and skip are {ours} in the agent but {theirs} in the policy; make the "
            "policy with policy_kwargs=policy_kwargs_for(agent)"
        )
    _copy(_corresponding_modules(agent, policy))
    log_std = _log_std(policy)
    if log_std is not None:
        log_std.data.copy_(agent.policy.get_parameter("log_std").data)


def _log_std(policy: ExchangeablePolicy) -> nn.Parameter | None:
    """Return the logarithm of the standard deviation of `Box` actions; None for other actions."""
    return getattr(policy, "log_std", None)


def _critic_memory(policy: ExchangeablePolicy) -> CriticMemory:
    if policy.enable_critic_lstm:
        return "separate"
    return "shared" if policy.shared_lstm else "none"


def _corresponding_modules(
    agent: ActorCritic, policy: ExchangeablePolicy
) -> list[tuple[nn.Module, nn.Module]]:
    """Return pairs of an agent's module and the policy's module with the same weights."""
    extractor = policy.features_extractor
    assert isinstance(extractor, EncoderExtractor)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (agent.encoder, extractor.encoder),
        (agent.core, policy.lstm_actor.core),
        (agent.policy_hidden, policy.mlp_extractor.policy_net),
        (agent.policy.linear, policy.action_net),
        (agent.value_hidden, policy.mlp_extractor.value_net),
        (agent.value_head, policy.value_net),
    ]
    if agent.critic_core is not None and policy.lstm_critic is not None:
        pairs.append((agent.critic_core, policy.lstm_critic.core))
    return pairs


def _copy(pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """Copy each first module's weights into the second; change nothing unless all of them fit."""
    weights = [(source.state_dict(), target) for source, target in pairs]
    for state, target in weights:
        expected = {name: tuple(value.shape) for name, value in target.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if expected != given:
            wrong = [n for n in sorted(expected.keys() | given.keys()) if expected.get(n) != given.get(n)]
            shapes = ", ".join(f"{n} {given.get(n)} where {expected.get(n)} is expected" for n in wrong)
            raise ValueError(
                f"{type(target).__name__}: {shapes}; make the policy with "
                "policy_kwargs=policy_kwargs_for(agent), for the agent's observation and action spaces"
            )
    for state, target in weights:
        target.load_state_dict(state)


def _require_exchangeable(agent: ActorCritic) -> None:
    if agent.config.action_masks == "use":
        raise ValueError(
            "the agent was trained with action masks, which RecurrentPPO does not have; train an agent with "
            "action_masks='ignore'"
        )
    if agent.encoder.num_cells:
        raise ValueError(
            "the agent feeds cells to its core, which an SB3 policy does not; train an agent with cell_size=0"
        )
    if agent.config.normalize_observations or agent.config.scale_actions:
        raise ValueError(
            "the agent normalises observations or scales actions itself, which an SB3 policy does not; train "
            "an agent with normalize_observations=False and scale_actions=False"
        )
    if agent.config.keeps_action or agent.config.reads_more:
        raise ValueError(
            "the agent reads its previous action or reward, a flag of the first step or a clock, which SB3 "
            "does not give to a policy; train an agent with previous_action=False, previous_reward=False, "
            "start_flag=False, clock=0 and action_persistence=0"
        )


def _require_same_architecture(policy: ExchangeablePolicy) -> None:
    """Raise ValueError naming every part of the policy that an `ActorCritic` lacks."""
    heads = policy.net_arch
    reasons = []
    if type(policy.features_extractor) is not EncoderExtractor:
        reasons.append(
            f"features from {type(policy.features_extractor).__name__} (expected EncoderExtractor)"
        )
    if not policy.share_features_extractor:
        reasons.append("separate encoders for actor and critic (expected share_features_extractor=True)")
    if not isinstance(heads, dict) or len(heads["pi"]) != 1 or heads["pi"] != heads["vf"]:
        reasons.append(f"net_arch {heads} (expected dict(pi=[n], vf=[n]))")
    if policy.activation_fn is not nn.Tanh:
        reasons.append(f"{policy.activation_fn.__name__} in its heads (expected Tanh)")
    if isinstance(policy.action_dist, StateDependentNoiseDistribution):
        reasons.append("state-dependent exploration (expected use_sde=False)")
    if reasons:
        raise ValueError("an ActorCritic cannot have the parts of this policy: " + "; ".join(reasons))

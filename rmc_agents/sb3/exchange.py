"""Weights to and from our own agents, for the policies that are built alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gymnasium import spaces
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from torch import nn

from rmc_agents.actor_critic import ActorCritic, CriticMemory
from rmc_agents.sb3.features import EncoderExtractor, unturned

if TYPE_CHECKING:
    from rmc_agents.sb3.policy import RMCPolicy


def policy_kwargs_for(agent: ActorCritic) -> dict[str, Any]:
    """The `policy_kwargs` of an `RMCPolicy` that takes the agent's weights (`policy.load_agent(agent)`).

    Raises:
        ValueError: the agent reads its last action or reward, which SB3 does not give to a policy.
    """
    _refuse_previous(agent)
    return {
        "features_extractor_kwargs": {"features_dim": agent.features},
        "net_arch": {"pi": [agent.hidden_size], "vf": [agent.hidden_size]},
        "shared_lstm": agent.critic_memory == "shared",
        "enable_critic_lstm": agent.critic_memory == "separate",
        "skip": agent.skip,
        "core": agent.core_name,
        **agent.core_options,
    }


def to_agent(policy: RMCPolicy, observation_space: spaces.Space[Any] | None) -> ActorCritic:
    """See `RMCPolicy.to_agent`."""
    _refuse_foreign(policy)
    agent = ActorCritic(
        unturned(policy.observation_space) if observation_space is None else observation_space,
        policy.action_space,
        policy.core_name,
        policy.core_options,
        features=policy.features_dim,
        hidden_size=policy.mlp_extractor.latent_dim_pi,
        critic_memory=_critic_memory(policy),
        skip=policy.skip,
    )
    agent.to(policy.device)
    _copy([(theirs, ours) for ours, theirs in _pairs(agent, policy)])
    if "log_std" in dict(policy.named_parameters()):
        agent.policy.get_parameter("log_std").data.copy_(policy.log_std.data)
    return agent


def load_agent(policy: RMCPolicy, agent: ActorCritic) -> None:
    """See `RMCPolicy.load_agent`."""
    _refuse_previous(agent)
    _refuse_foreign(policy)
    ours = agent.core_name, agent.critic_memory, agent.skip
    theirs = policy.core_name, _critic_memory(policy), policy.skip
    if ours != theirs:
        raise ValueError(
            f"core, critic memory and skip are {ours} in the agent, {theirs} in the policy; make the policy "
            "with policy_kwargs=policy_kwargs_for(agent)"
        )
    _copy(_pairs(agent, policy))
    if "log_std" in dict(policy.named_parameters()):
        policy.log_std.data.copy_(agent.policy.get_parameter("log_std").data)


def _critic_memory(policy: RMCPolicy) -> CriticMemory:
    if policy.enable_critic_lstm:
        return "separate"
    return "shared" if policy.shared_lstm else "none"


def _pairs(agent: ActorCritic, policy: RMCPolicy) -> list[tuple[nn.Module, nn.Module]]:
    """The modules of the agent, each with the policy's that does the same."""
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
    """Copy each first module's weights into its second; nothing is changed unless all fit."""
    weights = [(source.state_dict(), target) for source, target in pairs]
    for state, target in weights:
        here = {name: tuple(value.shape) for name, value in target.state_dict().items()}
        there = {name: tuple(value.shape) for name, value in state.items()}
        if here != there:
            wrong = [n for n in sorted(here.keys() | there.keys()) if here.get(n) != there.get(n)]
            shapes = ", ".join(f"{n} {there.get(n)} where {here.get(n)} is expected" for n in wrong)
            raise ValueError(
                f"{type(target).__name__}: {shapes}; make the policy with "
                "policy_kwargs=policy_kwargs_for(agent), for the agent's observations and actions"
            )
    for state, target in weights:
        target.load_state_dict(state)


def _refuse_previous(agent: ActorCritic) -> None:
    if agent.previous_action or agent.previous_reward:
        raise ValueError(
            "the agent reads its previous action or reward, which SB3 does not give to a policy; "
            "train it with previous_action=False and previous_reward=False"
        )


def _refuse_foreign(policy: RMCPolicy) -> None:
    """Raise ValueError naming every part of the policy that our agents lack."""
    heads = policy.net_arch
    reasons = []
    if type(policy.features_extractor) is not EncoderExtractor:
        reasons.append(
            f"features from {type(policy.features_extractor).__name__} (expected EncoderExtractor)"
        )
    if not policy.share_features_extractor:
        reasons.append("an encoder for each of actor and critic (expected share_features_extractor=True)")
    if not isinstance(heads, dict) or len(heads["pi"]) != 1 or heads["pi"] != heads["vf"]:
        reasons.append(f"net_arch {heads} (expected dict(pi=[n], vf=[n]))")
    if policy.activation_fn is not nn.Tanh:
        reasons.append(f"{policy.activation_fn.__name__} in its heads (expected Tanh)")
    if isinstance(policy.action_dist, StateDependentNoiseDistribution):
        reasons.append("state-dependent exploration (expected use_sde=False)")
    if reasons:
        raise ValueError("no agent of ours is built like this policy, which has " + "; ".join(reasons))

"""The agent: encoder -> memory core -> policy and value heads.

Axes: T time, B batch. Acting is a sequence of one step, so that acting and training run the same code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.cores import MemoryCore, State, make_core
from rmc_agents.encoders import Encoder
from rmc_agents.heads import make_action_head
from rmc_agents.spaces_json import space_from_json, space_to_json
from rmc_agents.tree import Tree, map_tree

CriticMemory = Literal["shared", "separate", "none"]


class AgentState(NamedTuple):
    """What an agent carries from step to step."""

    memory: State
    critic_memory: State | None
    """The critic's own memory where it has one."""
    action: Tensor
    """[B, *action] the last action; read only by agents with `previous_action`."""
    reward: Tensor
    """[B] the last reward, which the caller fills in; read only by agents with `previous_reward`."""


class ActorCritic(nn.Module):
    """A policy and a value function that remember.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        core: a name in `rmc_agents.cores.CORES`.
        core_options: the core's own options; what is left out keeps its default.
        features: width of the encoder's output.
        hidden_size: width of the hidden layer of each head.
        critic_memory: "shared" lets the critic read the actor's memory, "separate" gives it a core of
            its own, "none" lets it see the present observation only.
        previous_action: feed the last action to the core.
        previous_reward: feed the last reward to the core.
        skip: let the heads read the core's present input beside its output, so that reactions need not go
            through the memory. RMC learns memory tasks several times faster with it.
        hint_size: how many numbers a linear layer on the core's output shall tell while training (see
            `hints`); 0 for no such layer.

    Raises:
        ValueError: an unknown core, option or space; the message says what to do.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        core: str = "rmc",
        core_options: Mapping[str, Any] | None = None,
        *,
        features: int = 128,
        hidden_size: int = 64,
        critic_memory: CriticMemory = "shared",
        previous_action: bool = False,
        previous_reward: bool = False,
        skip: bool = True,
        hint_size: int = 0,
    ) -> None:
        super().__init__()
        if critic_memory not in get_args(CriticMemory):
            raise ValueError(f"critic_memory must be one of {get_args(CriticMemory)}, got {critic_memory!r}")
        self.observation_space, self.action_space = observation_space, action_space
        self.core_name, self.core_options = core, dict(core_options or {})
        self.features, self.hidden_size = features, hidden_size
        self.critic_memory: CriticMemory = critic_memory
        self.previous_action, self.previous_reward = previous_action, previous_reward
        self.skip, self.hint_size = skip, hint_size

        self.encoder = Encoder(observation_space, features)
        probe = make_action_head(1, action_space)
        core_input = features + previous_action * probe.encoding_size + int(previous_reward)
        self.core: MemoryCore = make_core(core, core_input, core_options)
        self.critic_core = make_core(core, core_input, core_options) if critic_memory == "separate" else None
        policy_input = self.core.output_size + skip * core_input
        critic_input = core_input if critic_memory == "none" else policy_input
        self.policy_hidden = _hidden(policy_input, hidden_size)
        self.policy = make_action_head(hidden_size, action_space)
        self.value_hidden = _hidden(critic_input, hidden_size)
        self.value_head = nn.Linear(hidden_size, 1)
        nn.init.orthogonal_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.hint = nn.Linear(self.core.output_size, hint_size) if hint_size else None

    @property
    def device(self) -> torch.device:
        return self.value_head.weight.device

    def initial_state(self, batch_size: int) -> AgentState:
        """The state before the first step of an episode, for `batch_size` rows."""
        action = torch.zeros(
            batch_size, *self.policy.action_shape, dtype=self.policy.action_dtype, device=self.device
        )
        critic = self.critic_core.initial_state(batch_size) if self.critic_core is not None else None
        return AgentState(
            self.core.initial_state(batch_size), critic, action, torch.zeros(batch_size, device=self.device)
        )

    def act(
        self,
        obs: Tree,
        starts: Tensor,
        state: AgentState,
        generator: torch.Generator | None = None,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, AgentState]:
        """One step: obs [B, ...], starts [B] bool -> actions, log_probs [B], values [B], next state.

        The next state's `reward` is still the last one: replace it once the environment has answered.
        """
        obs, actions = map_tree(lambda x: x.unsqueeze(0), obs), state.action.unsqueeze(0)
        rewards = state.reward.unsqueeze(0)
        parameters, values, state, _ = self._forward(obs, actions, rewards, starts.unsqueeze(0), state)
        parameters = parameters.squeeze(0)
        action = self.policy.mode(parameters) if deterministic else self.policy.sample(parameters, generator)
        log_prob = self.policy.log_prob(parameters, action)
        return action, log_prob, values.squeeze(0), state._replace(action=action)

    def evaluate(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor, state: AgentState
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the agent thinks of a recorded sequence.

        Args:
            obs: [T, B, ...].
            actions: [T, B, ...] what was done.
            rewards: [T, B] what it brought; step t reads `rewards[t - 1]`, if it reads rewards at all.
            starts: [T, B] bool, true where an episode begins.
            state: before the first step, as it was stored when the sequence was recorded.

        Returns:
            log_probs, entropies and values, each [T, B].
        """
        return self.evaluate_and_tell(obs, actions, rewards, starts, state)[:3]

    def evaluate_and_tell(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor, state: AgentState
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """As `evaluate`, and [T, B, K] the hints that the memory tells; None without `hint_size`."""
        before = torch.cat([state.action.unsqueeze(0), actions[:-1]])
        rewards_before = torch.cat([state.reward.unsqueeze(0), rewards[:-1]])
        parameters, values, _, outputs = self._forward(obs, before, rewards_before, starts, state)
        told = None if self.hint is None else self.hint(outputs)
        return self.policy.log_prob(parameters, actions), self.policy.entropy(parameters), values, told

    def value(self, obs: Tree, starts: Tensor, state: AgentState) -> Tensor:
        """[B] the value of obs [B, ...], read with the memory `state`."""
        obs = map_tree(lambda x: x.unsqueeze(0), obs)
        before = state.action.unsqueeze(0), state.reward.unsqueeze(0)
        return self._forward(obs, *before, starts.unsqueeze(0), state)[1].squeeze(0)

    @torch.no_grad()
    def predict(
        self,
        obs: Any,
        state: AgentState | None = None,
        episode_start: Any = False,
        deterministic: bool = True,
    ) -> tuple[Any, AgentState]:
        """Act on NumPy observations, one or a batch of them, as SB3's `predict` does.

        Args:
            obs: an element of `observation_space`, or a batch of them; a dictionary may hold more keys.
            state: what the last call returned; None begins afresh.
            episode_start: true, or [B] bool, where `obs` is the first of an episode.
            deterministic: the most likely action rather than a drawn one.

        Returns:
            the action (without a batch axis if `obs` had none) and the next state.
        """
        tensors, single = self._to_tensors(obs)
        batch_size = next(iter(tensors.values())).shape[0] if isinstance(tensors, dict) else tensors.shape[0]
        state = self.initial_state(batch_size) if state is None else state
        starts = torch.as_tensor(episode_start, device=self.device).bool().expand(batch_size)
        action, _, _, state = self.act(tensors, starts, state, deterministic=deterministic)
        numbers = action.cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            numbers = np.clip(numbers, self.action_space.low, self.action_space.high)
        return (numbers[0] if single else numbers), state

    def config(self) -> dict[str, Any]:
        """Everything needed to build this agent again, as JSON; see `from_config`."""
        return {
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "core": self.core_name,
            "core_options": self.core_options,
            "features": self.features,
            "hidden_size": self.hidden_size,
            "critic_memory": self.critic_memory,
            "previous_action": self.previous_action,
            "previous_reward": self.previous_reward,
            "skip": self.skip,
            "hint_size": self.hint_size,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ActorCritic:
        """An untrained agent of the shape that `config` describes."""
        options = dict(config)
        observation_space = space_from_json(options.pop("observation_space"))
        action_space = space_from_json(options.pop("action_space"))
        return cls(observation_space, action_space, **options)

    def _forward(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor, state: AgentState
    ) -> tuple[Tensor, Tensor, AgentState, Tensor]:
        """Sequences [T, B, ...] -> policy parameters [T, B, P], values [T, B], state after them, and
        [T, B, H] the core's outputs."""
        x = self.encoder(obs)
        if self.previous_action:
            encoded = self.policy.encode(actions)
            x = torch.cat([x, torch.where(starts.unsqueeze(-1), 0.0, encoded)], dim=-1)
        if self.previous_reward:
            x = torch.cat([x, torch.where(starts, 0.0, rewards).unsqueeze(-1)], dim=-1)
        outputs, memory = self.core.unroll(x, state.memory, starts)
        read = torch.cat([outputs, x], dim=-1) if self.skip else outputs
        critic, critic_memory = read, state.critic_memory
        if self.critic_core is not None:
            critic, critic_memory = self.critic_core.unroll(x, state.critic_memory, starts)
            critic = torch.cat([critic, x], dim=-1) if self.skip else critic
        elif self.critic_memory == "none":
            critic = x
        parameters = self.policy(self.policy_hidden(read))
        values = self.value_head(self.value_hidden(critic)).squeeze(-1)
        return parameters, values, state._replace(memory=memory, critic_memory=critic_memory), outputs

    def _to_tensors(self, obs: Any) -> tuple[Tree, bool]:
        """NumPy observations as tensors with a batch axis, and whether they had none."""
        if isinstance(self.observation_space, spaces.Dict):
            parts = {
                key: (torch.as_tensor(np.asarray(obs[key]), device=self.device), space)
                for key, space in self.observation_space.spaces.items()
            }
            single = all(x.ndim == len(space.shape or ()) for x, space in parts.values())
            return {key: x.unsqueeze(0) if single else x for key, (x, _) in parts.items()}, single
        x = torch.as_tensor(np.asarray(obs), device=self.device)
        single = x.ndim == len(self.observation_space.shape or ())
        return (x.unsqueeze(0) if single else x), single


def _hidden(input_size: int, hidden_size: int) -> nn.Sequential:
    linear = nn.Linear(input_size, hidden_size)
    nn.init.orthogonal_(linear.weight, gain=math.sqrt(2))
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.Tanh())

"""Actor-critic agent: encoder -> memory core -> policy and value heads.

Axes: T time, B batch, H output of the core, K auxiliary targets. Acting is a sequence of one step, so that
acting and training run the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.agent.arguments import as_rows, as_tensors, require_state
from rmc_agents.agent.clock import Clock
from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.entities import SET_BY_AGENT, cell_size_of, entity_options
from rmc_agents.agent.heads import NO_MASKS, CategoricalHead, make_action_head
from rmc_agents.agent.native_heads import native_weights
from rmc_agents.agent.normalization import Total, of_this_process
from rmc_agents.agent.observation_table import EncodedTable, ObservationTable
from rmc_agents.agent.reconstruction import Decoder
from rmc_agents.cores import MemoryCore, State, make_core
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.cores.kernels import heads_native
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.unchanged import has_hooks, replaces
from rmc_agents.options import Options
from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.description import NOT_RECONSTRUCTED, describe
from rmc_agents.spaces.masks import ActionMasks, choice_sizes
from rmc_agents.spaces.plain import Actions, Observations
from rmc_agents.spaces.reading import named_parts, with_readings
from rmc_agents.spaces.serialization import space_from_json, space_to_json
from rmc_agents.tree import Tree, leaves, map_tree


class AgentState(NamedTuple):
    """State of an agent between steps."""

    memory: State
    """State of the memory core."""
    critic_memory: State | None
    """State of the critic's own core, if it has one."""
    action: Tensor
    """[B, *action] the previous action; read only by agents with `previous_action` or `action_persistence`
    (`AgentConfig.keeps_action`)."""
    reward: Tensor
    """[B] the previous reward, filled in by the caller; read only by agents with `previous_reward`."""
    step: Tensor | None = None
    """[B] number of the next step in its episode, modulo `clock`, of agents with one."""


class ActionEvaluation(NamedTuple):
    """An agent's evaluation of a recorded sequence."""

    log_probs: Tensor
    """[T, B] log-probabilities of the recorded actions, in nats."""
    entropies: Tensor
    """[T, B] of the policy, in nats."""
    values: Tensor
    """[T, B]."""
    aux_predictions: Tensor | None
    """[T, B, K] predictions of the auxiliary targets; None without any."""
    reconstruction_errors: Tensor | None
    """[T, B] of the observations; None for agents without `reconstruct`."""
    memory_outputs: Tensor
    """[T, B, H] of the memory core."""
    parameters: Tensor
    """[T, B, P] of the policy's distribution, restricted to the actions that were allowed."""


class Reading(NamedTuple):
    """What the heads read of a sequence."""

    outputs: Tensor
    """[T, B, H] of the core."""
    features: Tensor | IndexedInputs
    """[T, B, I] the core's inputs."""
    critic_outputs: Tensor | None
    """[T, B, H] of the critic's own core, if it has one."""
    state: AgentState
    """After the last step."""


class NativeHeads(NamedTuple):
    """Arguments of the heads in C; see `cores.kernels.heads_native`."""

    inputs: heads_native.Inputs
    sizes: list[int]
    """Number of values of each component of an action."""
    ids: Tensor | None
    """[T, B] the row of the features that each step reads; None where each has its own."""


class NetworkOutput(NamedTuple):
    """Output of encoder, core and heads for a sequence."""

    parameters: Tensor
    """[T, B, P] parameters of the action distribution."""
    values: Tensor
    """[T, B]."""
    state: AgentState
    """After the last step."""
    memory_output: Tensor
    """[T, B, H]."""


Networks = Callable[[Tree, Tensor, Tensor, Tensor, AgentState], NetworkOutput]
"""Observations, previous actions, previous rewards, episode starts (all [T, B, ...]) and a state ->
output."""


Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Turns networks, or a part of them, into networks that compute the same in another way."""


class ActorCritic(nn.Module):
    """A policy and a value function with a memory.

    `predict` takes and returns members of the environment's own spaces. The other methods compute with
    tensors of the plain spaces `observation_space` and `action_space` (see `rmc_agents.spaces.plain`), in
    which a `Tuple` has become a flat `Dict`, floats are float32 and integers count from 0.

    Args:
        observation_space: the space of one environment's observation. `rmc_agents.describe` says how it is
            read.
        action_space: the space of one environment's action.
        core: a name in `rmc_agents.cores.CORES`.
        core_options: keyword arguments of the core; the rest keep their defaults.
        aux_size: K, the number of auxiliary targets that a linear layer on the memory predicts in training; 0
            for no such layer.
        options: the other fields of `AgentConfig` by name, such as `hidden_size=128`.

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
        aux_size: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(aux_size, int) or aux_size < 0:
            raise ValueError(f"aux_size must be a whole number of at least 0, got {aux_size!r}")
        core_options = dict(core_options or {})
        self.config = config = AgentConfig(core=core, core_options=dict(core_options), **options)
        self.observations, self.actions = Observations(observation_space), Actions(action_space)
        self.observation_space = with_readings(self.observations.plain, config.read_as)
        self.action_space = self.actions.plain
        self.aux_size = aux_size

        cell_size = cell_size_of(config)
        self.encoder = Encoder(
            self.observation_space,
            config.features,
            config.normalize_observations,
            cell_size,
            config.cell_names,
            config.cell_neighbours,
        )
        probe = make_action_head(1, self.action_space)
        more = config.previous_action * probe.encoding_size + config.previous_reward + config.start_flag
        more += config.clock
        self.entities: dict[str, int] = {}  # what the core has to know of the cells in its input
        if self.encoder.num_cells:
            self.entities = entity_options(config, self.encoder.num_cells, more)
            if given := sorted(core_options.keys() & {*SET_BY_AGENT, *self.entities}):
                raise ValueError(
                    f"{', '.join(given)} of core {core}: set by the agent, which feeds the core the cells of "
                    "the observation; leave it out, or feed no cells, with cell_size=0"
                )
            core_options |= self.entities
        elif config.cell_size:
            raise ValueError(
                f"cell_size={cell_size}: no part of the observation is read as a grid of codes; read one so, "
                "as with read_as={'image': 'codes'}, or leave out cell_size"
            )
        elif config.cell_names or config.cell_neighbours:
            raise ValueError(
                "cell_names and cell_neighbours need cells that are fed to the core: a core that reads "
                "entities, such as entity_delta, a part of the observation that is read as codes, and a "
                "cell_size other than 0"
            )
        core_input = self.encoder.output_size + more
        self.clock = Clock(config.clock) if config.clock else None
        self.core: MemoryCore = make_core(core, core_input, core_options)
        self.critic_core = (
            make_core(core, core_input, core_options) if config.critic_memory == "separate" else None
        )
        policy_input = self.core.output_size + config.skip * core_input
        critic_input = core_input if config.critic_memory == "none" else policy_input
        self.policy_hidden = _hidden(policy_input, config.hidden_size)
        self.policy = make_action_head(
            config.hidden_size,
            self.action_space,
            config.scale_actions,
            config.action_persistence,
            config.log_std_init,
        )
        self.value_hidden = _hidden(critic_input, config.hidden_size)
        self.value_head = nn.Linear(config.hidden_size, 1)
        nn.init.orthogonal_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.aux_head = nn.Linear(self.core.output_size, aux_size) if aux_size else None
        self.decoder = None  # drawn last, so that the other weights are the same without it
        if config.reconstruct:
            self.decoder = Decoder(
                self.observation_space, self.encoder, self.core.output_size, config.features
            )
        self._wrappers: list[Wrapper] = []
        self._networks: Networks = self.run_networks
        self._encode_table: Callable[[], Tensor] = self.encoder.encode_table

    @classmethod
    def from_config(
        cls,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        config: AgentConfig,
        aux_size: int = 0,
    ) -> ActorCritic:
        """Build an untrained agent from its options."""
        return cls(observation_space, action_space, aux_size=aux_size, **vars(config))

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> ActorCritic:
        """Build the untrained agent that `to_json` described; other keys are ignored."""
        agent = cls.from_config(
            space_from_json(description["observation_space"]),
            space_from_json(description["action_space"]),
            AgentConfig(**description["agent"]),
            description["aux_size"],
        )
        own = description.get("own_spaces")
        if own is not None:
            agent.use_spaces(space_from_json(own["observation"]), space_from_json(own["action"]))
        return agent

    def to_json(self) -> dict[str, Any]:
        """Describe this agent for config.json: everything that `from_json` needs."""
        described = {
            "agent": asdict(self.config),
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "aux_size": self.aux_size,
        }
        own = self.observations.space, self.actions.space
        if own != (self.observation_space, self.action_space):
            described["own_spaces"] = {"observation": space_to_json(own[0]), "action": space_to_json(own[1])}
        return described

    def use_spaces(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Let `predict` take and return members of these spaces, whose plain spaces are the agent's.

        A trainer calls it with the spaces of the environments in which the agent is trained.

        Raises:
            ValueError: their plain spaces differ from the agent's.
        """
        observations, actions = Observations(observation_space), Actions(action_space)
        for name, own, given in (
            ("observation_space", self.observation_space, observations.plain),
            ("action_space", self.action_space, actions.plain),
        ):
            if own != given:
                raise ValueError(f"{name} of agent and environment differ: {own}, {given}")
        self.observations, self.actions = observations, actions

    def use_action_masks(self) -> None:
        """Record that the agent is trained with action masks.

        A trainer calls it where the environments give masks and `action_masks` is not "ignore".

        Raises:
            ValueError: masks cannot restrict actions of this kind.
        """
        if choice_sizes(self.action_space) is None:
            raise ValueError(NO_MASKS)
        self.config = replace(self.config, action_masks="use")

    def use_observation_table(self, table: Tree) -> None:
        """Accept `ObservationIds` in place of observations, as rows of a table; it is not saved.

        A trainer calls it with the table of the environments in which the agent is trained.

        Args:
            table: all distinct observations, [n, ...]; None for no table.

        Raises:
            ValueError: they are no observations of the agent's space.
        """
        self.encoder.use_table(None if table is None else ObservationTable(self.observation_space, table))

    def update_statistics(self, obs: Tree, counted: Tensor, total: Total = of_this_process) -> None:
        """Add observations to the running statistics of an agent with `normalize_observations`.

        A trainer calls it after it has learned from a rollout, so that experience is collected and learned
        with the same statistics.

        Args:
            obs: [T, B, ...].
            counted: [T, B] bool, false for filler steps.
            total: sums over all processes that train together.
        """
        if self.config.normalize_observations:
            self.encoder.update_statistics(obs, counted, total)

    @torch.no_grad()
    def encode_ahead(self, lookups: int) -> EncodedTable:
        """Encode the observation table now, for many calls of `act` and `value` with the same weights.

        Args:
            lookups: number of observations that will be looked up; a table of more rows is not encoded.

        Returns:
            a function that turns `ObservationIds` into their features, which `act` and `value` take as `obs`.
            It returns other observations as they are. Drop it before the weights change.
        """
        table = self.encoder.table
        return EncodedTable(None if table is None or table.num_rows > lookups else self._encode_table())

    def describe(self) -> str:
        """Describe how observations are read and actions are chosen; see `rmc_agents.describe`."""
        parts = named_parts(self.observation_space)
        readings = {key: part.read_as for key, part in parts.items() if isinstance(part, AnnotatedBox)}
        lines = [describe(self.observations.space, self.actions.space, readings)]
        if self.decoder is not None:
            lines.append(f"reconstructed from the memory: {', '.join(self.decoder.reconstructed)}")
            lines += [f"{key}: {NOT_RECONSTRUCTED}" for key in self.decoder.left_out]
        return "\n".join(lines)

    @property
    def core_name(self) -> str:
        """Name of the memory core, as in `CORES`."""
        return self.config.core

    @property
    def core_options(self) -> Options:
        """Options that the memory core was built with."""
        return self.config.core_options

    @property
    def device(self) -> torch.device:
        return self.value_head.weight.device

    def initial_state(self, batch_size: int) -> AgentState:
        """Return the state before the first step of an episode, for `batch_size` rows."""
        action = torch.zeros(
            batch_size, *self.policy.action_shape, dtype=self.policy.action_dtype, device=self.device
        )
        critic = self.critic_core.initial_state(batch_size) if self.critic_core is not None else None
        zeros = torch.zeros(batch_size, device=self.device)
        step = None if self.clock is None else zeros
        return AgentState(self.core.initial_state(batch_size), critic, action, zeros, step)

    def act(
        self,
        obs: Tree,
        episode_starts: Tensor,
        state: AgentState,
        generator: torch.Generator | None = None,
        deterministic: bool = False,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, AgentState]:
        """Choose an action for one step.

        Args:
            obs: [B, ...].
            episode_starts: [B] bool, true where `obs` is the first observation of an episode.
            state: from the previous step, or `initial_state`.
            generator: source of the random draws.
            deterministic: choose the most likely action instead of drawing one.
            action_masks: [B, P] bool, true where a choice is allowed; None allows all.

        Returns:
            actions [B, ...], their log-probabilities [B], values [B], and the next state. Its `reward` is
            still the previous one: replace it once the environment has answered.
        """
        obs, actions = map_tree(lambda x: x.unsqueeze(0), obs), state.action.unsqueeze(0)
        step = obs, actions, state.reward.unsqueeze(0), episode_starts.unsqueeze(0), state
        in_torch = action_masks is not None or torch.is_grad_enabled()
        native = None if in_torch else self._read_natively(*step)
        if native is not None:
            (inputs, sizes, _), reading = native
            noise = None
            if not deterministic:
                noise = inputs.outputs.new_empty(len(inputs.outputs), sum(sizes))
                noise.exponential_(generator=generator)
            chosen, log_prob, values = heads_native.act(inputs, noise, sizes)
            action = chosen.view(-1, *self.policy.action_shape)
            return action, log_prob, values, reading.state._replace(action=action)
        output = self._networks(*step)
        parameters = output.parameters.squeeze(0)
        if action_masks is not None:
            parameters = self.policy.restrict(parameters, action_masks)
        action = self.policy.mode(parameters) if deterministic else self.policy.sample(parameters, generator)
        log_prob = self.policy.log_prob(parameters, action)
        return action, log_prob, output.values.squeeze(0), output.state._replace(action=action)

    def evaluate_actions(
        self,
        obs: Tree,
        actions: Tensor,
        rewards: Tensor,
        episode_starts: Tensor,
        state: AgentState,
        action_masks: Tensor | None = None,
    ) -> ActionEvaluation:
        """Evaluate a recorded sequence with the current weights.

        Args:
            obs: [T, B, ...].
            actions: [T, B, ...] the recorded actions.
            rewards: [T, B] the rewards that followed them; step t reads `rewards[t - 1]`, if the agent reads
                rewards at all.
            episode_starts: [T, B] bool, true where an episode starts.
            state: the state before the first step, as stored when the sequence was recorded.
            action_masks: [T, B, P] bool, those with which the actions were chosen; None if all were allowed.
        """
        previous = self._previous(actions, rewards, state)
        output = self._networks(obs, *previous, episode_starts, state)
        parameters = output.parameters
        if action_masks is not None:
            parameters = self.policy.restrict(parameters, action_masks)
        return ActionEvaluation(
            self.policy.log_prob(parameters, actions),
            self.policy.entropy(parameters),
            output.values,
            None if self.aux_head is None else self.aux_head(output.memory_output),
            None if self.decoder is None else self.decoder(output.memory_output, obs, self.encoder),
            output.memory_output,
            parameters,
        )

    def read_for_native_heads(
        self, obs: Tree, actions: Tensor, rewards: Tensor, episode_starts: Tensor, state: AgentState
    ) -> tuple[NativeHeads, Tensor | None] | None:
        """Read a recorded sequence for heads in C; return None if only `evaluate_actions` can evaluate it.

        Arguments are those of `evaluate_actions`, without action masks, which these heads do not know.

        Returns:
            the heads' arguments, for T * B rows, and the predictions [T, B, K] of auxiliary targets.
        """
        if self.decoder is not None:
            return None
        native = self._read_natively(obs, *self._previous(actions, rewards, state), episode_starts, state)
        if native is None:
            return None
        heads, reading = native
        return heads, None if self.aux_head is None else self.aux_head(reading.outputs)

    def value(self, obs: Tree, episode_starts: Tensor, state: AgentState) -> Tensor:
        """Return the values [B] of `obs` [B, ...], read with the memory in `state`."""
        obs = map_tree(lambda x: x.unsqueeze(0), obs)
        previous = state.action.unsqueeze(0), state.reward.unsqueeze(0)
        return self._networks(obs, *previous, episode_starts.unsqueeze(0), state).values.squeeze(0)

    @torch.no_grad()
    def predict(
        self,
        obs: Any,
        state: AgentState | None = None,
        episode_start: Any = False,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
        reward: Any = None,
        action_masks: Any = None,
    ) -> tuple[Any, AgentState]:
        """Act on one observation of the environment's own space, or on a batch, as SB3's `predict` does.

        Args:
            obs: a member of the environment's observation space, or a batch of them; a dictionary may hold
                further keys.
            state: returned by the previous call; None starts with a fresh memory.
            episode_start: true, or [B] bool, where `obs` is the first observation of an episode.
            deterministic: choose the most likely action instead of drawing one.
            generator: source of the random draws; torch's global one if None.
            reward: [B] or a number, the reward that came with `obs`; it replaces the one in `state`. Agents
                with `previous_reward` need it after the first step of an episode; the others ignore it.
            action_masks: which actions the environment allows, as it says itself (`info["action_mask"]` or
                `env.action_masks()`; see `rmc_agents.spaces.masks.ActionMasks`), or a batch of them; None
                allows all.

        Returns:
            a member of the environment's action space (a batch of them if `obs` was a batch), and the next
            state.

        Raises:
            ValueError: an argument that does not fit; the message names it.
        """
        arrays, single = self.observations.read(obs)
        tensors = as_tensors(arrays, self.device)
        batch_size = next(leaves(tensors)).shape[0]
        starts = as_rows("episode_start", episode_start, batch_size, self.device) != 0
        if state is None:
            state, starts = self.initial_state(batch_size), torch.ones_like(starts)
        require_state(state, self.initial_state(batch_size), batch_size)
        if reward is not None:
            state = state._replace(reward=as_rows("reward", reward, batch_size, self.device))
        if self.config.previous_reward and torch.isnan(state.reward[~starts]).any():
            raise ValueError(
                "this agent reads the previous reward: pass the reward that came with obs as reward=..."
            )
        masks = self._read_masks(action_masks, batch_size, single)
        action, _, _, state = self.act(tensors, starts, state, generator, deterministic, masks)
        # Not a number until the caller says what reward the environment answered.
        state = state._replace(reward=torch.full_like(state.reward, torch.nan))
        batch = self.actions.batch(action.cpu().numpy())
        return (self.actions.member(batch) if single else batch), state

    def _read_masks(self, masks: Any, batch_size: int, single: bool) -> Tensor | None:
        """Return the masks that `predict` was given, [B, P]."""
        if masks is None:
            return None
        array = ActionMasks(self.actions.space).read(masks, None if single else batch_size)
        return torch.as_tensor(array, device=self.device).reshape(batch_size, -1)

    def wrap_networks(self, wrapper: Wrapper) -> None:
        """Replace the function that runs encoder, core and heads by `wrapper` of it.

        Acting, evaluating and valuing all go through that one function: `acceleration.accelerate` compiles
        it.
        """
        self._wrappers.append(wrapper)
        self._networks, self._encode_table = wrapper(self._networks), wrapper(self._encode_table)

    @property
    def networks(self) -> str:
        """How the networks run: "float32", or the names of their wrappers, such as "compiled bf16"."""
        names = [getattr(wrapper, "name", type(wrapper).__name__) for wrapper in self._wrappers]
        return ", ".join(names) or "float32"

    @property
    def runs_as_built(self) -> bool:
        """Whether nothing wraps the networks."""
        return not self._wrappers

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the wrapped networks: they belong to this agent, and a copy needs its own."""
        wrapped = ("_networks", "_encode_table")
        return {name: value for name, value in self.__dict__.items() if name not in wrapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._networks, self._encode_table = self.run_networks, self.encoder.encode_table
        for wrapper in self._wrappers:
            self._networks, self._encode_table = wrapper(self._networks), wrapper(self._encode_table)

    def run_networks(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor, state: AgentState
    ) -> NetworkOutput:
        """Run encoder, core and heads on a sequence; see `Networks`."""
        reading, skip = self._read(obs, actions, rewards, starts, state), self.config.skip
        outputs, x, critic_outputs, after = reading
        x = x.gather() if isinstance(x, IndexedInputs) else x
        policy_input = critic_input = torch.cat([outputs, x], dim=-1) if skip else outputs
        if critic_outputs is not None:
            critic_input = torch.cat([critic_outputs, x], dim=-1) if skip else critic_outputs
        elif self.config.critic_memory == "none":
            critic_input = x
        parameters = self.policy(self.policy_hidden(policy_input))
        if self.config.action_persistence:
            parameters = self.policy.persist(parameters, actions, starts)
        values = self.value_head(self.value_hidden(critic_input)).squeeze(-1)
        return NetworkOutput(parameters, values, after, outputs)

    def _read_natively(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor, state: AgentState
    ) -> tuple[NativeHeads, Reading] | None:
        """Run encoder and core for heads in C; return None if the networks can only run as a whole."""
        policy, config = self.policy, self.config
        if self._wrappers or config.critic_memory != "shared" or not isinstance(policy, CategoricalHead):
            return None
        if config.action_persistence:
            return None
        if replaces(self, ActorCritic, "run_networks"):
            return None
        weights = native_weights(self.policy_hidden, policy, self.value_hidden, self.value_head)
        if weights is None:
            return None
        reading = self._read(obs, actions, rewards, starts, state)
        features, ids = reading.features, None
        if not self.config.skip:
            features = None
        elif isinstance(features, IndexedInputs):
            features, ids = features
        else:
            features = features.flatten(0, 1)
        inputs = heads_native.Inputs(reading.outputs.flatten(0, 1), features, *weights)
        if not heads_native.usable(inputs, policy.sizes, ids):
            return None
        return NativeHeads(inputs, policy.sizes, ids), reading

    def _previous(self, actions: Tensor, rewards: Tensor, state: AgentState) -> tuple[Tensor, Tensor]:
        """Return the previous action and reward of each recorded step, shifted if the agent reads them."""
        config = self.config
        if config.keeps_action:
            actions = torch.cat([state.action.unsqueeze(0), actions[:-1]])
        if config.previous_reward:
            rewards = torch.cat([state.reward.unsqueeze(0), rewards[:-1]])
        return actions, rewards

    def _read(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor, state: AgentState
    ) -> Reading:
        """Run encoder and core on a sequence."""
        x, step = self.core_inputs(obs, actions, rewards, starts), state.step
        if self.clock is not None:
            assert isinstance(x, Tensor)  # since `reads_more`
            assert step is not None
            steps = self.clock.read(step, starts)
            x, step = torch.cat([x, self.clock(steps)], dim=-1), self.clock.advance(steps[-1])
        outputs, memory = _unroll(self.core, x, state.memory, starts)
        critic_outputs, critic_memory = None, state.critic_memory
        if self.critic_core is not None:
            critic_outputs, critic_memory = _unroll(self.critic_core, x, state.critic_memory, starts)
        after = state._replace(memory=memory, critic_memory=critic_memory, step=step)
        return Reading(outputs, x, critic_outputs, after)

    def core_inputs(
        self, obs: Tree, actions: Tensor, rewards: Tensor, starts: Tensor
    ) -> Tensor | IndexedInputs:
        """Return the core's inputs; those of equal observations once, where core and heads gain by it."""
        encoder, config = self.encoder, self.config
        if config.reads_more:
            x = [encoder(obs)]
            if config.previous_action:
                x.append(torch.where(starts.unsqueeze(-1), 0.0, self.policy.encode(actions)))
            if config.previous_reward:
                x.append(torch.where(starts, 0.0, rewards).unsqueeze(-1))
            if config.start_flag:
                x.append(starts.unsqueeze(-1).to(x[0].dtype))
            return torch.cat(x, dim=-1)
        if not torch.is_grad_enabled() or type(encoder) is not Encoder or has_hooks(encoder):
            return encoder(obs)
        features = encoder.encode_distinct(obs)
        if isinstance(features, Tensor):
            return features
        (rows, ids), device = features, features.rows.device
        if device.type != "cpu" or not eager(device) or 2 * len(rows) > ids.numel():
            return features.gather()
        return IndexedInputs(rows, ids.int())


def _unroll(
    core: MemoryCore, inputs: Tensor | IndexedInputs, state: State, starts: Tensor
) -> tuple[Tensor, State]:
    unroll: Any = core.unroll_indexed if isinstance(inputs, IndexedInputs) else core.unroll
    return unroll(inputs, state, starts)


def _hidden(input_size: int, hidden_size: int) -> nn.Sequential:
    linear = nn.Linear(input_size, hidden_size)
    nn.init.orthogonal_(linear.weight, gain=math.sqrt(2))
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.Tanh())

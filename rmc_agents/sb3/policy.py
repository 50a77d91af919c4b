"""Policy for sb3-contrib's `RecurrentPPO` with a memory core instead of an LSTM.

Axes: T time, B batch, D features, H output of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from rmc_agents import cores
from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.errors import shown
from rmc_agents.sb3.exchange import copy_from_agent, copy_to_agent
from rmc_agents.sb3.features import EncoderExtractor
from rmc_agents.sb3.packing import PackedCore, PackedState
from rmc_agents.sb3.text import install_text_filter
from rmc_agents.spaces.text import ids_of_texts

# RecurrentPPO(RMCPolicy, "MiniGrid-...") makes the environment before it uses the policy; see text.py.
install_text_filter()


class RMCPolicy(RecurrentActorCriticPolicy):
    """An actor-critic with a relational memory, or any other memory core, for sb3-contrib's `RecurrentPPO`.

    `RecurrentPPO(RMCPolicy, env, policy_kwargs=dict(num_slots=4, head_size=16, num_heads=4))`. It reads
    vectors, images, MiniGrid's symbolic images and dictionaries of them, so `RMCCnnPolicy` and
    `RMCMultiInputPolicy` are aliases of it.

    Args:
        observation_space: space of one observation, as SB3 wrapped the environment; how its parts are read
            can be set by `features_extractor_kwargs=dict(read_as=...)`, as in `rmc_agents.AgentConfig`.
        action_space: Discrete or MultiDiscrete that count from 0, MultiBinary or Box.
        lr_schedule: training progress left (1 to 0) -> learning rate.
        net_arch: layers between the memory and the actions or the value; None for one layer of 64 units each,
            as in `rmc_agents.ActorCritic`.
        core: a name in `rmc_agents.cores.CORES`: "rmc", "gru", "lstm", ...
        shared_lstm: the critic reads the actor's memory and does not train it; needs
            `enable_critic_lstm=False`.
        enable_critic_lstm: the critic has a memory core of its own. If `shared_lstm` is False too, the critic
            has no memory and reads the current observation only.
        skip: let the heads read the current features besides the memory's output, so that reactions need not
            pass through the memory.
        core_options: keyword arguments of the core; options that are not given keep their defaults.

    The other arguments are those of `MlpLstmPolicy`.

    Raises:
        ValueError: an unknown core or option, or an invalid value; the message lists the choices.
    """

    lstm_actor: PackedCore  # type: ignore[assignment]
    lstm_critic: PackedCore | None  # type: ignore[assignment]
    critic: nn.Module | None

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] = EncoderExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        core: str = "rmc",
        shared_lstm: bool = False,
        enable_critic_lstm: bool = True,
        skip: bool = True,
        **core_options: Any,
    ) -> None:
        _check_options(core, core_options, shared_lstm, enable_critic_lstm, share_features_extractor)
        _check_actions(action_space)
        self.core_name, self.core_options = core, core_options
        self.shared_lstm, self.enable_critic_lstm, self.skip = shared_lstm, enable_critic_lstm, skip
        features_extractor_kwargs = dict(features_extractor_kwargs or {})
        if issubclass(features_extractor_class, EncoderExtractor):
            features_extractor_kwargs["normalize_images"] = normalize_images
        # Skip the parent's constructor, which would build LSTMs; only its methods are needed.
        super(RecurrentActorCriticPolicy, self).__init__(
            observation_space,
            action_space,
            lr_schedule,
            {"pi": [64], "vf": [64]} if net_arch is None else net_arch,
            activation_fn,
            ortho_init,
            use_sde,
            log_std_init,
            full_std,
            use_expln,
            squash_output,
            features_extractor_class,
            features_extractor_kwargs,
            share_features_extractor,
            normalize_images,
            optimizer_class,
            optimizer_kwargs,
        )
        self.lstm_hidden_state_shape = (self.lstm_actor.num_layers, 1, self.lstm_actor.hidden_size)

    def to_agent(self, observation_space: spaces.Space[Any] | None = None) -> ActorCritic:
        """Return an `ActorCritic` with a copy of this policy's weights.

        Args:
            observation_space: space of one observation; None for the policy's, with MiniGrid's symbolic
                images channels last again.

        Raises:
            ValueError: an `ActorCritic` cannot have some part of this policy; the message names each.
        """
        return copy_to_agent(self, observation_space)

    def load_agent(self, agent: ActorCritic) -> None:
        """Copy an agent's weights into this policy; `policy_kwargs_for(agent)` makes a policy that they fit.

        Raises:
            ValueError: agent and policy differ in their options or shapes; the message says in which.
        """
        copy_from_agent(self, agent)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights, all of them even if not `strict`.

        SB3's `load` falls back to what fits, and would leave the rest of the network as it was drawn.

        Raises:
            ValueError: the weights belong to a policy of other options or spaces.
        """
        try:
            found = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:  # other shapes
            raise _other_policy(str(error).splitlines()[-1].strip()) from error
        if found.missing_keys or found.unexpected_keys:
            raise _other_policy(", ".join([*found.missing_keys, *found.unexpected_keys]))
        return found

    def _build(self, lr_schedule: Schedule) -> None:
        """Build the memories before SB3 builds its layers and the optimizer, so that it holds them all."""

        def memory() -> PackedCore:
            core = cores.make_core(self.core_name, self.features_dim, self.core_options)
            return PackedCore(core, self.skip)

        self.lstm_actor = memory()
        self.lstm_critic = memory() if self.enable_critic_lstm else None
        self.critic = None if self.enable_critic_lstm or self.shared_lstm else nn.Identity()
        self.lstm_output_dim = self.lstm_actor.output_size
        encoders = [
            x
            for x in (self.pi_features_extractor, self.vf_features_extractor)
            if isinstance(x, EncoderExtractor)
        ]
        initial = [{k: v.clone() for k, v in encoder.state_dict().items()} for encoder in encoders]
        super()._build(lr_schedule)
        # SB3 has initialised every layer of the encoder as orthogonal, even embeddings; undo that.
        for encoder, parameters in zip(encoders, initial, strict=True):
            encoder.load_state_dict(parameters)

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        if self.critic is not None:  # the critic reads features instead of a memory
            head = MlpExtractor(self.features_dim, self.net_arch, self.activation_fn, self.device)
            self.mlp_extractor.value_net = head.value_net
            self.mlp_extractor.latent_dim_vf = head.latent_dim_vf

    @staticmethod
    def _process_sequence(  # type: ignore[override]
        features: Tensor, lstm_states: PackedState, episode_starts: Tensor, lstm: nn.Module
    ) -> tuple[Tensor, PackedState]:
        """Run a memory over a sequence, in one call of the core's `unroll` instead of the parent's loop.

        Args:
            features: [B * T, D], the T steps of a row one after the other.
            lstm_states: states before the first step.
            episode_starts: [B * T], not 0 where an episode starts.
            lstm: a `PackedCore`.

        Returns:
            outputs [B * T, H] and the states after the last step.
        """
        batch = lstm_states[0].shape[1]
        inputs = features.unflatten(0, (batch, -1)).swapaxes(0, 1)
        starts = episode_starts.reshape(batch, -1).swapaxes(0, 1) > 0
        outputs, states = lstm(inputs, lstm_states, starts)
        return outputs.swapaxes(0, 1).flatten(0, 1), states

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, log-probabilities and entropies [B * T] of a recorded sequence."""
        if isinstance(self.action_space, spaces.MultiBinary):
            # sb3-contrib's buffer stores them as int8, which the distribution rejects (as of 2.9).
            actions = actions.float()
        return super().evaluate_actions(obs, actions, lstm_states, episode_starts)  # type: ignore[arg-type]

    def obs_to_tensor(self, observation: NDArray[Any] | dict[str, NDArray[Any]]) -> tuple[PyTorchObs, bool]:
        """Convert observations as SB3 does, and texts; ignore keys that the policy does not read."""
        if isinstance(observation, dict) and isinstance(self.observation_space, spaces.Dict):
            observation = {key: observation[key] for key in self.observation_space.spaces}
            observation = ids_of_texts(self.observation_space, observation)
        return super().obs_to_tensor(observation)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.share_features_extractor,
            "core": self.core_name,
            "shared_lstm": self.shared_lstm,
            "enable_critic_lstm": self.enable_critic_lstm,
            "skip": self.skip,
            **self.core_options,
        }


RMCCnnPolicy = RMCPolicy
RMCMultiInputPolicy = RMCPolicy


def _other_policy(differences: str) -> ValueError:
    return ValueError(
        f"the weights belong to another policy ({shown(differences)}). Models of older versions may read "
        "observations in another way: load them with custom_objects=dict(policy_kwargs=dict(..., "
        "features_extractor_kwargs=dict(read_as=...)))"
    )


def _check_actions(space: spaces.Space[Any]) -> None:
    # SB3's buffer would cut the policy's numbers to integers.
    integers = isinstance(space, spaces.Box) and np.dtype(space.dtype).kind != "f"
    axes = 0 if isinstance(space, spaces.Discrete) else 1
    if np.any(getattr(space, "start", 0)) or len(space.shape or ()) != axes or integers:
        raise ValueError(
            f"SB3 cannot learn actions in {space}: it expects Discrete or MultiDiscrete that count from 0, "
            "MultiBinary or a Box of floats, in one dimension; wrap the environment, or use "
            "rmc_agents.sb3.BatchedVecEnv(rmc_envs.make(...))"
        )


def _check_options(
    core: str,
    core_options: dict[str, Any],
    shared_lstm: bool,
    enable_critic_lstm: bool,
    share_features_extractor: bool,
) -> None:
    for name in ("lstm_hidden_size", "n_lstm_layers", "lstm_kwargs"):
        if name in core_options and core in cores.CORES:
            choices = ", ".join(cores.core_options(core))
            raise ValueError(f"{name} is an option of MlpLstmPolicy; core {core!r} has instead: {choices}")
    if shared_lstm and enable_critic_lstm:
        raise ValueError(
            "shared_lstm=True and enable_critic_lstm=True: the critic reads either the actor's memory or "
            "one of its own; set one of the two to False"
        )
    if shared_lstm and not share_features_extractor:
        raise ValueError(
            "shared_lstm=True needs share_features_extractor=True, because one memory has one input"
        )

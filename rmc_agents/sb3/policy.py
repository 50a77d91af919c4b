"""sb3-contrib's recurrent policy with a memory of ours where its LSTM was."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from rmc_agents import cores
from rmc_agents.actor_critic import ActorCritic
from rmc_agents.sb3 import exchange
from rmc_agents.sb3.features import EncoderExtractor
from rmc_agents.sb3.packing import PackedCore, PackedState


class RMCPolicy(RecurrentActorCriticPolicy):
    """An actor-critic with a relational memory, or any other, for sb3-contrib's `RecurrentPPO`.

    `RecurrentPPO(RMCPolicy, env, policy_kwargs=dict(num_slots=4, head_size=16, num_heads=4))`. It takes
    vectors, pictures, MiniGrid's symbolic images and dictionaries of them: `RMCCnnPolicy` and
    `RMCMultiInputPolicy` are other names for it.

    Args:
        observation_space: of one environment, as SB3 wrapped it.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        lr_schedule: training progress left (1 to 0) -> learning rate.
        net_arch: layers after the memory; None for one of 64 units for each of actor and critic, as in
            `rmc_agents.ActorCritic`.
        core: a name in `rmc_agents.cores.CORES`: "rmc", "gru", "lstm", ...
        shared_lstm: the critic reads the actor's memory, without training it (then
            `enable_critic_lstm` must be False).
        enable_critic_lstm: the critic has a memory of its own. If both are False it has none, and
            sees the present observation only.
        skip: let the heads read the present features beside the memory, as our own agents do, so that
            reactions need not go through it.
        core_options: the core's own, by keyword; what is left out keeps its default.

    The other arguments are those of `MlpLstmPolicy`.

    Raises:
        ValueError: an unknown core or option, or a value the core refuses; the message lists the choices.
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
        _check(core, core_options, shared_lstm, enable_critic_lstm, share_features_extractor)
        self.core_name, self.core_options = core, core_options
        self.shared_lstm, self.enable_critic_lstm, self.skip = shared_lstm, enable_critic_lstm, skip
        features_extractor_kwargs = dict(features_extractor_kwargs or {})
        if issubclass(features_extractor_class, EncoderExtractor):
            features_extractor_kwargs["normalize_images"] = normalize_images
        # Past the parent, which would build its LSTMs; its methods are all we want of it.
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
        """This policy as an agent of ours, its weights copied.

        Args:
            observation_space: of one environment; by default the policy's, MiniGrid's symbolic images
                channels last again.

        Raises:
            ValueError: the policy has a part that our agents lack; the message names each.
        """
        return exchange.to_agent(self, observation_space)

    def load_agent(self, agent: ActorCritic) -> None:
        """Copy an agent's weights; `policy_kwargs_for(agent)` makes a policy that they fit.

        Raises:
            ValueError: agent and policy differ in shape; the message says in what.
        """
        exchange.load_agent(self, agent)

    def _build(self, lr_schedule: Schedule) -> None:
        """Build the memories, then what SB3 builds, whose optimizer so holds everything."""

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
        # SB3 has made every layer orthogonal, embeddings too; the encoder knows better.
        for encoder, parameters in zip(encoders, initial, strict=True):
            encoder.load_state_dict(parameters)

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        if self.critic is not None:  # the critic reads features, not a memory
            head = MlpExtractor(self.features_dim, self.net_arch, self.activation_fn, self.device)
            self.mlp_extractor.value_net = head.value_net
            self.mlp_extractor.latent_dim_vf = head.latent_dim_vf

    @staticmethod
    def _process_sequence(  # type: ignore[override]
        features: Tensor, lstm_states: PackedState, episode_starts: Tensor, lstm: nn.Module
    ) -> tuple[Tensor, PackedState]:
        """features [B * T, D], states before them, starts [B * T] -> outputs [B * T, H], states after.

        The parent's loop over time is the core's `unroll` here, once for the whole sequence.
        """
        batch = lstm_states[0].shape[1]
        inputs = features.unflatten(0, (batch, -1)).swapaxes(0, 1)
        starts = episode_starts.reshape(batch, -1).swapaxes(0, 1) > 0
        outputs, states = lstm(inputs, lstm_states, starts)
        return outputs.swapaxes(0, 1).flatten(0, 1), states

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probabilities and entropies of a recorded sequence."""
        if isinstance(self.action_space, spaces.MultiBinary):
            # sb3-contrib's buffer keeps them as int8, which the distribution refuses (as of 2.9).
            actions = actions.float()
        return super().evaluate_actions(obs, actions, lstm_states, episode_starts)  # type: ignore[arg-type]

    def obs_to_tensor(self, observation: NDArray[Any] | dict[str, NDArray[Any]]) -> tuple[PyTorchObs, bool]:
        """As in SB3; a dictionary may hold more, MiniGrid's mission say, than the policy reads."""
        if isinstance(observation, dict) and isinstance(self.observation_space, spaces.Dict):
            observation = {key: observation[key] for key in self.observation_space.spaces}
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


def _check(
    core: str,
    core_options: dict[str, Any],
    shared_lstm: bool,
    enable_critic_lstm: bool,
    share_features_extractor: bool,
) -> None:
    for name in ("lstm_hidden_size", "n_lstm_layers", "lstm_kwargs"):
        if name in core_options:
            choices = ", ".join(cores.core_options(core)) if core in cores.CORES else "those of a known core"
            raise ValueError(f"{name} is MlpLstmPolicy's; core {core!r} has instead: {choices}")
    if shared_lstm and enable_critic_lstm:
        raise ValueError(
            "shared_lstm=True and enable_critic_lstm=True: the critic reads either the actor's memory or "
            "its own; set one of them to False"
        )
    if shared_lstm and not share_features_extractor:
        raise ValueError("shared_lstm=True needs share_features_extractor=True: one memory reads one input")

"""Proximal policy optimisation (Schulman et al. 2017) on chunks of sequences, as pure functions of tensors.

Axes: T steps of a rollout, B environments, L steps of a chunk, C chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.heads_native import LossSettings
from rmc_agents.environment import AuxiliaryTargets
from rmc_agents.options import require_ranges, require_types
from rmc_agents.rl.native_loss import native_losses
from rmc_agents.rl.rollout import Chunks
from rmc_agents.rl.terms import LossTerms
from rmc_agents.training.auxiliary import auxiliary_loss
from rmc_agents.training.processes import Processes


@dataclass(frozen=True)
class PPOConfig:
    """PPO: budget, rollouts, optimiser and loss."""

    total_steps: int = 1_000_000
    """Environment steps of the whole run, over all environments."""
    num_steps: int = 128
    """Steps of each environment per rollout."""
    bptt_length: int = 16
    """Steps that gradients flow back through. Rollouts are split into chunks of this length, each starting
    with the memory that was stored when it was collected. Must divide num_steps."""
    minibatch_size: int = 512
    """Transitions per minibatch: a multiple of bptt_length that divides num_envs * num_steps. Memory tasks
    need many small updates rather than many samples."""
    epochs: int = 4
    """Passes over each rollout."""
    learning_rate: float = 3e-4
    """Adam's learning rate at the start."""
    learning_rate_end: float = 0.0
    """Adam's learning rate at the end of the run; linear in between."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_range: float = 0.2
    """Clip range of the probability ratio around 1."""
    clip_range_value: float | None = None
    """Clip range of the value around its old value, in the value loss; None does not clip."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus at the start."""
    entropy_coef_end: float = 0.01
    """Weight of the entropy bonus at the end of the run; linear in between."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    aux_coef: float = 0.0
    """Weight of the auxiliary loss: a linear layer on the memory learns to predict the task's auxiliary
    targets (rmc/NthFarthest-v0 has some). 0 for no such layer."""
    reconstruction_coef: float = 0.0
    """Weight of the reconstruction loss of an agent with --reconstruct; 0.1 in Memory Gym (Pleines et al.
    2024)."""
    memory_change_coef: float = 0.0
    """Weight of the mean squared change of the memory core's output from one step of an episode to the next
    (temporal activation regularization; Merity et al. 2017). It keeps a memory from changing where nothing
    has to be remembered, also in observations that training never showed: 0.1 in the study of memory mazes.
    The first step of each --bptt-length steps has no previous one. Updates are slower, since the loss is not
    computed in C."""
    teacher_coef: float = 0.0
    """Weight of the KL divergence of the policy from the task's teacher, which says at each step what a good
    player would do there (rmc/BoxWorldViewport-v0 has one): imitation in the states that the agent itself
    comes to, beside PPO's loss (DAgger, Ross et al. 2011; kickstarting, Schmitt et al. 2018). Updates are
    slower, since the loss is not computed in C."""
    max_grad_norm: float = 0.5
    """Largest norm of the gradient; longer ones are scaled down to it."""
    normalize_advantage: bool = True
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""
    wait_for_signal: bool = False
    """Teach the policy nothing until rewards tell actions apart: until two rewards of the run differed, or an
    episode with rewards other than 0 terminated. Until then, advantages are nothing but errors of the critic,
    and following them takes from exploration. The critic, and what it shares with the policy, learn
    meanwhile; and a teacher teaches the policy."""
    normalize_rewards: bool = False
    """Learn from rewards divided by the running standard deviation of the discounted return. Logged returns
    stay those of the environment."""
    target_kl: float | None = None
    """Skip the remaining epochs of an iteration once the KL divergence exceeds 1.5 times this, in nats."""

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("total_steps", "num_steps", "bptt_length", "minibatch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_range", "max_grad_norm", "adam_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("learning_rate_end", *_COEFFICIENTS):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("target_kl", "clip_range_value"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive or None, got {getattr(self, name)}")
        require_ranges(self, _RANGES)
        if self.num_steps % self.bptt_length:
            raise ValueError(
                f"bptt_length must divide num_steps, got bptt_length={self.bptt_length} and "
                f"num_steps={self.num_steps}"
            )
        if self.minibatch_size % self.bptt_length:
            raise ValueError(
                f"minibatch_size must be a multiple of bptt_length (a minibatch is whole chunks), got "
                f"minibatch_size={self.minibatch_size} and bptt_length={self.bptt_length}"
            )

    def check_num_envs(self, num_envs: int) -> None:
        """Raise ValueError unless minibatches divide the rollout of `num_envs` environments."""
        steps = num_envs * self.num_steps
        if steps % self.minibatch_size:
            raise ValueError(
                f"minibatch_size must divide num_envs * num_steps, got minibatch_size={self.minibatch_size} "
                f"and {num_envs} * {self.num_steps} = {steps}; "
                f"minibatch_size={_largest_fit(steps, self)} would fit"
            )

    def share_of(self, processes: int) -> PPOConfig:
        """Return the settings of one of several processes, which divide each minibatch.

        Raises:
            ValueError: they cannot divide it into whole chunks.
        """
        if self.minibatch_size % (processes * self.bptt_length):
            raise ValueError(
                f"minibatch_size={self.minibatch_size} cannot be divided among {processes} processes: "
                f"expected a multiple of {processes} * bptt_length = {processes * self.bptt_length}"
            )
        return self if processes == 1 else replace(self, minibatch_size=self.minibatch_size // processes)

    @property
    def in_pytorch_only(self) -> bool:
        """Whether the loss has terms that the library in C does not compute."""
        return self.memory_change_coef > 0 or self.teacher_coef > 0

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate after `progress` (0 to 1) of the run."""
        return self.learning_rate + (self.learning_rate_end - self.learning_rate) * min(progress, 1.0)

    def entropy_coef_at(self, progress: float) -> float:
        """Return the weight of the entropy bonus after `progress` (0 to 1) of the run."""
        return self.entropy_coef + (self.entropy_coef_end - self.entropy_coef) * min(progress, 1.0)


_COEFFICIENTS = (
    *("entropy_coef", "entropy_coef_end", "value_coef", "aux_coef", "reconstruction_coef"),
    *("memory_change_coef", "teacher_coef"),
)
_RANGES = {
    "total_steps": (1, 10**15),
    **dict.fromkeys(("num_steps", "bptt_length", "minibatch_size", "epochs"), (1, 10**15)),
    **dict.fromkeys(("learning_rate", "learning_rate_end"), (0, 1)),
    # Below this, Adam divides by 0 in float32.
    "adam_eps": (1e-20, 1),
    **dict.fromkeys(("clip_range", "clip_range_value", "max_grad_norm"), (0, 1e9)),
    **dict.fromkeys((*_COEFFICIENTS, "target_kl"), (0, 1e6)),
}
"""Ranges beyond which training cannot end well."""


def _largest_fit(steps: int, config: PPOConfig) -> int:
    sizes = range(config.bptt_length, min(steps, config.minibatch_size) + 1, config.bptt_length)
    return next((size for size in reversed(sizes) if steps % size == 0), config.bptt_length)


def gae(
    *,
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    final_values: Tensor,
    last_value: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

        delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}

    where V_{t+1} is 0 after a termination and the value of the final observation after a truncation. No
    advantage crosses the end of an episode.

    Args:
        rewards, values, terminated, truncated: [T, B].
        final_values: [T, B] value of each step's final observation; read only where truncated.
        last_value: [B] value of the observation after the last step.
        gamma, gae_lambda: between 0 and 1.

    Returns:
        advantages [T, B].

    Raises:
        ValueError: the shapes do not agree, such as [B, T] instead of [T, B].
    """
    sequences = {
        "rewards": rewards,
        "values": values,
        "terminated": terminated,
        "truncated": truncated,
        "final_values": final_values,
    }
    shape = (rewards.shape[0], *last_value.shape)
    wrong = [f"{name} {list(x.shape)}" for name, x in sequences.items() if x.shape != shape]
    if last_value.ndim != 1 or wrong:
        raise ValueError(
            f"gae expects [T, B] sequences and last_value [B], got {', '.join(wrong) or 'sequences'} with "
            f"last_value {list(last_value.shape)}"
        )
    following = torch.cat([values[1:], last_value.unsqueeze(0)])
    following = torch.where(truncated, final_values, following)
    following = torch.where(terminated, 0.0, following)
    deltas = rewards + gamma * following - values
    decay = torch.where(terminated | truncated, 0.0, gamma * gae_lambda)
    advantage = torch.zeros_like(last_value)
    advantages = []
    for delta, factor in zip(reversed(deltas.unbind(0)), reversed(decay.unbind(0)), strict=True):
        advantage = torch.addcmul(delta, factor, advantage)
        advantages.append(advantage)
    return torch.stack(advantages[::-1])


class Metrics(NamedTuple):
    """Figures of an update, each a scalar on the device."""

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    """Mean entropy of the policy, in nats."""
    approx_kl: Tensor
    """Mean of (r - 1) - log r, an estimate of KL(old, new) in nats (Schulman 2020)."""
    clip_fraction: Tensor
    """Share of transitions whose ratio was clipped."""
    aux_loss: Tensor
    """Mean squared error of the auxiliary targets; 0 without any."""
    reconstruction_loss: Tensor
    """Mean error of the reconstructed observations; 0 for agents without `reconstruct`."""
    memory_change: Tensor
    """Mean squared change of the core's output between steps; 0 without `memory_change_coef`."""
    divergence: Tensor
    """Mean KL(teacher, policy), in nats; 0 without `teacher_coef`."""
    grad_norm: Tensor
    """Norm of the gradient before it was scaled down."""
    loss: Tensor


class Normalization(NamedTuple):
    """Sums over a minibatch that several processes divide, each a scalar on the device."""

    transitions: Tensor
    """Number of transitions that are no filler."""
    mean: Tensor
    """Mean of the advantages."""
    std: Tensor
    """Standard deviation of the advantages."""
    aux_weight: Tensor
    """Sum of the auxiliary targets' weights."""


def normalizations(chunks: Chunks, order: Tensor, processes: Processes) -> list[Normalization]:
    """Return the sums over each minibatch of an epoch, of all processes.

    Args:
        chunks: the rollout of this process.
        order: [M, c] the chunks of each minibatch.
        processes: add their sums.
    """
    valid = chunks.valid.double()
    advantages = chunks.advantages.double() * valid
    sums = [valid, advantages, advantages * chunks.advantages]
    if chunks.aux_targets is not None:
        sums.append((chunks.aux_targets.weights * chunks.valid.unsqueeze(-1)).double().sum(-1))
    else:
        sums.append(torch.zeros_like(valid))
    per_chunk = torch.stack([x.sum(0) for x in sums])  # [4, C]
    count, total, squares, aux_weight = processes.sum(per_chunk[:, order].sum(2))  # [M] each
    mean = total / count.clamp_min(1)
    std = (squares / count.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    rows = (x.to(chunks.advantages.dtype).unbind(0) for x in (count, mean, std, aux_weight))
    return [Normalization(*row) for row in zip(*rows, strict=True)]


def ppo_loss(
    agent: ActorCritic,
    batch: Chunks,
    config: PPOConfig,
    entropy_coef: float | Tensor,
    normalization: Normalization | None = None,
) -> tuple[Tensor, Metrics]:
    """Return the loss of a minibatch of chunks, and its metrics.

        loss = policy_loss + value_coef value_loss - entropy_coef entropy + aux_coef aux_loss
            + reconstruction_coef reconstruction_loss + memory_change_coef memory_change
            + teacher_coef KL(teacher, policy)
        policy_loss = -mean(min(A r, A clip(r, 1 - clip_range, 1 + clip_range))),  r = p_new / p_old

    Filler steps (`valid` false) have no weight. The `grad_norm` of the metrics is 0: the optimizer knows it.

    Args:
        agent: the agent.
        batch: a minibatch, or one process's part of it.
        config: PPO's settings.
        entropy_coef: weight of the entropy bonus.
        normalization: if `batch` is a part, the sums over the whole minibatch; losses and gradients are then
            the part's share, and their sum over the processes is that of the whole minibatch.

    Raises:
        ValueError: the chunks' tensors are not all [L, C].
    """
    shape = batch.starts.shape
    names = ("rewards", "log_probs", "values", "advantages", "returns", "valid")
    wrong = [
        f"{name} {list(getattr(batch, name).shape)}" for name in names if getattr(batch, name).shape != shape
    ]
    if wrong:
        raise ValueError(f"ppo_loss expects [L, C] = {list(shape)} as of starts, got {', '.join(wrong)}")
    native, device = None, batch.starts.device
    on_cpu = device.type == "cpu" and eager(device)  # elsewhere, reading coefficients makes the host wait
    if on_cpu and not config.in_pytorch_only:
        native = native_losses(agent, batch, loss_settings(config, entropy_coef, normalization))
    results = native or losses(agent, batch, config, entropy_coef, normalization)
    loss, figures, terms = results
    zero = torch.zeros_like(figures[0])
    aux_loss = zero
    if terms.aux_predictions is not None and batch.aux_targets is not None:
        weights = batch.aux_targets.weights * batch.valid.unsqueeze(-1)
        total = None if normalization is None else normalization.aux_weight
        targets = AuxiliaryTargets(batch.aux_targets.values, weights)
        aux_loss = auxiliary_loss(terms.aux_predictions, targets, total)
        loss = loss + config.aux_coef * aux_loss
    coefs = config.reconstruction_coef, config.memory_change_coef, config.teacher_coef
    for coef, term in zip(coefs, terms[1:], strict=True):
        if term is not None:
            loss = loss + coef * term
    parts = aux_loss, *(zero if term is None else term for term in terms[1:]), zero, loss
    return loss, Metrics._make([*figures[:5], *(x.detach() for x in parts)])


def loss_settings(
    config: PPOConfig, entropy_coef: float | Tensor, normalization: Normalization | None
) -> LossSettings:
    """Return the coefficients of the loss as numbers."""
    settings = LossSettings(
        clip_low=1 - config.clip_range,
        clip_high=1 + config.clip_range,
        clip_value=math.inf if config.clip_range_value is None else config.clip_range_value,
        value_coef=config.value_coef,
        entropy_coef=float(entropy_coef),
        normalize=float(config.normalize_advantage),
    )
    if normalization is None:
        return settings
    count, mean, std, _ = torch.stack(normalization).tolist()
    return settings._replace(num_valid=count, mean=mean, std=std)


def losses(
    agent: ActorCritic,
    batch: Chunks,
    config: PPOConfig,
    entropy_coef: float | Tensor,
    normalization: Normalization | None,
) -> tuple[Tensor, list[Tensor], LossTerms]:
    """Return PPO's own loss, the first five `Metrics`, and what its further terms are made of.

    Arguments are those of `ppo_loss`.
    """
    evaluation = agent.evaluate_actions(
        batch.obs, batch.actions, batch.rewards, batch.starts, batch.state, batch.action_masks
    )
    log_probs, entropy, values = evaluation[:3]
    weight = batch.valid.to(values.dtype)
    count = weight.sum() if normalization is None else normalization.transitions
    weight = weight / count.clamp_min(1)

    def mean(x: Tensor) -> Tensor:
        return (x * weight).sum()

    advantages = batch.advantages
    if config.normalize_advantage and normalization is None:
        centred = advantages - mean(advantages)
        advantages = centred / (mean(centred.square()).sqrt() + 1e-8)
    elif config.normalize_advantage and normalization is not None:
        advantages = (advantages - normalization.mean) / (normalization.std + 1e-8)

    log_ratio = log_probs - batch.log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    policy_loss = -mean(torch.minimum(advantages * ratio, advantages * clipped))

    if config.clip_range_value is not None:
        change = (values - batch.values).clamp(-config.clip_range_value, config.clip_range_value)
        values = batch.values + change
    value_loss = mean((values - batch.returns).square())

    mean_entropy = mean(entropy)
    loss = policy_loss + config.value_coef * value_loss - entropy_coef * mean_entropy
    with torch.no_grad():
        approx_kl = mean(ratio - 1 - log_ratio)
        clip_fraction = mean((clipped != ratio).to(weight.dtype))
    figures = policy_loss, value_loss, mean_entropy, approx_kl, clip_fraction
    errors, outputs = evaluation.reconstruction_errors, evaluation.memory_outputs
    terms = LossTerms(
        evaluation.aux_predictions,
        None if errors is None else mean(errors),
        mean(squared_change(outputs, batch.starts)) if config.memory_change_coef else None,
    )
    if batch.advice is not None:
        apart = agent.policy.divergence(evaluation.parameters, batch.advice)
        terms = terms._replace(divergence=mean(apart))
    return loss, [x.detach() for x in figures], terms


def squared_change(outputs: Tensor, starts: Tensor) -> Tensor:
    """Return the mean squared change of a core's outputs since the step before, [T, B].

    It is 0 at the first step of a chunk, whose previous output is not known, and where an episode starts.

    Args:
        outputs: [T, B, H].
        starts: [T, B] bool.
    """
    change = (outputs[1:] - outputs[:-1]).square().mean(-1).masked_fill(starts[1:], 0.0)
    return torch.cat([change.new_zeros(1, starts.shape[1]), change])


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one."""
    return 1 - (returns - values).var() / returns.var().clamp_min(1e-12)

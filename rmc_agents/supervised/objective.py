"""Supervised objective: examples, settings and loss, as functions of tensors.

Axes: T time, B batch, D input size, K auxiliary targets, C classes, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmc_agents.environment import AuxiliaryTargets
from rmc_agents.options import require_ranges, require_types
from rmc_agents.supervised.classifier import SequenceClassifier
from rmc_agents.supervised.muon import Muon, Orthogonalization, check_precision
from rmc_agents.training.auxiliary import auxiliary_loss
from rmc_agents.training.processes import ALONE, Processes


class Examples(NamedTuple):
    """A batch of sequences with their answers."""

    inputs: Tensor
    """[T, B, D]."""
    targets: Tensor
    """[T, B] int64 right class at each step; the last step's is the answer that counts."""
    answerable: Tensor
    """[T, B] bool: there is a right class at that step. True at the last step."""
    groups: Tensor
    """[B] int64 kind of question, from 0; accuracy is reported per group."""
    aux_targets: Tensor
    """[T, B, K] numbers that a linear layer on the core's output is trained to predict; K may be 0."""
    aux_weights: Tensor
    """[T, B, K] weight of each of them in the loss; 0 where there is nothing to predict."""


class Task(Protocol):
    """A source of examples, in levels of rising difficulty; the last level is the task itself."""

    num_levels: int
    num_groups: int

    def draw(self, batch_size: int, level: int, generator: torch.Generator) -> Examples:
        """Draw a batch of fresh examples of a level."""
        ...


@dataclass(frozen=True)
class SupervisedConfig:
    """Supervised training: budget, optimisers and loss."""

    total_samples: int = 6_000_000
    """Number of training sequences; each is used once."""
    minutes: float | None = None
    """Stop after this many minutes of training, if the samples are not used up by then. The learning rate
    follows whichever limit is nearer; only runs without this limit are reproducible bit for bit."""
    batch_size: int = 256
    """Sequences per update."""
    muon_lr: float = 0.005
    """Learning rate of Muon, for the inner matrices; 0 leaves them to Adam."""
    orthogonalization: Orthogonalization = "float32"
    """Precision in which Muon orthogonalises. bfloat16 is about 30 times slower on CPUs that do not support
    it, and faster on others."""
    adam_lr: float = 1e-3
    """Learning rate of Adam, for all other parameters."""
    warmup_updates: int = 100
    """Updates over which the learning rates grow from 0."""
    decay_share: float = 0.6
    """Share of the budget, at its end, over which the learning rates fall to 0."""
    max_grad_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    extra_steps: int = 1
    """Further random steps per batch at which the answer is asked."""
    aux_coef: float = 20.0
    """Weight of the auxiliary loss; 0 for none."""
    average_updates: int = 0
    """Evaluate, and save, a running mean of the weights over about this many updates (such as 400): it shows
    what a lower learning rate would give. 0 uses the newest weights."""
    aux_until: float = 1.0
    """Auxiliary losses and extra steps end after this share of the budget; then only the answers are
    trained."""
    test_every: int = 100_000
    """Samples between two tests on the task itself, without auxiliary losses, always on the same held-out
    questions."""
    promote_at: float = 0.6
    """Accuracy over the last 100 batches or so at which the next level starts."""
    levels_share: float = 0.5
    """Share of the budget after which the last level starts in any case."""

    def __post_init__(self) -> None:
        require_types(self)
        positive = {n: getattr(self, n) for n in ("total_samples", "batch_size", "test_every")}
        positive |= {"minutes": 1.0 if self.minutes is None else self.minutes}
        bad = [f"{name}={value}" for name, value in positive.items() if not value > 0]
        rates = ("muon_lr", "adam_lr", "max_grad_norm", "aux_coef")
        counts = ("warmup_updates", "average_updates", "extra_steps")
        bad += [f"{n}={getattr(self, n)}" for n in rates + counts if not 0 <= getattr(self, n) < math.inf]
        shares = ("decay_share", "aux_until", "promote_at", "levels_share")
        bad += [f"{n}={getattr(self, n)}" for n in shares if not 0 <= getattr(self, n) <= 1]
        check_precision(self.orthogonalization)
        if bad:
            raise ValueError(
                f"{', '.join(bad)}: expected budgets above 0, rates and counts of 0 or more, shares of 0 to 1"
            )
        require_ranges(self, _RANGES)

    def share_in_mean(self, updates: int) -> float:
        """Return the newest weights' share in the running mean: 1 / `average_updates`, more at first."""
        return 1 / min(self.average_updates, 1 + updates / 10)

    def rate_at(self, progress: float, updates: int) -> float:
        """Return the factor of the learning rates after `progress` (0 to 1) of the budget."""
        decay = min(1.0, (1 - progress) / self.decay_share) if self.decay_share else 1.0
        return max(decay, 0.0) * min(1.0, (updates + 1) / max(self.warmup_updates, 1))


_RANGES = {
    **dict.fromkeys(("total_samples", "test_every"), (1, 10**15)),
    **dict.fromkeys(("batch_size", "extra_steps"), (0, 2**24)),
    **dict.fromkeys(("warmup_updates", "average_updates"), (0, 10**9)),
    **dict.fromkeys(("muon_lr", "adam_lr"), (0, 1)),
    **dict.fromkeys(("max_grad_norm", "minutes"), (0, 1e9)),
    "aux_coef": (0, 1e6),
}
"""Ranges beyond which training cannot end well."""


def make_optimizers(model: SequenceClassifier, config: SupervisedConfig) -> list[torch.optim.Optimizer]:
    """Return Adam, and Muon for the inner matrices if it has a learning rate."""
    matrices = model.matrices() if config.muon_lr else []
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=config.adam_lr)]
    if matrices:
        optimizers.append(Muon(matrices, config.muon_lr, orthogonalization=config.orthogonalization))
    return optimizers


@torch.no_grad()
def average(mean: SequenceClassifier, newest: SequenceClassifier, share: float) -> None:
    """Move each weight of `mean` towards that of `newest` by `share` of the difference."""
    for kept, new in zip(mean.parameters(), newest.parameters(), strict=True):
        kept.lerp_(new, share)


@torch.no_grad()
def count_right(
    model: SequenceClassifier,
    task: Task,
    samples: int,
    generator: torch.Generator,
    batch_size: int = 2000,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return [2, G] numbers of right answers and of all answers, to fresh examples of the last level.

    `progress` is called after each batch with the number of examples so far.
    """
    counts = torch.zeros(2, task.num_groups, device=model.device)
    last = torch.tensor([-1], device=model.device)
    for first in range(0, samples, batch_size):
        size = min(batch_size, samples - first)
        examples = task.draw(size, task.num_levels - 1, generator)
        answers = model(examples.inputs, last).logits[0].argmax(-1)
        accumulate(counts, examples.groups, (answers == examples.targets[-1]).float())
        if progress is not None:
            progress(first + size)
    return counts


def accumulate(counts: Tensor, groups: Tensor, right: Tensor) -> None:
    """Add a batch to `counts` [2, G]: groups [B], and 1 where the answer is right [B]."""
    counts[0].index_add_(0, groups, right)
    counts[1].index_add_(0, groups, torch.ones_like(right))


def loss(
    model: SequenceClassifier,
    examples: Examples,
    config: SupervisedConfig,
    generator: torch.Generator,
    auxiliary: bool,
    processes: Processes = ALONE,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses by name, and [B] 1 where the last answer is right, else 0.

    "loss" is the cross-entropy of the last answer; with `auxiliary` also that of the answers at `extra_steps`
    other steps, and the weighted squared error of the auxiliary targets. Several processes have equal parts
    of a batch; the sum of their losses is that of the batch.
    """
    T, B = examples.targets.shape
    extra = min(config.extra_steps, T - 1) if auxiliary else 0
    others = torch.randperm(T - 1, generator=generator, device=model.device)[:extra]
    steps = torch.cat([others, others.new_tensor([T - 1])])
    outputs, logits = model(examples.inputs, steps)
    targets, counted = examples.targets[steps], examples.answerable[steps]
    errors = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(-1, B) * counted
    losses = {"answer_loss": errors[-1].mean(), "loss": errors.sum(0).mean()}
    losses = {name: value / processes.size for name, value in losses.items()}
    if auxiliary and model.aux_head is not None and config.aux_coef:
        targets_and_weights = AuxiliaryTargets(examples.aux_targets, examples.aux_weights)
        total = processes.sum(examples.aux_weights.sum())
        losses["aux_loss"] = auxiliary_loss(model.aux_head(outputs), targets_and_weights, total)
        losses["loss"] = losses["loss"] + config.aux_coef * losses["aux_loss"]
    return losses, (logits[-1].argmax(-1) == targets[-1]).float()

"""Learning from examples, as mathematics: what an example is, how to learn from it, the loss.

Axes: T time, B batch, D input size, K hints, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmc_agents.classifier import SequenceClassifier
from rmc_agents.hints import Hints, hint_loss


class Examples(NamedTuple):
    """A batch of sequences and what is to be said of them."""

    inputs: Tensor
    """[T, B, D]."""
    targets: Tensor
    """[T, B] int64 the right class at each step; the last one's is the answer that counts."""
    answerable: Tensor
    """[T, B] bool: there is a right class at that step. True at the last."""
    groups: Tensor
    """[B] int64 what kind of question it is, from 0; accuracy is told by group."""
    hints: Tensor
    """[T, B, K] numbers that a linear layer on the core's output shall tell while training; K may be 0."""
    hint_weights: Tensor
    """[T, B, K] how much each of them matters; 0 where there is nothing to tell."""


class Task(Protocol):
    """Where examples come from, at levels of which the last is the task itself."""

    num_levels: int
    num_groups: int

    def draw(self, batch_size: int, level: int, generator: torch.Generator) -> Examples: ...


@dataclass(frozen=True)
class SupervisedConfig:
    """How to learn from examples."""

    total_samples: int = 6_000_000
    """Sequences to learn from; fresh ones always."""
    minutes: float | None = None
    """Stop after that many minutes of training, if the samples are not used up by then. The learning rate
    follows whichever is nearer to its end; only runs without this limit are the same bit for bit."""
    batch_size: int = 256
    """Sequences an update."""
    muon_lr: float = 0.005
    """Learning rate of Muon, for the inner matrices; 0 gives them to Adam."""
    adam_lr: float = 1e-3
    """Learning rate of Adam, for all else."""
    warmup_updates: int = 100
    """Updates in which the learning rates grow from 0."""
    decay_share: float = 0.6
    """The last share of the budget, in which the learning rates fall to 0."""
    max_grad_norm: float = 0.0
    """Cut gradients to that norm; 0 leaves them."""
    extra_steps: int = 1
    """At how many steps beside the last an answer is asked, drawn anew for each batch."""
    hint_weight: float = 20.0
    """Weight of the hints in the loss; 0 for none."""
    average_updates: int = 0
    """Test, and keep, the mean of the weights over about that many updates (400, say): it tells what they
    would be worth if the learning rate fell. 0 takes the newest weights."""
    aids_share: float = 1.0
    """Hints and extra steps end after that share of the budget: what follows is the task alone."""
    test_every: int = 100_000
    """Samples between two looks at the task itself, without aids and always on the same fresh questions."""
    promote_at: float = 0.6
    """The next level begins where that share of the last answers (in about 100 batches) is right."""
    levels_share: float = 0.5
    """After that share of the budget the last level begins, learned or not: it is what counts."""

    def __post_init__(self) -> None:
        positive = {n: getattr(self, n) for n in ("total_samples", "batch_size", "test_every")}
        positive |= {"minutes": 1.0 if self.minutes is None else self.minutes}
        bad = [f"{name}={value}" for name, value in positive.items() if not value > 0]
        rates = ("muon_lr", "adam_lr", "max_grad_norm", "hint_weight")
        counts = ("warmup_updates", "average_updates", "extra_steps")
        bad += [f"{n}={getattr(self, n)}" for n in rates + counts if not 0 <= getattr(self, n) < math.inf]
        shares = ("decay_share", "aids_share", "promote_at", "levels_share")
        bad += [f"{n}={getattr(self, n)}" for n in shares if not 0 <= getattr(self, n) <= 1]
        if bad:
            raise ValueError(
                f"{', '.join(bad)}: expected budgets above 0, rates and counts of 0 or more, shares of 0 to 1"
            )

    def share_in_mean(self, updates: int) -> float:
        """The newest weights' share in their mean: that of 1 in `average_updates`, of fewer at first."""
        return 1 / min(self.average_updates, 1 + updates / 10)

    def rate_at(self, progress: float, updates: int) -> float:
        """What the learning rates are multiplied with, when `progress` of the budget is used."""
        decay = min(1.0, (1 - progress) / self.decay_share) if self.decay_share else 1.0
        return max(decay, 0.0) * min(1.0, (updates + 1) / max(self.warmup_updates, 1))


def make_optimizers(model: SequenceClassifier, config: SupervisedConfig) -> list[torch.optim.Optimizer]:
    """Adam, and Muon for the inner matrices if it has a learning rate."""
    matrices = model.matrices() if config.muon_lr else []
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=config.adam_lr)]
    if matrices:
        # A class of torch from 2.9 on.
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"torch {torch.__version__} has no Muon: say --muon-lr 0, or install torch 2.9")
        optimizers.append(torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.1))
    return optimizers


@torch.no_grad()
def average(mean: SequenceClassifier, newest: SequenceClassifier, share: float) -> None:
    """Move each weight of `mean` towards that of `newest`, by `share` of the way."""
    for kept, new in zip(mean.parameters(), newest.parameters(), strict=True):
        kept.lerp_(new, share)


@torch.no_grad()
def count_right(
    model: SequenceClassifier, task: Task, samples: int, generator: torch.Generator, batch_size: int = 2000
) -> Tensor:
    """[2, G] of that many fresh examples of the last level those answered rightly, and all, by group."""
    counts = torch.zeros(2, task.num_groups, device=model.device)
    last = torch.tensor([-1], device=model.device)
    for first in range(0, samples, batch_size):
        size = min(batch_size, samples - first)
        examples = task.draw(size, task.num_levels - 1, generator)
        answers = model(examples.inputs, last).logits[0].argmax(-1)
        tally(counts, examples.groups, (answers == examples.targets[-1]).float())
    return counts


def tally(counts: Tensor, groups: Tensor, right: Tensor) -> None:
    """Add answers to `counts` [2, G], the right ones and all: of which group [B], and 1 where right [B]."""
    counts[0].index_add_(0, groups, right)
    counts[1].index_add_(0, groups, torch.ones_like(right))


def loss(
    model: SequenceClassifier,
    examples: Examples,
    config: SupervisedConfig,
    generator: torch.Generator,
    aids: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """What training makes small, and [B] 1 where the last answer is right, else 0.

    The cross-entropy of the last answer; with `aids` also that of answers at `extra_steps` other steps, and
    the squared error of the hints.
    """
    T, B = examples.targets.shape
    extra = min(config.extra_steps, T - 1) if aids else 0
    others = torch.randperm(T - 1, generator=generator, device=model.device)[:extra]
    steps = torch.cat([others, others.new_tensor([T - 1])])
    outputs, logits = model(examples.inputs, steps)
    targets, counted = examples.targets[steps], examples.answerable[steps]
    errors = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(-1, B) * counted
    losses = {"answer_loss": errors[-1].mean(), "loss": errors.sum(0).mean()}
    if aids and model.hint is not None and config.hint_weight:
        wrong = hint_loss(model.hint(outputs), Hints(examples.hints, examples.hint_weights))
        losses["hint_loss"] = wrong
        losses["loss"] = losses["loss"] + config.hint_weight * wrong
    return losses, (logits[-1].argmax(-1) == targets[-1]).float()

"""Evaluation of a classifier on fresh examples, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rmc_agents.evaluation.statistics import Interval, wilson
from rmc_agents.supervised.classifier import SequenceClassifier
from rmc_agents.supervised.objective import Task, count_right


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, with Wilson's 95 % interval."""

    right: int
    asked: int

    @property
    def rate(self) -> float | None:
        """None if nothing was asked."""
        return self.right / self.asked if self.asked else None

    @property
    def ci95(self) -> Interval | None:
        """None if nothing was asked."""
        return wilson(self.right, self.asked) if self.asked else None


def evaluate_classifier(
    model: SequenceClassifier,
    task: Task,
    samples: int = 20_000,
    seed: int = 1_000_000,
    progress: Callable[[int], None] | None = None,
) -> list[Accuracy]:
    """Return the accuracy on fresh examples of a task's last level, per group of questions.

    Args:
        model: on the device where the task draws its examples.
        task: the source of examples.
        samples: number of examples.
        seed: fixes them; the default is far from the seeds of training.
        progress: called after each batch with the number of examples so far.
    """
    torch.set_flush_denormal(True)
    generator = torch.Generator(model.device).manual_seed(seed)
    right, asked = count_right(model, task, samples, generator, progress=progress).long().tolist()
    return [Accuracy(r, n) for r, n in zip(right, asked, strict=True)]


def pooled(groups: list[Accuracy]) -> Accuracy:
    """Return the accuracy over all groups together."""
    return Accuracy(sum(each.right for each in groups), sum(each.asked for each in groups))

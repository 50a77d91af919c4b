"""Hints: numbers that a linear layer on the memory shall tell while training, so that they come to be there.

What they are is the task's to say; no policy reads them, and nothing of them is left when training has ended.

Axes: any leading ones; K numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Hints(NamedTuple):
    """What is worth knowing, and where it can be known."""

    values: Tensor
    """[..., K]."""
    weights: Tensor
    """[..., K] how much each of them matters; 0 where there is nothing to tell."""


def hint_loss(told: Tensor, hints: Hints) -> Tensor:
    """The mean squared error of what was told [..., K], by the hints' weights; 0 where none has any."""
    wrong = (told - hints.values).square() * hints.weights
    return wrong.sum() / hints.weights.sum().clamp(min=1)

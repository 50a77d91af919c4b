"""Terms that are added to PPO's own loss."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossTerms(NamedTuple):
    """What the further terms of the loss of a minibatch are made of; None for those without a weight."""

    aux_predictions: Tensor | None = None
    """[L, C, K] of the auxiliary targets."""
    reconstruction: Tensor | None = None
    """Mean error of the reconstructed observations."""
    memory_change: Tensor | None = None
    """Mean squared change of the core's output."""
    divergence: Tensor | None = None
    """Mean KL divergence of the policy from the teacher."""

"""Loss of auxiliary targets: numbers that a linear layer on the memory is trained to predict.

The task chooses the targets. No policy reads the predictions; the layer is not used after training.
"""

from __future__ import annotations

from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets


def auxiliary_loss(predictions: Tensor, targets: AuxiliaryTargets) -> Tensor:
    """Return the weighted mean squared error of predictions [..., K]; 0 if all weights are 0."""
    errors = (predictions - targets.values).square() * targets.weights
    return errors.sum() / targets.weights.sum().clamp(min=1)

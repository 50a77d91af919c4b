"""Loss of auxiliary targets: numbers that a linear layer on the memory is trained to predict.

The task chooses the targets. No policy reads the predictions; the layer is not used after training.
"""

from __future__ import annotations

from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets


def auxiliary_loss(
    predictions: Tensor, targets: AuxiliaryTargets, total_weight: Tensor | None = None
) -> Tensor:
    """Return the weighted mean squared error of predictions [..., K]; 0 if all weights are 0.

    Args:
        predictions: [..., K].
        targets: their targets.
        total_weight: the sum of the weights that the errors are divided by; that of `targets` if None.
    """
    errors = (predictions - targets.values).square() * targets.weights
    total = targets.weights.sum() if total_weight is None else total_weight
    return errors.sum() / total.clamp(min=1)

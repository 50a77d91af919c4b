"""What surrounds each cell of a grid, for cores that read cells as entities.

Axes: `...` any leading axes, H height, W width, E size of a cell's embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DIRECTIONS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
"""Steps from a cell to its eight neighbours."""


class Neighbours(nn.Module):
    """Weighted sums of the embeddings of the eight cells around each cell of a grid.

    Each direction has one learned weight for all numbers of an embedding, so that the sum of a single
    neighbour points where that neighbour's embedding does: what reads embeddings reads sums as well. Nothing
    is beyond the edge of the grid.

    Args:
        height: H.
        width: W.
    """

    steps: Tensor
    """[8, H * W, H * W] 1 from each cell to its neighbour in a direction."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        steps = torch.zeros(len(DIRECTIONS), height, width, height, width)
        for each, (down, right) in zip(steps, DIRECTIONS, strict=True):
            for row in range(max(0, -down), min(height, height - down)):
                for column in range(max(0, -right), min(width, width - right)):
                    each[row, column, row + down, column + right] = 1
        self.register_buffer("steps", steps.flatten(3, 4).flatten(1, 2), persistent=False)
        self.weights = nn.Parameter(0.3 * torch.randn(len(DIRECTIONS)))

    def forward(self, cells: Tensor) -> Tensor:
        """Return the sums [..., H * W, E] around cells [..., H * W, E]."""
        return (self.weights @ self.steps.flatten(1)).view_as(self.steps[0]) @ cells

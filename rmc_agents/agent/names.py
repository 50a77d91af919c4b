"""Names of what cells show: fixed vectors by which a memory tells things apart.

Axes: `...` any leading axes, N size of a name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Names(nn.Module):
    """A fixed vector of length 1 for each combination of codes: the product of random signs of its codes.

    Names of different things are nearly orthogonal, also of those that share a code (the red key and the red
    lock, the red key and the blue key): their similarity is about 1 / sqrt(N). So a memory that stores by
    name mixes nothing up, and need not learn so. Products of random signs bind, as in the
    multiply-add-permute architecture (Gayler 1998): one linear map leads from the names of all keys to those
    of the locks of the same colors. The signs are saved with the weights.

    Args:
        sizes: number of codes of each channel.
        size: N.
    """

    signs: Tensor
    """[sum(sizes), N]."""

    def __init__(self, sizes: Sequence[int], size: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.register_buffer("signs", torch.where(torch.rand(sum(sizes), size) < 0.5, -1.0, 1.0))

    def forward(self, codes: Tensor) -> Tensor:
        """Return the names [..., N] of codes as one-hot vectors of all channels [..., sum(sizes)]."""
        channels = zip(codes.split(self.sizes, dim=-1), self.signs.split(self.sizes), strict=True)
        factors = torch.stack([code @ signs for code, signs in channels])
        return factors.prod(0) * self.signs.shape[1] ** -0.5

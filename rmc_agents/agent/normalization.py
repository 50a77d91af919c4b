"""Normalisation by running statistics: the mean and variance of all numbers seen in training.

The recipe and its constants are those of Stable-Baselines3's `VecNormalize`. Statistics are buffers: they are
saved with the weights, and only `update` changes them.
Axes: `...` any leading axes (time, batch), N samples, n numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8
"""Added to a variance before its root is taken."""
CLIP = 10.0
"""Largest absolute value of a normalised number."""
PRIOR = 1e-4
"""Weight of the initial mean 0 and variance 1, in samples."""

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes that train together."""


def of_this_process(x: Tensor) -> Tensor:
    """Return the sum over a single process."""
    return x


class RunningMoments(nn.Module):
    """Mean and variance of n numbers over all samples so far, combined as by Chan et al. (1979)."""

    count: Tensor
    """int64 number of samples."""
    mean: Tensor
    """[n] float64."""
    var: Tensor
    """[n] float64."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, samples: Tensor, counted: Tensor, total: Total = of_this_process) -> None:
        """Add samples [N, n], of all processes, where `counted` [N] is true."""
        samples = torch.where(counted.unsqueeze(-1), samples.double(), 0.0)
        counts = counted.double().sum().unsqueeze(0)
        sums = total(torch.cat([counts, samples.sum(0)]))
        count, mean = sums[0], sums[1:] / sums[0].clamp_min(1)
        deviations = torch.where(counted.unsqueeze(-1), samples - mean, 0.0)
        squares = total(deviations.square().sum(0))
        before, delta = self.count.double() + PRIOR, mean - self.mean
        after = before + count
        squares = self.var * before + squares + delta.square() * before * count / after
        self.mean.add_(delta * count / after)
        self.var.copy_(squares / after)
        self.count.add_(count.long())

    def scale(self) -> Tensor:
        """Return [n] the factors that make the standard deviation 1."""
        return (self.var + EPSILON).rsqrt()

    def normalize(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, clipped, as float32 [..., n]."""
        return ((x - self.mean) * self.scale()).clamp(-CLIP, CLIP).float()

    @staticmethod
    def require_loadable(values: dict[str, Any]) -> None:
        """Raise ValueError for saved buffers, by name, that are not those of numbers."""
        if any(bool((values[name] < 0).any()) for name in ("count", "var") if name in values):
            raise ValueError("a count or variance is negative")


class NormalizedPart(nn.Module):
    """A part of an observation whose vector is normalised by its running statistics.

    Args:
        part: turns the part into a vector of `part.output_size` numbers; fixed scaling stays, and the
            statistics are those of the scaled numbers.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.output_size: int = part.output_size  # type: ignore[assignment]
        self.moments = RunningMoments(self.output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.moments.normalize(self.part(x))

    def update(self, x: Tensor, counted: Tensor, total: Total) -> None:
        """Add observations [..., *shape] to the statistics where `counted` [...] is true."""
        self.moments.update(self.part(x).flatten(0, -2), counted.flatten(), total)

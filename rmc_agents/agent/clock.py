"""A clock: the number of the step in its episode, as an input of the memory core.

Axes: T time, B batch, P steps of a turn of the clock.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_PERIOD = 1024


class Clock(nn.Module):
    """Waves of the step's number n in its episode: steps [...] -> [..., P].

        cos(2 pi k n / P) for k = 0, 1, ... up to P / 2, and sin(2 pi k n / P) for the k between 0 and P / 2

    The two waves that have no sine beside them, of k = 0 and P / 2, are multiplied by sqrt(1/2), so that the
    waves of two steps are orthogonal unless their numbers are equal modulo P. A memory that is written by
    content, such as a delta memory, can therefore keep the last P steps apart by their waves alone. The waves
    of step n - m, and those of step m - n, are linear in those of step n: a linear layer finds what was m
    steps ago, or goes through what was seen from the last to the first.

    Args:
        period: P.
    """

    waves: Tensor

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        turns = torch.arange(period, dtype=torch.float64) / period
        angles = 2 * math.pi * turns.unsqueeze(1) * torch.arange(period // 2 + 1)
        waves = torch.cat([angles.cos(), angles[:, 1 : (period + 1) // 2].sin()], dim=1)
        waves[:, [0] if period % 2 else [0, period // 2]] *= math.sqrt(0.5)
        self.register_buffer("waves", waves.float(), persistent=False)  # [P, P] by number

    def read(self, first: Tensor, starts: Tensor) -> Tensor:
        """Return the number of each step in its episode modulo P: [T, B].

        Args:
            first: [B] of the first step, if no episode starts there.
            starts: [T, B] bool, true where an episode starts.
        """
        if len(starts) == 1:  # also in ONNX, which has no running maximum
            return torch.where(starts, 0.0, first)
        t = torch.arange(len(starts), device=starts.device, dtype=first.dtype).unsqueeze(1)
        start = torch.where(starts, t, -1.0).cummax(0).values
        return torch.where(start < 0, first + t, t - start) % self.period

    def advance(self, steps: Tensor) -> Tensor:
        """Return the numbers [B] of the steps that follow those of the numbers [B]."""
        return (steps + 1) % self.period

    def forward(self, steps: Tensor) -> Tensor:
        return nn.functional.embedding(steps.long() % self.period, self.waves)

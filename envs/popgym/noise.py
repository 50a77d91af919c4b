"""Noise on observations. Axes: B environments, D numbers."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.errors import shown
from rmc_agents.options import is_number


class Noise:
    """Adds independent normal noise to observations and clips them to their space.

    Args:
        sigma: standard deviation, the same for all numbers.
        space: of one observation [D].
        generator: source of randomness.
        device: of the observations.
    """

    def __init__(
        self, sigma: float, space: spaces.Box, generator: torch.Generator | None, device: torch.device
    ) -> None:
        self.sigma, self.generator = sigma, generator
        self.low, self.high = (torch.from_numpy(bound).to(device) for bound in (space.low, space.high))

    def add(self, obs: Tensor) -> Tensor:
        """Return noisy observations [B, D]."""
        noise = torch.randn(obs.shape, generator=self.generator, device=obs.device)
        return torch.clamp(obs + noise * self.sigma, self.low, self.high)


def require_sigma(name: str, value: object) -> None:
    """Raise ValueError unless a value is a number from 0 to 1000."""
    if is_number(value) and 0 <= value <= 1000:
        return
    raise ValueError(f"{name}={shown(repr(value), 60)}: expected a number from 0 to 1000")

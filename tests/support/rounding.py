"""Rounding errors to allow in comparisons, from the number of terms, their magnitude and their precision.

They hold on every machine: instruction sets and libraries differ in the order of additions only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rounding_error(length: int = 1, magnitude: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """Return the error to allow in a sum of `length` terms, each up to `magnitude`.

    Additions round up and down at random, so errors grow with the square root of the length. The factor 8
    is about five times what occurs.
    """
    return 8 * torch.finfo(dtype).eps * length**0.5 * magnitude


def tolerances(expected: Tensor, length: int = 1) -> dict[str, float]:
    """Return `atol` and `rtol` of a comparison with results that are sums of `length` terms."""
    magnitude = max(1.0, expected.detach().abs().max().item()) if expected.numel() else 1.0
    return {"atol": rounding_error(length, magnitude, expected.dtype), "rtol": 0.0}

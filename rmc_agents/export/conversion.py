"""Conversion between an environment's own spaces and plain spaces, in torch operations that can be exported.

`rmc_agents.spaces.plain` does the same in NumPy, and is what `predict` uses.
Axes: B batch, n numbers of an action.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from rmc_agents.spaces.plain import plain_leaf
from rmc_agents.spaces.reading import read

IN_FLOATS = ("numbers", "raw", "log", "picture", "bits")
"""Readings that compute with floats; all others look up or compare integers."""


class ObservationPart(nn.Module):
    """Values [B, ...] of one part of an observation, in its own space -> [B, ...] in the agent's plain space.

    Texts are given as the ids of their words.

    Args:
        space: the part's own space.
        plain: the part in the agent's observation space, which says how it is read.
    """

    start: Tensor | None

    def __init__(self, space: spaces.Space[Any], plain: spaces.Space[Any]) -> None:
        super().__init__()
        self.dtype = torch_dtype(plain_leaf(space).dtype)
        # As what the encoder converts them to anyway: ONNX has few operations on small integers.
        self.read_dtype = torch.float32 if read(plain).kind in IN_FLOATS else torch.int64
        self.register_buffer("start", _start(space))

    def forward(self, values: Tensor) -> Tensor:
        values = values.to(self.dtype)
        return (values if self.start is None else values - self.start).to(self.read_dtype)


class ActionPart(nn.Module):
    """Numbers [B, n] of one part of plain actions -> members [B, ...] of the part's own space, clipped.

    Args:
        space: the part's own space.
    """

    low: Tensor
    high: Tensor
    start: Tensor | None

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.shape = space.shape or ()
        self.size = math.prod(self.shape)
        self.dtype = torch_dtype(space.dtype)
        self.is_box = isinstance(space, spaces.Box)
        self.is_whole = np.dtype(space.dtype).kind in "biu"  # type: ignore[arg-type]
        if isinstance(space, spaces.Box):
            low, high = _inner_bounds(space)
            self.register_buffer("low", torch.tensor(low))
            self.register_buffer("high", torch.tensor(high))
        else:
            self.register_buffer("start", _start(space))

    def forward(self, numbers: Tensor) -> Tensor:
        actions = numbers.reshape(-1, *self.shape)
        if not self.is_box:
            actions = actions.to(torch.int64)
            return (actions if self.start is None else actions + self.start).to(self.dtype)
        actions = actions.to(torch.float64)
        actions = actions.round() if self.is_whole else actions
        return actions.maximum(self.low).minimum(self.high).to(self.dtype)


def torch_dtype(dtype: Any) -> torch.dtype:
    """Return torch's name for a dtype of NumPy."""
    return getattr(torch, np.dtype(dtype).name)


def _start(space: spaces.Space[Any]) -> Tensor | None:
    """Return the smallest value of each integer of a space; None if they count from 0."""
    start = np.asarray(getattr(space, "start", 0), dtype=np.int64)
    return torch.tensor(start) if start.any() else None


def _inner_bounds(space: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds in float64; those of large integers, which it cannot hold, are rounded inwards."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if np.dtype(space.dtype).kind in "iu":
        low = np.where(_less(low, space.low), np.nextafter(low, np.inf), low)
        high = np.where(_less(space.high, high), np.nextafter(high, -np.inf), high)
    return low, high


def _less(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a < b; Python compares floats with integers of any size exactly."""
    pairs = zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True)
    return np.array([x < y for x, y in pairs], dtype=bool).reshape(a.shape)

"""Arguments of `predict`: conversion to tensors, and refusal of what does not fit.

Axes: B rows of a batch of observations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmc_agents.errors import shown
from rmc_agents.tree import Tree, leaves


def as_tensors(arrays: Any, device: torch.device) -> Tree:
    """Return plain arrays, one or a dictionary of them, as tensors."""
    if isinstance(arrays, dict):
        return {key: torch.as_tensor(x, device=device) for key, x in arrays.items()}
    return torch.as_tensor(arrays, device=device)


def as_rows(name: str, value: Any, batch_size: int, device: torch.device) -> Tensor:
    """Return a number, or one for each row, as [B] float32.

    Raises:
        ValueError: neither, or a number that is not finite; the message names the argument.
    """
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite
            array = np.asarray(value, dtype=np.float32)
        if not np.isfinite(array).all():
            raise ValueError("NaN or infinity")
        numbers = torch.as_tensor(array, device=device)
        return numbers.reshape(() if numbers.ndim == 0 else (batch_size,)).expand(batch_size)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a number, or one for each of the {batch_size} rows of obs, and finite, got "
            f"{shown(repr(value), 60)}"
        ) from error


def require_state(state: Any, expected: Tree, batch_size: int) -> None:
    """Raise ValueError unless a state has the type and the shapes of `expected`, for `batch_size` rows."""
    fits = type(state) is type(expected)
    if not fits or [tuple(x.shape) for x in leaves(state)] != [tuple(x.shape) for x in leaves(expected)]:
        raise ValueError(
            f"state does not belong to this agent and obs of {batch_size} row{'s' * (batch_size > 1)}; pass "
            "the state that the previous call of predict returned, or None"
        )

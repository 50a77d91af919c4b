"""Encode equal observations once.

In a world of few places a minibatch sees the same few of them again and again: of 512 observations of a
trained agent in MemoryS13, 42 are distinct. Finding them takes a thirtieth of the time of encoding all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST_ROWS = 128
"""Below this a look costs more than it saves."""


class Distinct(NamedTuple):
    """Which rows stand for all."""

    rows: Tensor
    """[n] int64: one row of each kind."""
    which: Tensor
    """[N] int64: the place in `rows` of each row's like; `x[rows][which]` is x."""


def distinct(parts: Sequence[Tensor]) -> Distinct | None:
    """Rows that are equal in all parts [N, D_i], or None where going on with all of them is the better way.

    How many there are decides what is computed next, so the host has to know: on a GPU it would wait for
    that, and a compiled graph would break, so there the answer is None. It is None too where more than half
    of the rows are distinct.
    """
    x = parts[0]
    if x.shape[0] < FEWEST_ROWS or x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    # Random projections tell rows apart; those that they mix up are found below.
    key = torch.zeros(x.shape[0], dtype=torch.float64)
    for part, weights in zip(parts, _weights(tuple(part.shape[1] for part in parts)), strict=True):
        key += part.double() @ weights
    values, which = torch.unique(key, return_inverse=True)
    if 2 * values.shape[0] > x.shape[0]:
        return None
    rows = torch.empty(values.shape[0], dtype=torch.int64)
    rows.scatter_(0, which, torch.arange(x.shape[0]))
    same = all(torch.equal(part.index_select(0, rows).index_select(0, which), part) for part in parts)
    return Distinct(rows, which) if same else None


@cache
def _weights(widths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Weights of the projections of parts of these widths.

    Whole numbers, so that sums are exact, and equal for equal rows in whatever order they were added.
    """
    numbers = torch.randint(2**36, (sum(widths),), generator=torch.Generator().manual_seed(0))
    return numbers.double().split(list(widths))

"""Memory for what a forward pass keeps for its backward pass, used again by the next.

It is megabytes, and to get that much from the operating system anew for every update takes up to a third of
an update's time: each page is cleared, and mapped on its first use.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

MAX_BYTES = 2**28
"""No more than this lies idle; the rest goes back to the operating system, where others may miss it."""
ALIGNMENT = 16
"""Floats; the kernels read and write whole cache lines."""

_free: dict[int, np.ndarray] = {}  # by its id; the last used is last. One operation at a time, so it needs no
# lock: the garbage collector may give a piece back in the middle of anything.


def workspace(size: int) -> Tensor:
    """A float32 tensor [size] of arbitrary content. Its memory is free again when nothing refers to it."""
    piece = _take(size)
    # The tensor holds this array, a view of the piece; when it dies, the piece is nobody's any more.
    view = piece[:size]
    weakref.finalize(view, _give_back, piece).atexit = False
    return torch.from_numpy(view)


def _take(size: int) -> np.ndarray:
    for key, piece in reversed(list(_free.items())):
        if size <= piece.size <= 2 * size and _free.pop(key, None) is not None:
            return piece
    room = np.empty(size + ALIGNMENT, dtype=np.float32)
    start = -room.ctypes.data // 4 % ALIGNMENT
    return room[start : start + size]


def _give_back(piece: np.ndarray) -> None:
    _free[id(piece)] = piece
    idle = 0
    for key, kept in reversed(list(_free.items())):
        idle += kept.nbytes
        if idle > MAX_BYTES:
            _free.pop(key, None)

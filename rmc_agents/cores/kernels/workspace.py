"""Reusable memory for what a forward pass keeps for its backward pass.

Allocating these megabytes from the operating system for every update takes up to a third of an update's time:
the system clears each page and maps it on its first use.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

MAX_BYTES = 2**28
"""Upper bound on the bytes of unused blocks that are kept; older blocks are released."""
ALIGNMENT = 16
"""Alignment of a block in floats; the kernels read and write whole cache lines."""

# Unused blocks by id, least recently used first. There is no lock because every operation on the dictionary
# is atomic. The garbage collector may return a block wherever an object is made, as by `items()`.
_free: dict[int, np.ndarray] = {}


def workspace(size: int) -> Tensor:
    """Return an uninitialised float32 tensor [size] whose memory is reused once nothing refers to it."""
    block = _take(size)
    # The tensor owns this view of the block. When the view is garbage-collected, the block becomes unused.
    view = block[:size]
    weakref.finalize(view, _give_back, block).atexit = False
    return torch.from_numpy(view)


def _take(size: int) -> np.ndarray:
    """Return an unused block of `size` to twice `size` floats, or a new one."""
    for key in reversed(list(_free)):
        block = _free.get(key)
        if block is not None and size <= block.size <= 2 * size and _free.pop(key, None) is not None:
            return block
    memory = np.empty(size + ALIGNMENT, dtype=np.float32)
    start = -memory.ctypes.data // 4 % ALIGNMENT
    return memory[start : start + size]


def _give_back(block: np.ndarray) -> None:
    """Keep an unused block, and release the least recently used ones beyond `MAX_BYTES`."""
    _free[id(block)] = block
    unused = 0
    for key in reversed(list(_free)):
        kept = _free.get(key)
        unused += 0 if kept is None else kept.nbytes
        if unused > MAX_BYTES:
            _free.pop(key, None)

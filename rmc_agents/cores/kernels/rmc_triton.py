"""The RMC's Triton kernels: which cores and devices they support.

Importing this module does not import Triton, an optional dependency (extra `gpu`).

Axes: T time, B batch, N slots, A heads, K key size, V head size, D = A * V slot size,
F = A * (2K + V) features of a row's queries, keys and values.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from rmc_agents.cores.kernels import triton_common
from rmc_agents.cores.kernels.rmc_torch import Weights, rmc_sequence
from rmc_agents.cores.kernels.rmc_triton_sequence import (
    BACKWARD_ROWS,
    FORWARD_ROWS,
    Sizes,
    padded,
    sizes_of,
    tile_rows,
    triton_sequence,
)
from rmc_agents.cores.kernels.triton_common import close, failure, float32_precision, multiprocessors

MAX_SLOTS, MIN_FEATURES, MAX_FEATURES = 16, 16, 64


def unsupported(sizes: Sizes) -> str | None:
    """Return the reason why there is no kernel for a core of these sizes, in one line, or None."""
    features = {"key": sizes.num_heads * sizes.key_size, "head": sizes.num_heads * sizes.head_size}
    for name, size in features.items():
        if size & (size - 1) or not MIN_FEATURES <= size <= MAX_FEATURES:
            return (
                f"num_heads * {name}_size must be a power of two from {MIN_FEATURES} to {MAX_FEATURES}, "
                f"and is {size}"
            )
    if sizes.num_slots > MAX_SLOTS:
        return f"num_slots must be at most {MAX_SLOTS}, and is {sizes.num_slots}"
    if sizes.mlp_layers > 2:
        return f"mlp_layers must be 1 or 2, and is {sizes.mlp_layers}"
    return None


def why_not(core: nn.Module, device: torch.device) -> str | None:
    """Return None if an `RMC` runs on the Triton kernels on this device, else the reason in one line.

    The first call compiles the kernels, which takes half a minute, and compares their results with PyTorch's.
    """
    parts: Any = core
    if len(parts.qkv) > 1:
        return f"num_blocks must be 1, and is {len(parts.qkv)}"
    if parts.qkv[0].weight.dtype != torch.float32:
        return f"the parameters must be float32, and are {parts.qkv[0].weight.dtype}"
    sizes = Sizes(
        parts.num_slots,
        parts.num_heads,
        parts.key_size,
        parts.head_size,
        len(parts.mlp),
        parts.gate_style != "none",
        parts._attention_mask is not None,
    )
    return _why_not(sizes, device)


def unusable(
    x_qkv: Tensor, memory: Tensor, weights: Weights, num_heads: int, mask: Tensor | None
) -> str | None:
    """Return None if `triton_sequence` supports these arguments, else the reason in one line."""
    if x_qkv.device.type not in triton_common.DEVICE_TYPES:
        return "the kernels need a CUDA device"
    if any(t.dtype != torch.float32 or t.device != x_qkv.device for t in (x_qkv, memory, *weights[:8])):
        return "the tensors must be float32 and on one device"
    (T, B, F), N = x_qkv.shape, memory.shape[1]
    if min(T, B) == 0:
        return "the sequence is empty"
    sizes = sizes_of(weights, N, num_heads, mask)
    if B * N * (F + 4 * memory.shape[2]) >= 2**31:
        return f"the batch of {B} is too large for 32-bit indices"
    return _why_not(sizes, x_qkv.device)


def _why_not(sizes: Sizes, device: torch.device) -> str | None:
    if device.type not in triton_common.DEVICE_TYPES:
        return "the kernels need a CUDA device"
    return unsupported(sizes) or _failure(sizes, device, float32_precision())


@functools.cache
def _failure(sizes: Sizes, device: torch.device, precision: str) -> str | None:
    """Return None if the kernels compile, run and agree with PyTorch on this device, else the reason."""
    return failure(lambda: _agrees(sizes, device, precision))


def _agrees(sizes: Sizes, device: torch.device, precision: str) -> bool:
    """Compare short sequences with those of `rmc_sequence`, one for each size of the tiles."""
    N, A, K, V = sizes[:4]
    D, F, T, made = A * V, A * (2 * K + V), 3, []

    def make(*shape: int) -> Tensor:
        values = torch.arange(math.prod(shape), dtype=torch.float32, device=device)
        made.append((values * 1.7 + len(made)).sin().view(shape) / shape[-1] ** 0.5)
        return made[-1].requires_grad_()

    wide, row = [make(F) for _ in range(3)], [make(D) for _ in range(4)]
    gates = make(2 * D, D) if sizes.gated else None
    mlp = tuple(make(*shape) for _ in range(sizes.mlp_layers) for shape in ((D, D), (D,)))
    weights = Weights(make(F, D), *wide, *row, gates=gates, mlp=mlp)
    fresh = torch.eye(N, D, device=device)
    mask = torch.eye(N, N + 1, dtype=torch.bool, device=device) if sizes.masked else None
    num_weights = len(made)
    for B in _batch_sizes(N, device):
        del made[num_weights:]
        arguments = make(T, B, F), make(T, B, 2 * D) if sizes.gated else None, make(B, N, D)
        starts = torch.arange(T * B, device=device).view(T, B) % 5 == 3
        results = []
        for compute in (rmc_sequence, triton_sequence):
            memories, last = compute(*arguments, fresh, starts, weights, A, mask)
            loss = memories.sin().sum() + last.cos().sum()
            results.append([memories, last, *torch.autograd.grad(loss, made)])
        if not close(results[1], results[0], precision):
            return False
    return True


def _batch_sizes(num_slots: int, device: torch.device) -> list[int]:
    """Return one batch size for each combination of tiles; the last program of each is incomplete."""
    found = {}
    for rows in sorted({*FORWARD_ROWS, *BACKWARD_ROWS}):
        B = rows * multiprocessors(device) // padded(num_slots) + 1
        tiles = tuple(tile_rows(B, num_slots, choices, device) for choices in (FORWARD_ROWS, BACKWARD_ROWS))
        found.setdefault(tiles, B)
    return list(found.values())

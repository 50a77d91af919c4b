"""Whole sequences of a one-block RMC on a GPU: `rmc_triton_kernels.py` as one autograd node.

Axes: T time, B batch, N slots, A heads, K key size, V head size, D = A * V slot size,
F = A * (2K + V) features of a row's queries, keys and values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm

from rmc_agents.cores.kernels.rmc_torch import EPS, Weights
from rmc_agents.cores.kernels.triton_common import OPTIONS, as_read, float32_precision, multiprocessors

FORWARD_ROWS, BACKWARD_ROWS = (64, 16), (32, 16)
"""Rows of the tiles of a program; the larger one if there is a program for every multiprocessor."""
_HOISTED_BYTES = 160 * 1024  # shared memory for a program that keeps its matrices there


class Sizes(NamedTuple):
    """What a kernel is compiled for, besides the size of its tiles."""

    num_slots: int
    num_heads: int
    key_size: int
    head_size: int
    mlp_layers: int
    gated: bool
    masked: bool


def triton_sequence(
    x_qkv: Tensor,
    x_gates: Tensor | None,
    memory: Tensor,
    fresh: Tensor | None,
    starts: Tensor | None,
    weights: Weights,
    num_heads: int,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `rmc_sequence` with the same arguments and results.

    `mask` must not hide the input's row, the last.
    """
    *single, gates, mlp = weights
    if gates is not None and x_gates is not None and len(gates) == 2:  # gates of whole slots: repeat the unit
        D = memory.shape[2]
        gates = gates.unsqueeze(1).expand(2, D, D).reshape(2 * D, D)
        x_gates = x_gates.unsqueeze(-1).expand(*x_gates.shape, D).flatten(-2)
    x_qkv = layer_norm(x_qkv, x_qkv.shape[-1:], weights.qkv_norm, weights.qkv_norm_bias, EPS)
    tensors = mask, starts, fresh, memory, x_qkv, x_gates, *single, gates, *mlp
    if torch.is_grad_enabled():
        return _Sequence.apply(num_heads, *tensors)
    return _forward(num_heads, float32_precision(), *as_read(tensors))


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, num_heads: int, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        given = as_read(tensors)
        ctx.num_heads, ctx.precision = num_heads, float32_precision()
        memories, last = _forward(num_heads, ctx.precision, *given)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, memories)
        return memories, last

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_memories: Tensor | None, d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *given, memories = ctx.saved_tensors
        d_memories = torch.zeros_like(memories) if d_memories is None else d_memories.contiguous()
        d_last = torch.zeros_like(memories[0]) if d_last is None else d_last.contiguous()
        gradients = _backward(ctx.num_heads, ctx.precision, d_memories, d_last, memories, *given)
        return None, None, None, None, *gradients


def _forward(num_heads: int, precision: str, *given: Any) -> tuple[Tensor, Tensor]:
    """Return the memories [T, B, N, D] and the last memory [B, N, D]."""
    from rmc_agents.cores.kernels import rmc_triton_kernels

    kernel: Any = rmc_triton_kernels.rmc_forward
    mask, starts, fresh, memory, x_qkv, x_gates, *weights = given
    (T, B, _), N, w = x_qkv.shape, memory.shape[1], Weights(*weights[:9], mlp=tuple(weights[9:]))
    memories, last = x_qkv.new_empty(T, *memory.shape), torch.empty_like(memory)
    constants = kernel_constants(sizes_of(w, N, num_heads, mask), precision)
    block = tile_rows(B, N, FORWARD_ROWS, x_qkv.device) // constants["NP"]
    with torch.cuda.device_of(x_qkv):
        kernel[(math.ceil(B / block),)](
            *(x_qkv, x_gates, memory, fresh, starts, mask, *_kernel_weights(w), memories, last, B, T),
            **constants,
            BLOCK=block,
            HOIST=hoisted(precision, x_qkv.device),
            **OPTIONS,
        )
    return memories, last


def _backward(
    num_heads: int, precision: str, d_memories: Tensor, d_last: Tensor, memories: Tensor, *given: Any
) -> tuple[Tensor | None, ...]:
    """Return the gradients of memory, x_qkv, x_gates and every weight."""
    from rmc_agents.cores.kernels import rmc_triton_kernels

    kernel: Any = rmc_triton_kernels.rmc_backward
    mask, starts, fresh, memory, x_qkv, x_gates, *weights = given
    (T, B, F), (_, N, D), w = x_qkv.shape, memory.shape, Weights(*weights[:9], mlp=tuple(weights[9:]))
    constants = kernel_constants(sizes_of(w, N, num_heads, mask), precision)
    block = tile_rows(B, N, BACKWARD_ROWS, x_qkv.device) // constants["NP"]
    programs, layers, gated = math.ceil(B / block), len(w.mlp) // 2, w.gates is not None
    d_x_qkv, d_memory = torch.zeros_like(x_qkv), torch.empty_like(memory)
    d_x_gates = torch.empty_like(x_gates) if gated else None
    entered = memories.new_empty(T, B, N, (1 + layers + gated) * D)
    left = memories.new_empty(T, B, N, F + (layers + 2 * gated) * D)
    d_norms = memories.new_empty(programs, 2 * F + 4 * D)
    with torch.cuda.device_of(x_qkv):
        kernel[(programs,)](
            *(x_qkv, x_gates, memory, fresh, starts, mask, *_kernel_weights(w), memories),
            *(d_memories, d_last, d_x_qkv, d_x_gates, d_memory, entered, left, d_norms, B, T),
            **constants,
            BLOCK=block,
            **OPTIONS,
        )
    left = left.view(-1, left.shape[-1])
    m, *rows = entered.view(-1, entered.shape[-1]).split(D, 1)
    d_qkv, *d_layers = left.split([F, *(D,) * layers, *(2 * D,) * gated], 1)
    d_bias, *d_mlp_bias = left[:, : F + layers * D].sum(0).split([F, *(D,) * layers])
    d_weights = [d.t().mm(row) for d, row in zip(d_layers, rows, strict=True)]
    d_gates = d_weights.pop() if gated else None
    norms = d_norms.sum(0).split([F, F, D, D, D, D])
    d_mlp = (d for pair in zip(d_weights, d_mlp_bias, strict=True) for d in pair)
    return d_memory, d_x_qkv, d_x_gates, d_qkv.t().mm(m), d_bias, *norms, d_gates, *d_mlp


def sizes_of(w: Weights, num_slots: int, num_heads: int, mask: Tensor | None) -> Sizes:
    head_size = len(w.attention_norm) // num_heads
    key_size = (len(w.qkv) // num_heads - head_size) // 2
    gated, masked = w.gates is not None, mask is not None
    return Sizes(num_slots, num_heads, key_size, head_size, len(w.mlp) // 2, gated, masked)


def _kernel_weights(w: Weights) -> tuple[Tensor | None, ...]:
    return *w[:9], *w.mlp, *(None,) * (4 - len(w.mlp))


def kernel_constants(sizes: Sizes, precision: str) -> dict[str, Any]:
    """Return the compile-time arguments that both kernels share, by name, except BLOCK."""
    N, A, K, V = sizes[:4]
    return {"N": N, "NP": padded(N), "A": A, "K": K, "V": V, "SCALE": K**-0.5, "PRECISION": precision}


def padded(num_slots: int) -> int:
    """Return the next power of two."""
    return 1 << (num_slots - 1).bit_length()


def tile_rows(batch_size: int, num_slots: int, choices: tuple[int, ...], device: torch.device) -> int:
    """Return the rows of a program's tile: as many as leave a program for every multiprocessor."""
    for rows in choices[:-1]:
        if batch_size * padded(num_slots) >= rows * multiprocessors(device):
            return rows
    return choices[-1]


def hoisted(precision: str, device: torch.device) -> bool:
    """Return whether a forward program keeps its matrices in shared memory between time steps."""
    if precision != "tf32" or device.type != "cuda":
        return False
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", 0) >= _HOISTED_BYTES

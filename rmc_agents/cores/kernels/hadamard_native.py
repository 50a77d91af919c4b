"""Whole sequences of a matrix memory that is rescaled by element: `c/hadamard.c` as one autograd node.

Axes: T time, B batch, H size of the memory.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmc_agents.cores.kernels.call import MULTIPLICATIONS_PER_THREAD, addresses, agrees, readable, run


class Arguments(NamedTuple):
    """Tensors that define a sequence, in the order of `struct call` in hadamard.c."""

    query: Tensor
    """[T, B, H] what the memory is multiplied with for the output."""
    key: Tensor
    """[T, B, H]."""
    value: Tensor
    """[T, B, H]."""
    scale: Tensor
    """[T, B, H] factors of the columns in the calibration."""
    theta: Tensor
    """[T, B, H] factors of the rows."""
    memory: Tensor
    """[B, H, H] before the first step."""
    starts: Tensor
    """[T, B] bool, true where the memory is set to zero before the step."""


_FIELDS = ("reads", "memories", "d_reads", "d_memories", *(f"d_{name}" for name in Arguments._fields[:-1]))


class _Call(ctypes.Structure):
    """`struct call` of hadamard.c: sizes, then addresses."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("T", "B", "H", "threads")),
        *((name, ctypes.c_void_p) for name in (*Arguments._fields, *_FIELDS)),
    )


def usable(a: Arguments) -> bool:
    """Return whether the library can compute this sequence."""
    if a.query.ndim != 3 or not readable(a[:-1], (a.starts,)):
        return False
    T, B, H = a.query.shape
    shapes = [tuple(tensor.shape) for tensor in a]
    return shapes == [(T, B, H)] * 5 + [(B, H, H), (T, B)] and min(T, B, H) > 0 and works()


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its results match those of PyTorch."""
    return agrees(_matches_pytorch)


def _matches_pytorch() -> bool:
    T, B, H = 5, 3, 18
    made = []
    for i, shape in enumerate([(T, B, H)] * 5 + [(B, H, H)]):  # leaves random generators alone
        values = torch.arange(math.prod(shape), dtype=torch.float32, device="cpu")
        made.append((values * 1.7 + i).sin().view(shape).requires_grad_())
    query, key, value, scale, theta, memory = made
    starts = torch.zeros(T, B, dtype=torch.bool, device="cpu")
    starts[3, 1] = starts[0, 2] = True
    a = Arguments(query, key, value, scale, theta, memory, starts)
    results = []
    for reads, last in (in_pytorch(a), native_sequence(a)):
        loss = reads.sin().sum() + last.cos().sum()
        results.append([reads, last, *torch.autograd.grad(loss, made)])
    return all(torch.allclose(x, y, rtol=1e-3, atol=1e-3) for x, y in zip(*results, strict=True))


def in_pytorch(a: Arguments) -> tuple[Tensor, Tensor]:
    """Return what `native_sequence` does, step by step."""
    memory, reads = a.memory, []
    for query, key, value, scale, theta, start in zip(*a[:5], a.starts, strict=True):
        memory = torch.where(start.view(-1, 1, 1), 0, memory)
        memory = memory * (1 + torch.tanh(theta.unsqueeze(2) * scale.unsqueeze(1)))
        memory = memory + value.unsqueeze(2) * key.unsqueeze(1)
        reads.append((memory @ query.unsqueeze(2)).squeeze(2))
    return torch.stack(reads), memory


def native_sequence(a: Arguments) -> tuple[Tensor, Tensor]:
    """Return what is read [T, B, H], and the memory after the last step [B, H, H]."""
    reads, memories = _Sequence.apply(*a) if torch.is_grad_enabled() else _forward(a)
    return reads, memories[-1]


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        results = _forward(Arguments(*tensors))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *results)
        return results

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_reads: Tensor | None, d_memories: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *tensors, reads, memories = ctx.saved_tensors
        a = Arguments(*tensors)
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in a[:-1]]
        d_reads = torch.zeros_like(reads) if d_reads is None else d_reads
        _run("hadamard_backward", a, reads, memories, d_reads, d_memories, *gradients)
        return *gradients, None


def _forward(a: Arguments) -> tuple[Tensor, Tensor]:
    T, B, H = a.query.shape
    reads, memories = a.query.new_empty(T, B, H), a.query.new_empty(T, B, H, H)
    _run("hadamard_forward", a, reads, memories, *[None] * (len(_FIELDS) - 2))
    return reads, memories


def _run(function: str, a: Arguments, *others: Tensor | None) -> None:
    (T, B, H), alive = a.query.shape, []
    # An element takes about as long as a dozen multiplications of a product.
    threads = torch.get_num_threads() if 12 * T * B * H * H >= MULTIPLICATIONS_PER_THREAD else 1
    run(function, _Call(T, B, H, threads, *addresses([*a, *others], alive)))

"""Whole sequences of a diagonal complex recurrence in C: `c/diagonal.c` as one autograd node.

Axes: T time, B batch, N units. Complex numbers are [..., 2N]: real parts, then imaginary parts.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmc_agents.cores.kernels.call import MULTIPLICATIONS_PER_THREAD, addresses, agrees, readable, run


class Arguments(NamedTuple):
    """Tensors that define a sequence, in the order of `struct call` in diagonal.c."""

    inputs: Tensor
    """[T, B, 2N] complex."""
    real: Tensor
    """[B, N] real part of the state before the first step."""
    imaginary: Tensor
    """[B, N] its imaginary part."""
    constants: Tensor
    """[3, N] real and imaginary part of lambda, and gamma."""
    starts: Tensor
    """[T, B] bool, true where the state is set to zero before the step."""


_FIELDS = ("states", "d_states", "d_inputs", "d_real", "d_imaginary", "d_constants")


class _Call(ctypes.Structure):
    """`struct call` of diagonal.c: sizes, then addresses."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("T", "B", "N", "threads")),
        *((name, ctypes.c_void_p) for name in (*Arguments._fields, *_FIELDS)),
    )


def usable(a: Arguments) -> bool:
    """Return whether the library can compute this sequence."""
    if a.inputs.ndim != 3 or not readable(a[:-1], (a.starts,)):
        return False
    (T, B, width), N = a.inputs.shape, a.constants.shape[-1]
    shapes = [tuple(tensor.shape) for tensor in a[1:]]
    return shapes == [(B, N), (B, N), (3, N), (T, B)] and width == 2 * N and min(T, B, N) > 0 and works()


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its results match those of PyTorch."""
    return agrees(_matches_pytorch)


def _matches_pytorch() -> bool:
    T, B, N = 20, 9, 5
    sizes, made = [(T, B, 2 * N), (B, N), (B, N), (3, N)], []
    for i, shape in enumerate(sizes):  # leaves random generators alone
        values = torch.arange(torch.Size(shape).numel(), dtype=torch.float32, device="cpu")
        made.append((values * 1.7 + i).sin().view(shape).mul(0.7).requires_grad_())
    inputs, real, imaginary, constants = made
    starts = torch.zeros(T, B, dtype=torch.bool, device="cpu")
    starts[3, 1] = starts[0, 2] = True
    states, x = [], torch.complex(real, imaginary)
    for u, start in zip(inputs, starts, strict=True):
        x = torch.complex(constants[0], constants[1]) * torch.where(start.unsqueeze(1), 0, x)
        x = x + constants[2] * torch.complex(*u.chunk(2, dim=-1))
        states.append(torch.cat([x.real, x.imag], -1))
    results = []
    a = Arguments(inputs, real, imaginary, constants, starts)
    for found in (torch.stack(states), native_sequence(a)):
        results.append([found, *torch.autograd.grad(found.sin().sum(), made)])
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*results, strict=True))


def native_sequence(a: Arguments) -> Tensor:
    """Return the states [T, B, 2N] after each step: x[t] = lambda x[t - 1] + gamma u[t]."""
    return _Sequence.apply(*a) if torch.is_grad_enabled() else _forward(a)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        states = _forward(Arguments(*tensors))
        ctx.save_for_backward(*tensors, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_states: Tensor
    ) -> tuple[Tensor | None, ...]:
        *tensors, states = ctx.saved_tensors
        a = Arguments(*tensors)
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in a[:-1]]
        _run("diagonal_backward", a, states, d_states, *gradients)
        return *gradients, None


def _forward(a: Arguments) -> Tensor:
    states = a.inputs.new_empty(a.inputs.shape)
    _run("diagonal_forward", a, states, *[None] * (len(_FIELDS) - 1))
    return states


def _run(function: str, a: Arguments, *others: Tensor | None) -> None:
    (T, B, width), alive = a.inputs.shape, []
    # A unit takes about as long as a dozen multiplications of a product: it waits for memory.
    threads = torch.get_num_threads() if 12 * T * B * width >= MULTIPLICATIONS_PER_THREAD else 1
    run(function, _Call(T, B, width // 2, threads, *addresses([*a, *others], alive)))

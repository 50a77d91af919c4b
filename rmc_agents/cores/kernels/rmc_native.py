"""Whole sequences of a one-block RMC in C: `c/rmc_forward.c` and `c/rmc_backward.c` as one autograd node.

Axes: T time, B batch, I input size, N slots, A heads, K key size, V head size, D = A * V slot size,
F = A * (2K + V) features of a row's queries, keys and values, G gate units (D or 1; 0 without gates),
n inputs that are read by id.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from rmc_agents.cores.kernels.call import (
    Prepared,
    PreparedPasses,
    Share,
    addresses,
    agrees,
    lane_counts,
    readable,
    readable_ids,
    rows_of,
    run,
    share,
)
from rmc_agents.cores.kernels.rmc_torch import Weights, rmc_sequence
from rmc_agents.cores.kernels.workspace import workspace


class Parameters(NamedTuple):
    """All parameters of a one-block RMC. Matrices are [out, in] as in `nn.Linear`; the gates may be None."""

    input: Tensor
    input_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    qkv_norm: Tensor
    qkv_norm_bias: Tensor
    attention_norm: Tensor
    attention_norm_bias: Tensor
    mlp_norm: Tensor
    mlp_norm_bias: Tensor
    input_gates: Tensor | None
    input_gates_bias: Tensor | None
    gates: Tensor | None
    gates_bias: Tensor | None
    mlp: tuple[Tensor, ...]
    """weight, bias, weight, bias, ..."""


class Context(NamedTuple):
    """Tensors that define a sequence besides inputs and parameters; only `memory` receives a gradient."""

    memory: Tensor
    """[B, N, D] the memory before the first input."""
    fresh: Tensor | None
    """[N, D] the memory at the start of an episode; None without `starts`."""
    starts: Tensor | None
    """[T, B] bool, true where the memory is reset to `fresh` before the input is read; None for no resets."""
    gate_bias: Tensor | None
    """[2G] constant added to the biases of the gates; None without gates."""
    mask: Tensor | None
    """[N, N + 1] bool, true where a slot may not attend to a row (never the input's, the last), or None."""
    ids: Tensor | None = None
    """[T, B] int32, the row of the inputs [n, I] that each step reads; None for inputs [T, B, I].

    All must lie in 0 to n - 1."""


_NUM_SINGLE = len(Parameters._fields) - 1
_NUM_FIRST = 1 + len(Context._fields)  # tensors before the parameters
_SIZES = ("T", "B", "I", "N", "A", "K", "V", "G", "layers", "n", "threads", "lanes")
_ADDRESSES = (
    *("inputs", *Context._fields, *Parameters._fields, "memories", "last", "saved"),
    *("d_memories", "d_last", "d_inputs", "d_memory", *(f"d_{name}" for name in Parameters._fields)),
)


class _Call(ctypes.Structure):
    """`struct call` of rmc.h: sizes, then addresses."""

    _fields_ = (
        *((name, ctypes.c_long) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _ADDRESSES),
    )


def usable(inputs: Tensor, context: Context, p: Parameters, num_heads: int) -> bool:
    """Return whether the library can compute a sequence with these arguments.

    It reads raw memory, so types and shapes must match exactly. Other arguments are left to PyTorch, which
    either supports them or raises an informative error.
    """
    memory, fresh, starts, gate_bias, mask, ids = context
    floats = inputs, memory, fresh, gate_bias, *p[:-1], *p.mlp
    if not readable(floats, (starts, mask)) or not readable_ids(ids) or memory.ndim != 3:
        return False
    if inputs.ndim != (3 if ids is None else 2):
        return False
    (T, B), input_size = (inputs if ids is None else ids).shape[:2], inputs.shape[-1]
    (_, N, D), F = memory.shape, p.qkv.shape[0]
    G2 = 0 if p.gates is None else p.gates.shape[0]
    fresh_shape, flags = ((N, D), (T, B)) if starts is not None else (None, None)
    gates, gate = ((G2, D), (G2,)) if G2 else (None, None)
    row, wide = (D,), (F,)
    expected = [
        inputs.shape,
        (B, N, D),
        fresh_shape,
        flags,
        gate,
        None if mask is None else (N, N + 1),
        None if ids is None else (T, B),
        (D, input_size),
        row,
        (F, D),
        wide,
        wide,
        wide,
    ]
    expected += [row, row, row, row, gates, gate, gates, gate, *((D, D), row) * (len(p.mlp) // 2)]
    tensors = inputs, *context, *p[:-1], *p.mlp
    return (
        [None if tensor is None else tensor.shape for tensor in tensors] == expected
        and min(T, B, len(inputs), input_size, N, D) > 0
        and D % num_heads == 0
        and F > D
        and (F - D) % (2 * num_heads) == 0
        and G2 in (0, 2, 2 * D)
        and works()
    )


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its results match those of PyTorch."""
    return agrees(lambda: all(_matches_pytorch(Share(1, lanes)) for lanes in lane_counts()))


def _matches_pytorch(division: Share) -> bool:
    """Compare the values and gradients of a short sequence with resets with those of `rmc_sequence`."""
    (T, B, N, D, F), num_heads, made = (5, 3, 2, 6, 14), 2, []

    def make(*shape: int) -> Tensor:
        values = torch.arange(math.prod(shape), dtype=torch.float32, device="cpu")
        made.append((values * 1.7 + len(made)).sin().view(shape))  # leaves random generators alone
        return made[-1].requires_grad_()

    inputs, memory, bias = make(T, B, 4), make(B, N, D), make(2 * D)
    input_gates, gates = (make(2 * D, D), make(2 * D)), (make(2 * D, D), make(2 * D))
    wide, row = [make(F) for _ in range(3)], [make(D) for _ in range(4)]
    shared, mlp = (make(F, D), *wide, *row), (make(D, D), make(D), make(D, D), make(D))
    p = Parameters(*[make(D, 4), make(D), *shared, *input_gates, *gates], mlp=mlp)
    leaves = [leaf for leaf in made if leaf is not bias]
    mask = torch.tensor([[False, True, False], [False, False, False]], device="cpu")
    context = Context(memory, make(N, D).detach(), make(T, B) > 0.5, bias.detach(), mask)

    x = linear(inputs, p.input, p.input_bias)
    x_gates = linear(x, input_gates[0], input_gates[1] + gates[1] + bias)
    weights = Weights(*shared, gates=gates[0], mlp=mlp)
    reference = rmc_sequence(
        linear(x, p.qkv, p.qkv_bias), x_gates, memory, *context[1:3], weights, num_heads, mask
    )
    results = []
    for memories, last in (reference, native_sequence(inputs, context, p, num_heads, division)):
        loss = memories.sin().sum() + last.cos().sum()
        results.append([memories, last, *torch.autograd.grad(loss, leaves)])
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*results, strict=True))


def native_sequence(
    inputs: Tensor, context: Context, p: Parameters, num_heads: int, division: Share | None = None
) -> tuple[Tensor, Tensor]:
    """Return the memories [T, B, N, D] after each of the inputs, and the last memory [B, N, D].

    Args:
        inputs: [T, B, I], or [n, I] with `context.ids`.
        context: memory, resets and the ids of the inputs.
        p: the parameters.
        num_heads: A.
        division: None for the fastest.
    """
    tensors = inputs, *context, *p[:-1], *p.mlp
    sizes = _sizes(num_heads, tensors)
    division = _fastest(sizes) if division is None else division
    if torch.is_grad_enabled():
        return _Sequence.apply((*sizes, *division), *tensors)
    return _forward((*sizes, *division), tensors)[:2]


class PreparedSequences(PreparedPasses):
    """Forward and backward passes over sequences of the same sizes, without autograd.

    Args:
        inputs: [n, I]; a pass may read fewer rows, the first ones.
        context: memory, resets and the ids of the inputs.
        p: the parameters.
        gradients: of the parameters, which a backward pass overwrites.
        num_heads: A.

    All tensors are contiguous, and stay in place.
    """

    def __init__(
        self, inputs: Tensor, context: Context, p: Parameters, gradients: Parameters, num_heads: int
    ) -> None:
        tensors = inputs, *context, *p[:-1], *p.mlp
        sizes = _sizes(num_heads, tensors)
        memories = workspace(sizes[0] * context.memory.numel()).view(sizes[0], *context.memory.shape)
        d_inputs = torch.empty_like(inputs)
        last, d_memory = torch.empty_like(context.memory), torch.empty_like(context.memory)
        call, alive = _common_fields((*sizes, *_fastest(sizes)), tensors)
        saved = workspace(run("rmc_saved", _Call(*call)))
        call += addresses((memories, last, saved), alive)
        call += addresses((None, None, d_inputs, d_memory), alive)
        call += _parameter_addresses((*gradients[:-1], *gradients.mlp), alive)
        super().__init__("rmc", _Call(*call), alive, memories, d_inputs, "d_memories")


class PreparedSteps:
    """The steps of a rollout, one by one and without gradients.

    Args:
        inputs: [1, B, I] of any step.
        context: of the first step.
        p, num_heads: as in `native_sequence`.
        memories: [T + 1, B, N, D] before each of T steps, and after the last.
        starts: [T, B] bool, true where the memory is reset before the step.

    All tensors are contiguous, and stay in place.
    """

    def __init__(
        self,
        inputs: Tensor,
        context: Context,
        p: Parameters,
        num_heads: int,
        memories: Tensor,
        starts: Tensor,
    ) -> None:
        tensors = inputs, *context, *p[:-1], *p.mlp
        sizes = _sizes(num_heads, tensors)
        self._output = torch.empty_like(context.memory)
        call, alive = _common_fields((*sizes, *_fastest(sizes)), tensors)
        call += addresses((self._output, None, None), alive)
        self._call = _Call(*call)
        self._forward = Prepared("rmc_forward", self._call, alive)
        self._memories, self._starts = rows_of(memories, alive), rows_of(starts, alive)

    def step(self, t: int) -> Tensor:
        """Read memory t, and write memory t + 1; return it [B, N, D], until the next call."""
        call = self._call
        call.memory, call.last, call.starts = self._memories[t], self._memories[t + 1], self._starts[t]
        self._forward()
        return self._output


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: tuple[int, ...], *tensors: Any) -> tuple[Tensor, Tensor]:
        memories, last, saved = _forward(sizes, tensors, keep=any(ctx.needs_input_grad))
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, memories, saved)
        return memories, last

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_memories: Tensor | None, d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *tensors, memories, saved = ctx.saved_tensors
        inputs, memory, weights = tensors[0], tensors[1], tensors[_NUM_FIRST:]
        d_inputs = inputs.new_empty(inputs.shape) if ctx.needs_input_grad[1] else None
        d_memory = memory.new_empty(memory.shape)
        d_weights = [None if w is None else w.new_empty(w.shape) for w in weights]
        call, alive = _common_fields(ctx.sizes, tensors)
        call += addresses((memories, None, saved, d_memories, d_last, d_inputs, d_memory), alive)
        call += _parameter_addresses(d_weights, alive)
        run("rmc_backward", _Call(*call))
        return None, d_inputs, d_memory, *[None] * (_NUM_FIRST - 2), *d_weights


def _forward(
    sizes: tuple[int, ...], tensors: tuple[Any, ...], keep: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the memories, the last memory and, if `keep`, the intermediate results for the backward pass."""
    memory = tensors[1]
    memories, last, saved = memory.new_empty(sizes[0], *memory.shape), memory.new_empty(memory.shape), None
    call, alive = _common_fields(sizes, tensors)
    if keep or tensors[_NUM_FIRST - 1] is not None:
        saved = workspace(run("rmc_saved", _Call(*call)))
    call += addresses((memories, last, saved), alive)
    run("rmc_forward", _Call(*call))
    return memories, last, saved


def _sizes(num_heads: int, tensors: Sequence[Any]) -> tuple[int, ...]:
    """Return the sizes of a sequence, as `_SIZES` lists them, without threads and lanes."""
    inputs, memory, weights = tensors[0], tensors[1], tensors[_NUM_FIRST:]
    ids, (_, N, D), F = tensors[_NUM_FIRST - 1], memory.shape, weights[2].shape[0]
    T, B = (inputs if ids is None else ids).shape[:2]
    V, G = D // num_heads, 0 if weights[12] is None else weights[12].shape[0] // 2
    K, layers = (F // num_heads - V) // 2, (len(weights) - _NUM_SINGLE) // 2
    return T, B, inputs.shape[-1], N, num_heads, K, V, G, layers, len(inputs)


def _fastest(sizes: tuple[int, ...]) -> Share:
    """Return the division of a sequence that takes the least time."""
    T, B, input_size, N, A, K, V, G, layers, _ = sizes
    D, F = A * V, A * (2 * K + V)
    row = input_size * D + D * ((N + 1) * (F + 2 * G) + N * layers * D)
    return share(B, T * B * row)


def _common_fields(sizes: tuple[int, ...], tensors: Sequence[Any]) -> tuple[list[int | None], list[Any]]:
    """Return the fields of `_Call` that both passes read, and the tensors that must outlive the call."""
    weights, alive = tensors[_NUM_FIRST:], []
    call: list[int | None] = [*sizes]
    call += addresses(tensors[:_NUM_FIRST], alive) + _parameter_addresses(weights, alive)
    return call, alive


def _parameter_addresses(weights: Sequence[Any], alive: list[Any]) -> list[int | None]:
    mlp = addresses(weights[_NUM_SINGLE:], alive)
    pointers = (ctypes.c_void_p * len(mlp))(*mlp)
    alive.append(pointers)
    return [*addresses(weights[:_NUM_SINGLE], alive), ctypes.addressof(pointers)]

"""Whole sequences of an Elman RNN, an LSTM, a GRU or a minGRU in C: `c/gated.c` as one autograd node.

Axes: T time, B batch, I input size, H hidden size, W = H times the number of gates, n inputs that are
read by id.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
from rmc_agents.cores.kernels.workspace import workspace

Kind = Literal["rnn", "lstm", "gru", "mingru"]
"""The kinds of core, in the order of `enum kind` in gated.c."""

_GATES = {"rnn": 1, "lstm": 4, "gru": 3, "mingru": 2}


class Arguments(NamedTuple):
    """Tensors that define a sequence, in the order of `struct call` in gated.c."""

    inputs: Tensor
    """[T, B, I], or [n, I] with ids."""
    h: Tensor
    """[B, H] the output before the first input."""
    c: Tensor | None
    """[B, H] the cell of an LSTM; None for the others."""
    starts: Tensor | None
    """[T, B] bool, true where the state is reset to zero before the input is read; None for no resets."""
    input: Tensor
    """[W, I]."""
    input_bias: Tensor
    """[W]."""
    hidden: Tensor | None
    """[W, H]; None for a minGRU."""
    hidden_bias: Tensor | None
    """[W] for a GRU; None for the others."""
    ids: Tensor | None = None
    """[T, B] int32, the row of the inputs that each step reads; all must lie in 0 to n - 1."""

    @property
    def steps(self) -> tuple[int, int]:
        """T and B."""
        T, B = (self.inputs if self.ids is None else self.ids).shape[:2]
        return T, B


_GRADIENTS = ("inputs", "h", "c", "input", "input_bias", "hidden", "hidden_bias")
_ADDRESSES = (
    *(*Arguments._fields, "outputs", "last_h", "last_c", "saved"),
    *("d_outputs", "d_last_h", "d_last_c", *(f"d_{name}" for name in _GRADIENTS)),
)


class _Call(ctypes.Structure):
    """`struct call` of gated.c: sizes, then addresses."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("kind", "T", "B", "I", "H", "n", "threads", "lanes")),
        *((name, ctypes.c_void_p) for name in _ADDRESSES),
    )


def usable(kind: Kind, a: Arguments) -> bool:
    """Return whether the library can compute this sequence.

    It reads raw memory, so types and shapes must match.
    """
    floats = a._replace(starts=None, ids=None)
    if not readable(floats, (a.starts,)) or not readable_ids(a.ids) or a.h.ndim != 2:
        return False
    if a.inputs.ndim != (3 if a.ids is None else 2):
        return False
    (T, B), input_size, H = a.steps, a.inputs.shape[-1], a.h.shape[1]
    W = H * _GATES[kind]
    cell, bias = (B, H) if kind == "lstm" else None, (W,) if kind == "gru" else None
    flags, hidden = None if a.starts is None else (T, B), None if kind == "mingru" else (W, H)
    expected = [(B, H), cell, flags, (W, input_size), (W,), hidden, bias]
    shapes = [None if tensor is None else tensor.shape for tensor in a[1:-1]]
    return shapes == expected and min(T, B, len(a.inputs), input_size, H) > 0 and works()


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its results match those of networks in PyTorch."""
    return agrees(
        lambda: all(_matches_pytorch(kind, Share(1, n)) for kind in get_args(Kind) for n in lane_counts())
    )


def _matches_pytorch(kind: Kind, division: Share) -> bool:
    """Compare the values and gradients of a short sequence with those of PyTorch."""
    T, B, input_size, H, W, made = 5, 3, 4, 5, 5 * _GATES[kind], []

    def make(*shape: int) -> Tensor:
        values = torch.arange(math.prod(shape), dtype=torch.float32, device="cpu")
        made.append((values * 1.7 + len(made)).sin().view(shape))  # leaves random generators alone
        return made[-1].requires_grad_()

    inputs, h, weight, input_bias = make(T, B, input_size), make(B, H), make(W, input_size), make(W)
    hidden = None if kind == "mingru" else make(W, H)
    c, bias = make(B, H) if kind == "lstm" else None, make(W) if kind == "gru" else None
    arguments = Arguments(inputs, h, c, None, weight, input_bias, hidden, bias)
    results = []
    for outputs, last_h, *last_c in (
        _in_pytorch(kind, arguments),
        native_sequence(kind, arguments, division),
    ):
        loss = outputs.sin().sum() + last_h.cos().sum() + sum(cell.exp().sum() for cell in last_c)
        results.append([outputs, *torch.autograd.grad(loss, made)])
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(*results, strict=True))


def _in_pytorch(kind: Kind, a: Arguments) -> tuple[Tensor, ...]:
    """Return what `native_sequence` does, for a sequence without resets."""
    if a.hidden is None:
        update, candidate = torch.nn.functional.linear(a.inputs, a.input, a.input_bias).chunk(2, dim=-1)
        z, new = update.sigmoid(), torch.where(candidate >= 0, candidate + 0.5, candidate.sigmoid())
        outputs = [a.h]
        for t in range(len(z)):
            outputs.append((1 - z[t]) * outputs[-1] + z[t] * new[t])
        return torch.stack(outputs[1:]), outputs[-1]
    other = torch.zeros_like(a.input_bias) if a.hidden_bias is None else a.hidden_bias
    state = a.h[None] if a.c is None else (a.h[None], a.c[None])
    network: Any = {"rnn": torch.rnn_tanh, "lstm": torch.lstm, "gru": torch.gru}[kind]
    # biases, layers, dropout, training, bidirectional, batch first
    options = (True, 1, 0.0, False, False, False)
    return network(a.inputs, state, (a.input, a.hidden, a.input_bias, other), *options)


def native_sequence(kind: Kind, a: Arguments, division: Share | None = None) -> tuple[Tensor, ...]:
    """Return the outputs [T, B, H] and the tensors of the last state, [B, H] each.

    Args:
        kind: the kind of core.
        a: the sequence.
        division: None for the fastest.
    """
    sizes = _sizes(kind, a, division)
    if torch.is_grad_enabled():
        return _Sequence.apply(sizes, *a)
    return _forward(sizes, a)[0]


class PreparedSequences(PreparedPasses):
    """Forward and backward passes over sequences of the same sizes, without autograd.

    Args:
        kind: the kind of core.
        a: the sequences, with ids; a pass may read fewer rows of the inputs, the first ones.
        gradients: of `input`, `input_bias`, `hidden` and `hidden_bias`, which a backward pass overwrites.

    All tensors are contiguous, and stay in place.
    """

    def __init__(self, kind: Kind, a: Arguments, gradients: Sequence[Tensor | None]) -> None:
        T = a.steps[0]
        outputs = workspace(T * a.h.numel()).view(T, *a.h.shape)
        d_inputs = torch.empty_like(a.inputs)
        last = [None if x is None else torch.empty_like(x) for x in (a.h, a.c)]
        d_state = [None if x is None else torch.empty_like(x) for x in (a.h, a.c)]
        call, alive = _common_fields(_sizes(kind, a, None), a)
        saved = workspace(run("gated_saved", _Call(*call)))
        call += addresses((outputs, *last, saved, None, None, None), alive)
        call += addresses((d_inputs, *d_state, *gradients), alive)
        super().__init__("gated", _Call(*call), alive, outputs, d_inputs, "d_outputs")


class PreparedSteps:
    """The steps of a rollout, one by one and without gradients.

    Args:
        kind: the kind of core.
        a: the first step.
        states: each tensor of the state [T + 1, B, H], before each of T steps and after the last.
        starts: [T, B] bool, true where the state is reset before the step.

    All tensors are contiguous, and stay in place.
    """

    def __init__(self, kind: Kind, a: Arguments, states: Sequence[Tensor], starts: Tensor) -> None:
        self._output = torch.empty_like(a.h)
        call, alive = _common_fields(_sizes(kind, a, None), a)
        call += addresses((self._output, None, None, None), alive)
        self._call = _Call(*call)
        self._forward = Prepared("gated_forward", self._call, alive)
        self._h, self._starts = rows_of(states[0], alive), rows_of(starts, alive)
        self._c = rows_of(states[1], alive) if len(states) == 2 else [None] * len(self._h)

    def step(self, t: int) -> Tensor:
        """Read state t, and write state t + 1; return the outputs [B, H], until the next call."""
        call, h, c = self._call, self._h, self._c
        call.h, call.last_h, call.c, call.last_c = h[t], h[t + 1], c[t], c[t + 1]
        call.starts = self._starts[t]
        self._forward()
        return self._output


def _sizes(kind: Kind, a: Arguments, division: Share | None) -> tuple[int, ...]:
    """Return the sizes of a call; the fastest division if it is None."""
    (T, B), input_size, H = a.steps, a.inputs.shape[-1], a.h.shape[1]
    if division is None:
        depth = input_size + (0 if a.hidden is None else H)
        division = share(B, T * B * _GATES[kind] * H * depth)
    return (get_args(Kind).index(kind), T, B, input_size, H, len(a.inputs), *division)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: tuple[int, ...], *tensors: Any) -> tuple[Tensor, ...]:
        results, saved = _forward(sizes, Arguments(*tensors), keep=any(ctx.needs_input_grad))
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, results[0], saved)
        return results

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_outputs: Tensor | None, d_last_h: Tensor | None, d_last_c: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        *tensors, outputs, saved = ctx.saved_tensors
        a = Arguments(*tensors)
        d_inputs, *d_others = [
            None if tensor is None else tensor.new_empty(tensor.shape)
            for tensor in (a.inputs, a.h, a.c, a.input, a.input_bias, a.hidden, a.hidden_bias)
        ]
        d_inputs = d_inputs if ctx.needs_input_grad[1] else None
        call, alive = _common_fields(ctx.sizes, a)
        call += addresses((outputs, None, None, saved, d_outputs, d_last_h, d_last_c), alive)
        call += addresses((d_inputs, *d_others), alive)
        run("gated_backward", _Call(*call))
        d_h, d_c, *d_weights = d_others
        return None, d_inputs, d_h, d_c, None, *d_weights, None


def _forward(
    sizes: tuple[int, ...], a: Arguments, keep: bool = False
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return the results and, if `keep`, the intermediate results for the backward pass."""
    outputs, last_h, saved = a.h.new_empty(a.steps[0], *a.h.shape), a.h.new_empty(a.h.shape), None
    last_c = None if a.c is None else a.c.new_empty(a.c.shape)
    call, alive = _common_fields(sizes, a)
    if keep or a.ids is not None:
        saved = workspace(run("gated_saved", _Call(*call)))
    call += addresses((outputs, last_h, last_c, saved), alive)
    run("gated_forward", _Call(*call))
    return (outputs, last_h) if last_c is None else (outputs, last_h, last_c), saved


def _common_fields(sizes: tuple[int, ...], a: Arguments) -> tuple[list[int | None], list[Any]]:
    """Return the fields of `_Call` that both passes read, and the tensors that must outlive the call."""
    alive: list[Any] = []
    return [*sizes, *addresses(a, alive)], alive

"""Whole sequences of an LSTM or a GRU on a GPU: `gated_triton_kernels.py` as one autograd node.

Axes: T time, B batch, H hidden size, W = H times the number of gates.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rmc_agents.cores.base import HoistedCore
from rmc_agents.cores.kernels import triton_common
from rmc_agents.cores.kernels.triton_common import (
    OPTIONS,
    as_read,
    close,
    failure,
    float32_precision,
    multiprocessors,
)

ROWS = 32, 16
"""Batch rows of a program. In TF32x3 the larger number does not fit into the registers."""
GATES = {"lstm": 4, "gru": 3}
MIN_HIDDEN_SIZE, MAX_HIDDEN_SIZE = 16, 128


def why_not(core: nn.Module, device: torch.device) -> str | None:
    """Return None if an `LSTM` or `GRU` runs on the Triton kernels on this device, else the reason.

    The first call compiles the kernels, and compares their results with PyTorch's.
    """
    parts: Any = core
    size, dtype = parts.hidden_size, parts.input_proj.weight.dtype
    if device.type not in triton_common.DEVICE_TYPES:
        return "the kernels need a CUDA device"
    if parts.kind not in GATES:
        return "there are no kernels for this core"
    if size & (size - 1) or not MIN_HIDDEN_SIZE <= size <= MAX_HIDDEN_SIZE:
        limits = f"from {MIN_HIDDEN_SIZE} to {MAX_HIDDEN_SIZE}"
        return f"hidden_size must be a power of two {limits}, and is {size}"
    if dtype != torch.float32:
        return f"the parameters must be float32, and are {dtype}"
    return _failure(type(core), size, device, float32_precision())


def unusable(core: nn.Module, inputs: Tensor, state: tuple[Tensor, ...]) -> str | None:
    """Return None if `run` supports these arguments, else the reason in one line."""
    device = inputs.device
    if device.type not in triton_common.DEVICE_TYPES:
        return "the kernels need a CUDA device"
    if any(t.dtype != torch.float32 or t.device != device for t in (inputs, *state)):
        return "the tensors must be float32 and on one device"
    T, B = inputs.shape[:2]
    if min(T, B) == 0:
        return "the sequence is empty"
    if B * 4 * state[0].shape[1] >= 2**31:
        return f"the batch of {B} is too large for 32-bit indices"
    return why_not(core, device)


def triton_sequence(
    x: Tensor, h: Tensor, c: Tensor | None, starts: Tensor | None, hidden: Tensor, hidden_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run an LSTM, or a GRU if `c` is None, over a sequence.

    Args:
        x: [T, B, W] the inputs' part of the gates, with their bias.
        h: [B, H] the output before the first input.
        c: [B, H] the cell of an LSTM.
        starts: [T, B] bool, true where the state is reset to zero before the input is read, or None.
        hidden: [W, H].
        hidden_bias: [W] for a GRU.

    Returns:
        The outputs [T, B, H], the last output [B, H] and the last cell [B, H] of an LSTM.
    """
    tensors = starts, x, h, c, hidden, hidden_bias
    if torch.is_grad_enabled():
        return _Sequence.apply(*tensors)
    outputs, _, last_h, last_c = _forward(float32_precision(), *as_read(tensors))
    return outputs, last_h, last_c


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        given = as_read(tensors)
        ctx.precision = float32_precision()
        outputs, cells, last_h, last_c = _forward(ctx.precision, *given)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, outputs, cells)
        return outputs, last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *given, outputs, cells = ctx.saved_tensors
        likes = outputs, outputs[0], None if cells is None else outputs[0]
        d_results = [
            None if like is None else torch.zeros_like(like) if d is None else d.contiguous()
            for d, like in zip(gradients, likes, strict=True)
        ]
        return None, *_backward(ctx.precision, outputs, cells, d_results, *given)


def _forward(precision: str, *given: Any) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Return outputs [T, B, H], cells [T, B, H] of an LSTM, and the last of each."""
    from rmc_agents.cores.kernels import gated_triton_kernels

    kernel: Any = gated_triton_kernels.gated_forward
    starts, x, h, c, hidden, hidden_bias = given
    (T, B, _), H = x.shape, h.shape[1]
    outputs, last_h = x.new_empty(T, B, H), torch.empty_like(h)
    cells, last_c = (None, None) if c is None else (torch.empty_like(outputs), torch.empty_like(c))
    block = _rows(B, x.device, precision)
    with torch.cuda.device_of(x):
        kernel[(math.ceil(B / block),)](
            *(x, h, c, starts, hidden, hidden_bias, outputs, cells, last_h, last_c, B, T),
            **{"H": H, "BLOCK": block, "PRECISION": precision, **OPTIONS},
        )
    return outputs, cells, last_h, last_c


def _backward(
    precision: str, outputs: Tensor, cells: Tensor | None, d_results: list[Tensor | None], *given: Any
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, h, c, hidden and hidden_bias."""
    from rmc_agents.cores.kernels import gated_triton_kernels

    kernel: Any = gated_triton_kernels.gated_backward
    starts, x, h, c, hidden, hidden_bias = given
    (T, B, W), H = x.shape, h.shape[1]
    d_x, d_h, entered = torch.empty_like(x), torch.empty_like(h), torch.empty_like(outputs)
    d_c, left = (None, torch.empty_like(x)) if c is None else (torch.empty_like(c), None)
    block = _rows(B, x.device, precision)
    with torch.cuda.device_of(x):
        kernel[(math.ceil(B / block),)](
            *(x, h, c, starts, hidden, hidden_bias, outputs, cells, *d_results),
            *(d_x, d_h, d_c, entered, left, B, T),
            **{"H": H, "BLOCK": block, "PRECISION": precision, **OPTIONS},
        )
    left = (d_x if left is None else left).view(-1, W)
    d_bias = None if hidden_bias is None else left.sum(0)
    return d_x, d_h, d_c, left.t().mm(entered.view(-1, H)), d_bias


def _rows(batch_size: int, device: torch.device, precision: str) -> int:
    """Return the batch rows of a program: as many as fit and leave a program for every multiprocessor."""
    return ROWS[precision == "tf32x3" or batch_size < ROWS[0] * multiprocessors(device)]


@functools.cache
def _failure(kind: type[nn.Module], size: int, device: torch.device, precision: str) -> str | None:
    """Return None if the kernels compile, run and agree with PyTorch on this device, else the reason."""
    return failure(lambda: _agrees(kind, size, device, precision))


def _agrees(kind: type[nn.Module], size: int, device: torch.device, precision: str) -> bool:
    """Compare short sequences with the plain loop over `recur`, one for each number of rows."""
    with torch.random.fork_rng(devices=[]):  # leaves the generator of the caller alone
        torch.manual_seed(0)
        core: Any = kind(8, hidden_size=size)
    core.to(device)
    for rows in ROWS:
        T, B = 3, rows * multiprocessors(device) + 1
        inputs = torch.arange(T * B * 8, device=device).mul(1.7).sin().view(T, B, 8).requires_grad_()
        starts = torch.arange(T * B, device=device).view(T, B) % 5 == 3
        state = type(core.initial_state(1))(*(s + 0.1 for s in core.initial_state(B)))
        results = []
        for unroll in (lambda *a: HoistedCore.unroll(core, *a), lambda *a: run(core, *a)):
            outputs, last = unroll(inputs, state, starts)
            loss = outputs.sin().sum() + sum(s.cos().sum() for s in last)
            results.append([outputs, *last, *torch.autograd.grad(loss, [inputs, *core.parameters()])])
        if not close(results[1], results[0], precision):
            return False
    return True


def run(core: Any, inputs: Tensor, state: Any, starts: Tensor | None) -> tuple[Tensor, Any]:
    """Run a sequence of a core with `input_proj` and `hidden_proj`; see `MemoryCore.unroll`."""
    h, c = state if len(state) == 2 else (state[0], None)
    hidden = core.hidden_proj
    outputs, *last = triton_sequence(core.input_proj(inputs), h, c, starts, hidden.weight, hidden.bias)
    return outputs, type(state)(*last[: len(state)])

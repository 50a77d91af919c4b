"""Whole sequences of a one-block Relational Memory Core as one autograd node, in PyTorch.

`RMC.unroll` uses it where the C version (`rmc_native.py`) is not available: on a GPU, in double precision,
without a compiler.

It computes exactly what `RMC.recur` does; its purpose is speed. At the sizes used in reinforcement learning a
step consists of a few dozen tiny operations, and a plain unroll spends much of its time launching them,
recording them for autograd and copying between them. Here

- the loops run outside autograd, in the layout [N, B, D]: the slots of all batch rows form one matrix with
  the input's rows directly below it, so nothing is concatenated or transposed;
- attention and gates are optimised for few rows, see `rmc_torch_ops.py`;
- on a CPU, weight gradients are accumulated step by step, while their factors are in the cache; on other
  devices they are computed for all time steps at once, which saves 13 operations per step.

Axes: T time, B batch, N slots, R rows (the slots, then the input: N + 1), P = N * B slot rows, A heads,
K key size, V head size, D = A * V slot size, F = A * (2K + V) features of a row's queries, keys and values,
G gate units (D or 1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmc_agents.cores.kernels.rmc_torch_ops import Attention, Gates, MatrixGradient, NormGradient

EPS = 1e-5

_relu_backward = torch.ops.aten.threshold_backward.grad_input


class Weights(NamedTuple):
    """The parameters used inside the loop. Matrices are [out, in] as in `nn.Linear`."""

    qkv: Tensor
    qkv_bias: Tensor
    qkv_norm: Tensor
    qkv_norm_bias: Tensor
    attention_norm: Tensor
    attention_norm_bias: Tensor
    mlp_norm: Tensor
    mlp_norm_bias: Tensor
    gates: Tensor | None
    """[2G, D] input gates, then forget gates; None without gates."""
    mlp: tuple[Tensor, ...]
    """weight, bias, weight, bias, ..."""


def rmc_sequence(
    x_qkv: Tensor,
    x_gates: Tensor | None,
    memory: Tensor,
    fresh: Tensor | None,
    starts: Tensor | None,
    weights: Weights,
    num_heads: int,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a one-block RMC over a sequence.

    Args:
        x_qkv: [T, B, F] queries, keys and values of the inputs, before their norm.
        x_gates: [T, B, 2G] gate terms of the inputs, with all biases included; None without gates.
        memory: [B, N, D] the memory before the first input.
        fresh: [N, D] the memory at the start of an episode; None without `starts`.
        starts: [T, B] bool, true where the memory is reset to `fresh` before the input is read, or None.
        weights: see `Weights`.
        num_heads: A.
        mask: [N, R] bool, true where a slot may not attend to a row, never for all rows; None for no mask.

    Returns:
        The memories [T, B, N, D] after each input, and the last memory [B, N, D].
    """
    if not torch.is_grad_enabled():
        return _forward(x_qkv, x_gates, memory, fresh, starts, weights, num_heads, mask, None)
    *single, mlp = weights
    return _Sequence.apply(num_heads, mask, starts, fresh, memory, x_qkv, x_gates, *single, *mlp)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        num_heads: int,
        mask: Tensor | None,
        starts: Tensor | None,
        fresh: Tensor | None,
        memory: Tensor,
        x_qkv: Tensor,
        x_gates: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.num_heads, ctx.num_weights = num_heads, len(weights)
        w, steps = Weights(*weights[:9], mlp=weights[9:]), []
        result = _forward(x_qkv, x_gates, memory, fresh, starts, w, num_heads, mask, steps)
        ctx.save_for_backward(starts, *weights, *steps)
        return result

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_memories: Tensor, d_last: Tensor
    ) -> tuple[Tensor | None, ...]:
        starts, *saved = ctx.saved_tensors
        weights, steps = saved[: ctx.num_weights], saved[ctx.num_weights :]
        w = Weights(*weights[:9], mlp=tuple(weights[9:]))
        return (None, None, None, None, *_backward(d_memories, d_last, starts, w, ctx.num_heads, steps))


def _forward(
    x_qkv: Tensor,
    x_gates: Tensor | None,
    memory: Tensor,
    fresh: Tensor | None,
    starts: Tensor | None,
    w: Weights,
    num_heads: int,
    mask: Tensor | None,
    steps: list[Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Compute `rmc_sequence`; append to `steps` what the backward needs, equally many tensors per step."""
    (T, B, F), (_, N, D) = x_qkv.shape, memory.shape
    P, R = N * B, N + 1
    attention = Attention(x_qkv, N, B, num_heads, D, F)
    gates = None if w.gates is None else Gates(w.gates, N, B)
    norm_scale = 1 if gates is None else 2  # `Gates` takes 2 M~
    mlp_norm, mlp_norm_bias = w.mlp_norm * norm_scale, w.mlp_norm_bias * norm_scale
    qkv_weight = w.qkv.t()
    *hidden_layers, last_layer = [(w.mlp[i + 1], w.mlp[i].t()) for i in range(0, len(w.mlp), 2)]

    pre = x_qkv.new_empty(T, R, B, F)
    pre[:, N] = x_qkv
    pre_slots, pre_rows = pre[:, :N].view(T, P, F).unbind(0), pre.view(T, R * B, F).unbind(0)
    memories = x_qkv.new_empty(T, N, B, D)
    new = memories.view(T, P, D).unbind(0)
    x_gates_steps = [] if x_gates is None else x_gates.unbind(0)
    resets = []
    refill = memory  # not used without resets
    if starts is not None and fresh is not None:  # expanded: `where` is slow with a broadcast mask
        refill = fresh.unsqueeze(1).expand(N, B, D).reshape(P, D).contiguous()
        resets = starts.view(T, 1, B, 1).expand(T, N, B, D).reshape(T, P, D).unbind(0)

    m = memory.transpose(0, 1).reshape(P, D)
    for t in range(T):
        if resets:
            m = torch.where(resets[t], refill, m)
        torch.addmm(w.qkv_bias, m, qkv_weight, out=pre_slots[t])
        qkv, *qkv_moments = torch.native_layer_norm(pre_rows[t], (F,), w.qkv_norm, w.qkv_norm_bias, EPS)
        read, attended = attention.forward(qkv, mask)
        read.add_(m)
        rows, *read_moments = torch.native_layer_norm(
            read, (D,), w.attention_norm, w.attention_norm_bias, EPS
        )
        mlp = [rows]
        for layer in hidden_layers:
            mlp.append(torch.addmm(layer[0], mlp[-1], layer[1]).relu_())
        out = torch.addmm(last_layer[0], mlp[-1], last_layer[1]).add_(rows)
        content, *out_moments = torch.native_layer_norm(out, (D,), mlp_norm, mlp_norm_bias, EPS)
        gated = () if gates is None else gates.forward(x_gates_steps[t], m, content, out=new[t])
        if gates is None:
            new[t].copy_(content)
        if steps is not None:
            steps += (m, pre_rows[t], qkv, *qkv_moments, attended, read, *read_moments, out, *out_moments)
            steps += gated
            steps += mlp
        m = new[t]
    memories = memories.transpose(1, 2).contiguous()
    return memories, memories[-1].clone()


def _backward(
    d_memories: Tensor, d_last: Tensor, starts: Tensor | None, w: Weights, num_heads: int, steps: list[Tensor]
) -> list[Tensor | None]:
    """Return the gradients of memory, x_qkv, x_gates and every weight."""
    (T, B, N, D), F = d_memories.shape, w.qkv.shape[0]
    P = N * B
    attention = Attention(d_memories, N, B, num_heads, D, F, backward=True)
    at_once = gradients_at_once(d_memories.device)
    qkv_gradient, *mlp_gradients = (MatrixGradient(p, P, at_once) for p in (w.qkv, *w.mlp[::2]))
    gates = None if w.gates is None else Gates(w.gates, N, B, MatrixGradient(w.gates, P, at_once, bias=False))
    qkv_norm = NormGradient(w.qkv_norm, w.qkv_norm_bias, at_once)
    attention_norm = NormGradient(w.attention_norm, w.attention_norm_bias, at_once)
    mlp_norm = NormGradient(w.mlp_norm, w.mlp_norm_bias, at_once)
    d_x_qkv = d_memories.new_empty(T, B, F)
    d_x_qkv_steps = d_x_qkv.unbind(0)
    d_x_gates = None if gates is None else d_memories.new_empty(T, B, 2 * gates.G)
    d_x_gates_steps = [] if d_x_gates is None else d_x_gates.unbind(0)
    # The loop reads d_outputs[-1] at t = 0. It is zero: the memory before the first input is not an output.
    d_outputs = (*d_memories.transpose(1, 2).reshape(T, P, D).unbind(0), d_memories.new_zeros(()))
    carried = d_memories.new_ones(T, B) if starts is None else (~starts).to(d_memories.dtype)
    carried = carried.view(T, 1, B, 1).expand(T, N, B, 1).reshape(T, P, 1).unbind(0)

    dm = d_last.transpose(0, 1).reshape(P, D) + d_outputs[T - 1]
    per_step = len(steps) // T
    for t in reversed(range(T)):
        step = steps[t * per_step : (t + 1) * per_step]
        m, pre, qkv, mean0, rstd0, attended, read, mean1, rstd1, out, mean2, rstd2, *step = step
        if gates is None:
            mlp, d, d_m = step, dm, None
        else:
            content, tanh_m, gate, *mlp = step
            d, d_m = gates.backward(dm, m, content, tanh_m, gate, d_x_gates_steps[t])
        d = d_out = mlp_norm.backward(d, out, mean2, rstd2)
        for i in reversed(range(len(mlp))):
            mlp_gradients[i].add(d, mlp[i])
            if i > 0:
                d = torch.mm(d, w.mlp[2 * i])
                _relu_backward(d, mlp[i], 0, grad_input=d)
        d = torch.addmm(d_out, d, w.mlp[0])
        d_read = attention_norm.backward(d, read, mean1, rstd1)
        d = attention.backward(d_read, qkv, attended)
        d = qkv_norm.backward(d, pre, mean0, rstd0)
        d_x_qkv_steps[t].copy_(d[P:])
        d = d[:P]
        qkv_gradient.add(d, m)
        d = d_read.addmm_(d, w.qkv)
        if d_m is not None:
            d.add_(d_m)
        dm = torch.addcmul(d_outputs[t - 1], d, carried[t])
    parts = qkv_gradient, qkv_norm, attention_norm, mlp_norm
    d_gates = None if gates is None else gates.gradient.total()[0]
    d_weights = [d for part in parts for d in part.total()]
    d_mlp = [d for layer in mlp_gradients for d in layer.total()]
    return [dm.view(N, B, D).transpose(0, 1), d_x_qkv, d_x_gates, *d_weights, d_gates, *d_mlp]


def gradients_at_once(device: torch.device) -> bool:
    """Return whether weight gradients are computed after the loop, for all time steps at once."""
    return device.type != "cpu"

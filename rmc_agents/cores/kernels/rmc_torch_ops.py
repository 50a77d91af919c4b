"""Parts of an RMC step with gradients derived by hand, for `rmc_torch.py`.

Each object serves one pass over one sequence, forward or backward, and owns the scratch memory for it.

Axes: N slots, R rows (the slots, then the input: N + 1), B batch, P = N * B slot rows, A heads, H = B * A,
K key size, V head size, D = A * V slot size, F = A * (2K + V) features of a row's queries, keys and values,
G gate units (D or 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_softmax_backward = torch.ops.aten._softmax_backward_data.default
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class Attention:
    """softmax(q k^T / sqrt(K)) v, from the slots to all rows.

    Written as elementwise products and sums: batched matrix products of a few rows, and a softmax over a last
    axis of five, take several times as long on a CPU. The heads are part of the batch axis H, so that every
    sum and every broadcast is over a whole axis.
    """

    def __init__(self, like: Tensor, N: int, B: int, A: int, D: int, F: int, backward: bool = False) -> None:
        H, V = B * A, D // A
        K = (F // A - V) // 2
        self.slot_size, self.qkv_size = D, F
        # Shape, strides and offset of queries, keys and values in [R * B, F]. Slicing would be slower.
        row, head = B * F, F // A
        self.q = (N, 1, H, K), (row, row, head, 1), 0
        self.k = (N + 1, H, K), (row, head, 1), K
        self.v = (N + 1, H, V), (row, head, 1), 2 * K
        self.read = N, 1, H, V

        self.products, self.values = like.new_empty(N, N + 1, H, K), like.new_empty(N, N + 1, H, V)
        self.product_rows, self.value_rows = self.products.view(-1, K), self.values.view(-1, V)
        self.logits = like.new_empty(N, N + 1, H)
        self.flat_logits = self.logits.view(-1)
        # A sum over a short last axis is fastest as a product with a vector, which also applies the scale.
        self.scales = like.new_full((V if backward else K,), K**-0.5)
        if backward:
            self.d_q = like.new_zeros(N + 1, H, K)  # the input's row has no query: its gradient stays zero
            self.d_q_slots = self.d_q[:N]

    def forward(self, qkv: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """qkv [R * B, F] -> attention output [P, D] and weights [N, R, H], 0 where `mask` [N, R] is true."""
        q, k, v = qkv.as_strided(*self.q), qkv.as_strided(*self.k), qkv.as_strided(*self.v)
        torch.mul(q, k, out=self.products)
        torch.mv(self.product_rows, self.scales, out=self.flat_logits)
        if mask is not None:
            self.logits.masked_fill_(mask.unsqueeze(-1), -torch.inf)
        weights = torch.softmax(self.logits, 1)
        torch.mul(weights.unsqueeze(-1), v, out=self.values)
        return self.values.sum(1).view(-1, self.slot_size), weights

    def backward(self, d_read: Tensor, qkv: Tensor, weights: Tensor) -> Tensor:
        """Gradient of the attention output, d_read [P, D] -> d_qkv [R * B, F]."""
        q, k, v = qkv.as_strided(*self.q), qkv.as_strided(*self.k), qkv.as_strided(*self.v)
        d_read = d_read.view(self.read)
        torch.mul(d_read, v, out=self.values)
        torch.mv(self.value_rows, self.scales, out=self.flat_logits)
        d_logits = _softmax_backward(self.logits, weights, 1, weights.dtype).unsqueeze(-1)
        d_v = torch.mul(weights.unsqueeze(-1), d_read, out=self.values).sum(0)
        torch.sum(torch.mul(d_logits, k, out=self.products), 1, out=self.d_q_slots)
        d_k = torch.mul(d_logits, q, out=self.products).sum(0)
        return torch.cat((self.d_q, d_k, d_v), -1).view(-1, self.qkv_size)


class Gates:
    """M' = i tanh(M~) + f M, where i, f = sigmoid(x_gates + W tanh(M)).

    tanh(x) is computed as 2 sigmoid(2x) - 1, which is several times as fast on a CPU. `forward` takes 2 M~
    instead of M~ because the norm that computes M~ can double it at no cost.
    """

    def __init__(self, weight: Tensor, N: int, B: int, gradient: MatrixGradient | None = None) -> None:
        self.weight, self.N, self.B = weight, N, B
        self.G = weight.shape[0] // 2
        if gradient is not None:
            self.gradient = gradient
            self._allocate()
        else:
            self.weight_t = weight.t()
            self.minus_one = weight.new_full((), -1.0)

    def _allocate(self) -> None:
        """Allocate the gradient of the gates before the sigmoid."""
        self.d_gates = self.weight.new_empty(self.N * self.B, 2 * self.G)
        self.d_i, self.d_f = self.d_gates.chunk(2, 1)
        self.d_gates_by_slot = self.d_gates.view(self.N, self.B, 2 * self.G)

    def forward(self, x_gates: Tensor, m: Tensor, doubled: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        """x_gates [B, 2G], m [P, D], doubled = 2 M~ [P, D], overwritten -> the tensors for `backward`.

        M' is written to `out`.
        """
        content = torch.add(self.minus_one, doubled.sigmoid_(), alpha=2, out=doubled)
        tanh_m = torch.add(m, m).sigmoid_()
        torch.add(self.minus_one, tanh_m, alpha=2, out=tanh_m)
        gates = torch.cat((x_gates,) * self.N).addmm_(tanh_m, self.weight_t).sigmoid_()  # [P, 2G]
        i, f = gates.chunk(2, 1)
        torch.mul(f, m, out=out).addcmul_(i, content)
        return content, tanh_m, gates

    def backward(
        self, dm: Tensor, m: Tensor, content: Tensor, tanh_m: Tensor, gates: Tensor, d_x_gates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients: dM' [P, D] -> dM~ and dM [P, D].

        The gradient of x_gates is written to `d_x_gates`; that of the weight is added to `self.gradient`.
        """
        if self.gradient.at_once:
            self._allocate()  # the tensor of the step before is kept by `self.gradient`
        i, f = gates.chunk(2, 1)
        if self.G == 1:
            torch.sum(dm * content, 1, keepdim=True, out=self.d_i)
            torch.sum(dm * m, 1, keepdim=True, out=self.d_f)
        else:
            torch.mul(dm, content, out=self.d_i)
            torch.mul(dm, m, out=self.d_f)
        _sigmoid_backward(self.d_gates, gates, grad_input=self.d_gates)
        torch.sum(self.d_gates_by_slot, 0, out=d_x_gates)
        self.gradient.add(self.d_gates, tanh_m)
        d_content = torch.mul(dm, i)
        _tanh_backward(d_content, content, grad_input=d_content)
        d_m = torch.mm(self.d_gates, self.weight)
        _tanh_backward(d_m, tanh_m, grad_input=d_m)
        return d_content, d_m.addcmul_(dm, f)


class MatrixGradient:
    """Gradient of a matrix [out, in] and its bias: the sums of d^T rows and of d over the time steps.

    They are added up step by step or, if `at_once`, computed after the last step from all `d` and `rows`,
    which must not change until then.
    """

    def __init__(self, weight: Tensor, num_rows: int, at_once: bool, bias: bool = True) -> None:
        self.at_once, self._steps, self._bias = at_once, [], bias
        if not at_once:
            self._d_weight, self._d_bias = torch.zeros_like(weight), weight.new_zeros(len(weight))
            self._ones = weight.new_ones(num_rows)

    def add(self, d: Tensor, rows: Tensor) -> None:
        """Add the rows [P, in] that entered the matrix, and the gradient [P, out] of those that left it."""
        if self.at_once:
            self._steps.append((d, rows))
            return
        self._d_weight.addmm_(d.t(), rows)
        if self._bias:
            self._d_bias.addmv_(d.t(), self._ones)

    def total(self) -> tuple[Tensor, ...]:
        """Return the gradient of the matrix and, if there is one, of the bias."""
        if self.at_once:
            d, rows = (torch.cat(tensors) for tensors in zip(*self._steps, strict=True))
            return (d.t().mm(rows), d.sum(0)) if self._bias else (d.t().mm(rows),)
        return (self._d_weight, self._d_bias) if self._bias else (self._d_weight,)


class NormGradient:
    """Gradients of weight and bias of a layer norm, summed over the time steps as in `MatrixGradient`."""

    def __init__(self, weight: Tensor, bias: Tensor, at_once: bool) -> None:
        self._at_once, self._steps, self._weight, self._bias = at_once, [], weight, bias
        if not at_once:
            self._d_weight, self._d_bias = torch.zeros_like(weight), torch.zeros_like(bias)

    def backward(self, d: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """Return the gradient of the rows x [*, features] before the norm, from that of its result."""
        if self._at_once:
            self._steps.append((d, x, mean, rstd))
            return self._gradients(d, x, mean, rstd, [True, False, False])[0]
        d_x, d_weight, d_bias = self._gradients(d, x, mean, rstd, [True, True, True])
        self._d_weight.add_(d_weight)
        self._d_bias.add_(d_bias)
        return d_x

    def total(self) -> tuple[Tensor, ...]:
        """Return the gradients of weight and bias."""
        if not self._at_once:
            return self._d_weight, self._d_bias
        d, x, mean, rstd = (torch.cat(tensors) for tensors in zip(*self._steps, strict=True))
        return self._gradients(d, x, mean, rstd, [False, True, True])[1:]

    def _gradients(self, d: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, wanted: list[bool]) -> Any:
        return torch.ops.aten.native_layer_norm_backward.default(
            d, x, self._weight.shape, mean, rstd, self._weight, self._bias, wanted
        )

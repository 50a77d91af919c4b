"""Attention and gates of an RMC step with gradients derived by hand, for `rmc_torch.py`.

Each object serves one pass over one sequence, forward or backward, and owns the scratch memory for it.

Axes: N slots, R rows (the slots, then the input: N + 1), B batch, P = N * B slot rows, A heads, H = B * A,
K key size, V head size, D = A * V slot size, F = A * (2K + V) features of a row's queries, keys and values,
G gate units (D or 1).
"""

from __future__ import annotations

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

    def __init__(self, weight: Tensor, N: int, B: int, backward: bool = False) -> None:
        self.weight, self.N = weight, N
        self.G = weight.shape[0] // 2
        if backward:
            self.d_weight = torch.zeros_like(weight)
            self.d_gates = weight.new_empty(N * B, 2 * self.G)
            self.d_i, self.d_f = self.d_gates.chunk(2, 1)
            self.d_gates_by_slot = self.d_gates.view(N, B, 2 * self.G)
        else:
            self.weight_t = weight.t()
            self.minus_one = weight.new_full((), -1.0)

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

        The gradient of x_gates is written to `d_x_gates`; that of the weight is added to `self.d_weight`.
        """
        i, f = gates.chunk(2, 1)
        if self.G == 1:
            torch.sum(dm * content, 1, keepdim=True, out=self.d_i)
            torch.sum(dm * m, 1, keepdim=True, out=self.d_f)
        else:
            torch.mul(dm, content, out=self.d_i)
            torch.mul(dm, m, out=self.d_f)
        _sigmoid_backward(self.d_gates, gates, grad_input=self.d_gates)
        torch.sum(self.d_gates_by_slot, 0, out=d_x_gates)
        self.d_weight.addmm_(self.d_gates.t(), tanh_m)
        d_content = torch.mul(dm, i)
        _tanh_backward(d_content, content, grad_input=d_content)
        d_m = torch.mm(self.d_gates, self.weight)
        _tanh_backward(d_m, tanh_m, grad_input=d_m)
        return d_content, d_m.addcmul_(dm, f)

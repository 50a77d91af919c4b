"""The Differentiable Neural Computer: a controller that writes to and reads from an external memory.

Source: Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory" (Methods),
in the order of operations of the authors' implementation. That implementation stops the gradient from the
usage to the previous write weights; the paper's equations do not, and neither does this one. Addressing is a
set of pure functions.

Axes: B batch, I input size, N memory rows, W row width, R read heads, H controller size, K keys.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from rmc_agents.cores.base import HoistedCore, require_positive

EPS = 1e-6


class DNCState(NamedTuple):
    h: Tensor
    """[B, H] output of the controller."""
    c: Tensor
    """[B, H] cell of the controller."""
    memory: Tensor
    """[B, N, W]."""
    usage: Tensor
    """[B, N] how much of each row is in use, from 0 to 1."""
    write_weights: Tensor
    """[B, N] weights of the last write."""
    precedence: Tensor
    """[B, N] degree to which each row was the last one written."""
    link: Tensor
    """[B, N, N] link[i, j]: degree to which row i was written right after row j."""
    read_weights: Tensor
    """[B, R, N] weights of each head's last read."""
    reads: Tensor
    """[B, R, W] vectors that the heads read last."""


def content_weights(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    """Content-based addressing: softmax over rows of strength * cosine(key, row).

    Shapes: memory [B, N, W], keys [B, K, W], strengths [B, K] -> [B, K, N].

    The epsilon is inside the square root, because the norm of an all-zero row has no gradient otherwise.
    """
    norms = (memory.square().sum(-1) + EPS).sqrt()  # [B, N]
    key_norms = (keys.square().sum(-1) + EPS).sqrt()  # [B, K]
    cosine = keys @ memory.mT / (key_norms.unsqueeze(-1) * norms.unsqueeze(-2))
    return torch.softmax(strengths.unsqueeze(-1) * cosine, dim=-1)


def update_usage(usage: Tensor, write_weights: Tensor, read_weights: Tensor, free_gates: Tensor) -> Tensor:
    """Mark the rows last written as used, and the rows last read through an open free gate as unused.

        u' = (u + w_write - u w_write) * prod over heads of (1 - free gate * w_read)

    Shapes: usage and write_weights [B, N], read_weights [B, R, N], free_gates [B, R] -> [B, N].
    """
    usage = usage + (1 - usage) * write_weights
    retained = 1 - free_gates.unsqueeze(-1) * read_weights
    # Not prod(dim=1): its gradient synchronises with the device to look for zeros.
    return functools.reduce(torch.mul, retained.unbind(1), usage)


def allocation_weights(usage: Tensor) -> Tensor:
    """Weights for writing to unused rows: (1 - u_j) * the product of all smaller usages. [B, N] -> [B, N]."""
    usage = EPS + (1 - EPS) * usage
    ascending, order = usage.sort(dim=-1, stable=True)
    # Exclusive cumulative product of the sorted usages, as a sum of logarithms, whose gradient is cheap.
    logs = ascending.log()
    before = (logs.cumsum(-1) - logs).exp()
    return torch.zeros_like(usage).scatter(-1, order, (1 - ascending) * before)


def update_link(link: Tensor, precedence: Tensor, write_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Update the temporal links between rows, and the precedence.

        L'[i, j] = (1 - w_i - w_j) L[i, j] + w_i p_j  (0 where i = j),   p' = (1 - sum(w)) p + w

    The link uses the old precedence. Shapes: link [B, N, N], precedence and write_weights [B, N] -> the new
    link and precedence.
    """
    i, j = write_weights.unsqueeze(-1), write_weights.unsqueeze(-2)
    link = (1 - i - j) * link + i * precedence.unsqueeze(-2)
    rows = link.shape[-1]
    link = link * (1 - torch.eye(rows, device=link.device, dtype=link.dtype))
    precedence = (1 - write_weights.sum(-1, keepdim=True)) * precedence + write_weights
    return link, precedence


def read_weights(link: Tensor, previous: Tensor, content: Tensor, modes: Tensor) -> Tensor:
    """Mix three ways of reading: backward in write order, by content, and forward in write order.

    Shapes: link [B, N, N], previous and content [B, R, N], modes [B, R, 3] in that order -> [B, R, N].
    """
    forward = previous @ link.mT  # L w
    backward = previous @ link  # L^T w
    return modes[..., 0:1] * backward + modes[..., 1:2] * content + modes[..., 2:3] * forward


class DNC(HoistedCore):
    """Differentiable Neural Computer (Graves et al. 2016) with an LSTM controller and one write head.

    A step reads inputs [B, I] and computes, in this order, with w_w [N] and w_r [R, N] the write and read
    weights:

        h, c = LSTM([x; reads], h, c),  interface vector = W h + b
        usage = update_usage(usage, w_w, w_r, free gates)
        w_w = g_w (g_a allocation_weights(usage) + (1 - g_a) content_weights(M, write key))
        M' = M (1 - w_w erase^T) + w_w (write vector)^T
        w_r = read_weights(link', w_r, content_weights(M', read keys), modes),  reads = w_r M'
        output = W' [h; reads] + b'   [B, H]

    Cost per step and batch row: O(R N^2 + R N W + H (I + H + R W)). Most of the state is the
    link matrix [N, N] and the memory [N, W].

    Args:
        input_size: I.
        hidden_size: H, the size of the controller and of the output.
        num_rows: N.
        row_size: W.
        num_reads: R.
        clip: bound on the absolute value of the controller's output and cell.
    """

    capturable = True

    def __init__(
        self,
        input_size: int,
        *,
        hidden_size: int = 64,
        num_rows: int = 16,
        row_size: int = 16,
        num_reads: int = 4,
        clip: float = 20.0,
    ) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size, num_rows=num_rows, row_size=row_size, num_reads=num_reads)
        if not clip > 0:
            raise ValueError(f"clip must be positive, got {clip}")
        self.hidden_size, self.clip = hidden_size, clip
        self.num_rows, self.row_size, self.num_reads = num_rows, row_size, num_reads
        self.input_proj = nn.Linear(input_size, 4 * hidden_size)  # gates in the order i, f, g, o
        self.recurrent_proj = nn.Linear(hidden_size + num_reads * row_size, 4 * hidden_size, bias=False)
        self.interface_sizes = (
            *[row_size] * 3,  # write key, write vector, erase vector
            num_reads * row_size,  # read keys
            *[1] * 3,  # write strength, allocation gate, write gate
            *[num_reads] * 2,  # read strengths, free gates
            3 * num_reads,  # read modes
        )
        self.interface = nn.Linear(hidden_size, sum(self.interface_sizes))
        self.output_proj = nn.Linear(hidden_size + num_reads * row_size, hidden_size)
        with torch.no_grad():
            self.input_proj.bias[hidden_size : 2 * hidden_size] += 1.0  # forget gate open at first

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def initial_state(self, batch_size: int) -> DNCState:
        def zeros(*shape: int) -> Tensor:
            return self._anchor.new_zeros(batch_size, *shape)

        n, w, r, h = self.num_rows, self.row_size, self.num_reads, self.hidden_size
        return DNCState(
            h=zeros(h),
            c=zeros(h),
            memory=zeros(n, w),
            usage=zeros(n),
            write_weights=zeros(n),
            precedence=zeros(n),
            link=zeros(n, n),
            read_weights=zeros(r, n),
            reads=zeros(r, w),
        )

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.input_proj(inputs),)

    def recur(self, projected: tuple[Tensor, ...], state: DNCState) -> tuple[Tensor, DNCState]:
        h, c = self._control(projected[0], state)
        sizes = list(self.interface_sizes)
        write_key, write_vector, erase, keys, write_strength, allocation_gate, write_gate, *heads = (
            self.interface(h).split(sizes, dim=-1)
        )
        strengths, free_gates, modes = heads

        usage = update_usage(state.usage, state.write_weights, state.read_weights, torch.sigmoid(free_gates))
        content = content_weights(state.memory, write_key.unsqueeze(1), 1 + softplus(write_strength))
        content = content.squeeze(1)  # [B, N]
        g_a, g_w = torch.sigmoid(allocation_gate), torch.sigmoid(write_gate)
        w_w = g_w * (g_a * allocation_weights(usage) + (1 - g_a) * content)
        erased = 1 - w_w.unsqueeze(-1) * torch.sigmoid(erase).unsqueeze(-2)
        memory = state.memory * erased + w_w.unsqueeze(-1) * write_vector.unsqueeze(-2)

        link, precedence = update_link(state.link, state.precedence, w_w)
        keys = keys.unflatten(-1, (self.num_reads, self.row_size))
        content = content_weights(memory, keys, 1 + softplus(strengths))  # [B, R, N]
        modes = torch.softmax(modes.unflatten(-1, (self.num_reads, 3)), dim=-1)
        w_r = read_weights(link, state.read_weights, content, modes)
        reads = w_r @ memory  # [B, R, W]

        output = self.output_proj(torch.cat([h, reads.flatten(1)], dim=-1))
        return output, DNCState(h, c, memory, usage, w_w, precedence, link, w_r, reads)

    def _control(self, x: Tensor, state: DNCState) -> tuple[Tensor, Tensor]:
        """Advance the controller, an LSTM of the input, the last reads and its own output: -> h, c [B, H]."""
        recurrent = torch.cat([state.h, state.reads.flatten(1)], dim=-1)
        i, f, g, o = (x + self.recurrent_proj(recurrent)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        c = c.clamp(-self.clip, self.clip)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h.clamp(-self.clip, self.clip), c

"""The Differentiable Neural Computer: a controller that writes to and reads from an external memory.

Source: Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory" (Methods),
in the order of operations of the authors' implementation. That implementation stops the gradient from usage
to the last write weights; the paper's equations do not, nor does this. The addressing is pure functions.

Axes: B batch, N memory rows, W row width, R read heads, H controller size.
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
    """[B, H] the controller's output."""
    c: Tensor
    """[B, H] the controller's cell."""
    memory: Tensor
    """[B, N, W]."""
    usage: Tensor
    """[B, N] how much of each row is in use, 0 to 1."""
    write_weights: Tensor
    """[B, N] where was written last."""
    precedence: Tensor
    """[B, N] how much each row was the one written last."""
    link: Tensor
    """[B, N, N] link[i, j]: how much row i was written right after row j."""
    read_weights: Tensor
    """[B, R, N] where each head read last."""
    reads: Tensor
    """[B, R, W] what each head read."""


def content_weights(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    """softmax over rows of strength * cosine(key, row): [B, N, W], [B, K, W], [B, K] -> [B, K, N].

    The epsilon stands inside the square root: the norm of an empty row has no gradient otherwise.
    """
    norms = (memory.square().sum(-1) + EPS).sqrt()  # [B, N]
    key_norms = (keys.square().sum(-1) + EPS).sqrt()  # [B, K]
    cosine = keys @ memory.mT / (key_norms.unsqueeze(-1) * norms.unsqueeze(-2))
    return torch.softmax(strengths.unsqueeze(-1) * cosine, dim=-1)


def update_usage(usage: Tensor, write_weights: Tensor, read_weights: Tensor, free_gates: Tensor) -> Tensor:
    """What was written is in use, what was read and set free is not.

    Shapes: usage and write_weights [B, N], read_weights [B, R, N], free_gates [B, R] -> [B, N].
    """
    usage = usage + (1 - usage) * write_weights
    retained = 1 - free_gates.unsqueeze(-1) * read_weights
    # Not prod(dim=1): its gradient asks the device whether there is a zero.
    return functools.reduce(torch.mul, retained.unbind(1), usage)


def allocation_weights(usage: Tensor) -> Tensor:
    """Free rows first: (1 - u_j) times the product of all smaller usages: [B, N] -> [B, N]."""
    usage = EPS + (1 - EPS) * usage
    ascending, order = usage.sort(dim=-1, stable=True)
    # The product of the usages before each, exclusive of itself; a sum of logarithms has a cheap gradient.
    logs = ascending.log()
    before = (logs.cumsum(-1) - logs).exp()
    return torch.zeros_like(usage).scatter(-1, order, (1 - ascending) * before)


def update_link(link: Tensor, precedence: Tensor, write_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Which row was written after which: link [B, N, N], precedence and write_weights [B, N] -> both anew.

    The link is made with the old precedence; a row does not follow itself.
    """
    i, j = write_weights.unsqueeze(-1), write_weights.unsqueeze(-2)
    link = (1 - i - j) * link + i * precedence.unsqueeze(-2)
    rows = link.shape[-1]
    link = link * (1 - torch.eye(rows, device=link.device, dtype=link.dtype))
    precedence = (1 - write_weights.sum(-1, keepdim=True)) * precedence + write_weights
    return link, precedence


def read_weights(link: Tensor, previous: Tensor, content: Tensor, modes: Tensor) -> Tensor:
    """Read backward in time, by content, or forward.

    Shapes: link [B, N, N], previous and content [B, R, N], modes [B, R, 3] -> [B, R, N].
    """
    forward = previous @ link.mT  # L w
    backward = previous @ link  # L^T w
    return modes[..., 0:1] * backward + modes[..., 1:2] * content + modes[..., 2:3] * forward


class DNC(HoistedCore):
    """Differentiable Neural Computer with an LSTM controller and one write head.

    Args:
        input_size: width of the input.
        hidden_size: H, the controller's size, and the width of the output.
        num_rows: N.
        row_size: W.
        num_reads: R.
        clip: the controller's output and cell are kept within +-clip.
    """

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
        self.hidden_size, self.num_rows, self.row_size, self.num_reads = (
            hidden_size,
            num_rows,
            row_size,
            num_reads,
        )
        self.clip = clip
        self.input_proj = nn.Linear(input_size, 4 * hidden_size)  # gates in the order i, f, g, o
        self.recurrent_proj = nn.Linear(hidden_size + num_reads * row_size, 4 * hidden_size, bias=False)
        # write key, write vector, erase; read keys; write strength, allocation and write gates; read
        # strengths, free gates; read modes
        self.interface_sizes = (
            *[row_size] * 3,
            num_reads * row_size,
            1,
            1,
            1,
            *[num_reads] * 2,
            3 * num_reads,
        )
        self.interface = nn.Linear(hidden_size, sum(self.interface_sizes))
        self.output_proj = nn.Linear(hidden_size + num_reads * row_size, hidden_size)
        with torch.no_grad():
            self.input_proj.bias[hidden_size : 2 * hidden_size] += 1.0  # keep the cell at first

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
        """The controller, an LSTM of the input, what was read, and its own output."""
        recurrent = torch.cat([state.h, state.reads.flatten(1)], dim=-1)
        i, f, g, o = (x + self.recurrent_proj(recurrent)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        c = c.clamp(-self.clip, self.clip)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h.clamp(-self.clip, self.clip), c

"""Stable Hadamard Memory: a matrix memory that is scaled element by element.

Axes: T time, B batch, I input size, H memory size, O output size, L rows of calibrations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores.base import HoistedCore, require_positive
from rmc_agents.cores.kernels import hadamard_native as native
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.unchanged import replaces
from rmc_agents.cores.scan import linear_scan


class SHMState(NamedTuple):
    memory: Tensor
    """[B, H, H] what has been stored: the sum of values times keys, rescaled since."""
    row: Tensor
    """[B] row of calibrations that the next step uses: number of the step in its episode, modulo L."""


class _Projected(NamedTuple):
    """What a step needs of its input."""

    query: Tensor
    """[..., H] not negative, of sum 1."""
    key: Tensor
    """[..., H] not negative, of sum 1."""
    value: Tensor
    """[..., H] times the share that is written."""
    scale: Tensor
    """[..., H] of the calibration's columns: W_c x."""


class SHM(HoistedCore):
    """Stable Hadamard Memory (Le et al. 2025): inputs [B, I], memory M [B, H, H] -> output [B, O].

    With x = layer_norm(input), all products of elements but the last, and (x) the outer product,

        q, k = relu(W x) / sum(relu(W x)),  v = W x,  eta = sigmoid(w x)
        C = 1 + tanh(theta_l (x) W_c x)         calibration: weakens (C < 1) or strengthens (C > 1) elements
        M' = M * C + eta (v (x) k)
        output = M' q                           W_o M' q with `projection_size`

    where theta_l is one of L learned rows. The paper draws l at random in each step, so that the
    calibrations of successive steps are independent and the expected product of them stays bounded. Here l
    is the number of the step in its episode, modulo L: the rows are drawn independently when the core is
    initialised, so that a fixed order of them is as random as any other, and a row returns after L steps
    only. Acting, training and evaluation then use the same rows, and nothing is drawn: a replayed sequence
    gives the same outputs, and the probability ratios of PPO are 1 before the first gradient step. (The code
    that the authors published uses the first row in every step: `num_rows=1`.)

    `unroll` computes the memories by `linear_scan`, on a CPU in C. Cost per step and batch row:
    O(I H + H^2), and H^2 numbers for each step of a sequence that is learned from.

    Args:
        input_size: I.
        hidden_size: H.
        num_rows: L.
        projection_size: O, the width of the paper's output projection; None for none, since the heads of an
            agent are in its place: then O is H.
    """

    capturable = True

    def __init__(
        self,
        input_size: int,
        *,
        hidden_size: int = 32,
        num_rows: int = 128,
        projection_size: int | None = None,
    ) -> None:
        super().__init__(input_size)
        output_size = hidden_size if projection_size is None else projection_size
        require_positive(hidden_size=hidden_size, num_rows=num_rows, projection_size=output_size)
        self.hidden_size, self.num_rows = hidden_size, num_rows
        self.sizes = (hidden_size, hidden_size, hidden_size, hidden_size, 1)  # q, k, v, v_c, eta
        self.input_norm = nn.LayerNorm(input_size)
        self.input_proj = nn.Linear(input_size, sum(self.sizes), bias=False)
        self.theta = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_rows, hidden_size)))
        self.output_proj = None if projection_size is None else nn.Linear(hidden_size, projection_size)

    @property
    def output_size(self) -> int:
        return self.hidden_size if self.output_proj is None else self.output_proj.out_features

    def initial_state(self, batch_size: int) -> SHMState:
        size = batch_size, self.hidden_size, self.hidden_size
        return SHMState(self._anchor.new_zeros(size), self._anchor.new_zeros(batch_size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        query, key, value, scale, eta = self.input_proj(self.input_norm(inputs)).split(self.sizes, dim=-1)
        return _Projected(_shares(query), _shares(key), torch.sigmoid(eta) * value, scale)

    def recur(self, projected: tuple[Tensor, ...], state: SHMState) -> tuple[Tensor, SHMState]:
        query, key, value, scale = projected
        row = _whole(state.row) % self.num_rows
        factors = _calibrations(nn.functional.embedding(row, self.theta), scale)
        memory = state.memory * factors + value.unsqueeze(-1) * key.unsqueeze(-2)
        after = ((row + 1) % self.num_rows).to(state.row.dtype)
        return self._output(_read(memory, query)), SHMState(memory, after)

    def unroll(self, inputs: Tensor, state: SHMState, starts: Tensor) -> tuple[Tensor, SHMState]:
        if not eager(inputs.device) or replaces(self, SHM, "initial_state", "recur"):
            return super().unroll(inputs, state, starts)
        query, key, value, scale = self.project(inputs)
        rows = _rows(state.row, starts) % self.num_rows
        after = rows[-1].to(state.row.dtype)
        theta = nn.functional.embedding(rows[:-1], self.theta)
        arguments = native.Arguments(query, key, value, scale, theta, state.memory, starts)
        if native.usable(arguments):
            reads, memory = native.native_sequence(arguments)
            return self._output(reads), SHMState(memory, after)
        factors = _calibrations(theta, scale).masked_fill(starts[..., None, None], 0.0)
        memories = linear_scan(factors, value.unsqueeze(-1) * key.unsqueeze(-2), state.memory)
        return self._output(_read(memories, query)), SHMState(memories[-1], after)

    def _output(self, read: Tensor) -> Tensor:
        return read if self.output_proj is None else self.output_proj(read)


def _calibrations(theta: Tensor, scale: Tensor) -> Tensor:
    """Return C [..., H, H] for theta_l and W_c x, [..., H] each."""
    return 1 + torch.tanh(theta.unsqueeze(-1) * scale.unsqueeze(-2))


def _read(memory: Tensor, query: Tensor) -> Tensor:
    return (memory @ query.unsqueeze(-1)).squeeze(-1)


def _shares(x: Tensor) -> Tensor:
    """Return relu(x) divided by its sum."""
    x = torch.relu(x)
    return x / (x.sum(-1, keepdim=True) + 1e-5)


def _whole(row: Tensor) -> Tensor:
    """Return rows as integers."""
    return row.detach().round().long()


def _rows(row: Tensor, starts: Tensor) -> Tensor:
    """Return the number of each step in its episode and of the step after the last: [T + 1, B].

    Args:
        row: [B] of the first step, if no episode starts there.
        starts: [T, B] bool.
    """
    T = len(starts)
    t = torch.arange(T, device=starts.device).unsqueeze(1)
    first = torch.where(starts, t, -1).cummax(0).values  # [T, B] where the episode started, if here
    numbers = torch.where(first < 0, _whole(row) + t, t - first)
    return torch.cat([numbers, numbers[-1:] + 1])

"""The classical recurrent cores: Elman RNN, LSTM, GRU.

`recur` is the core to read; `step` and `unroll` compute the same in C where there is a compiler.

Axes: T time, B batch, D input size, H hidden size.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores.base import HoistedCore, require_positive
from rmc_agents.cores.native import gated as native
from rmc_agents.cores.native.call import eager


class RNNState(NamedTuple):
    h: Tensor
    """[B, H] the last output."""


class GRUState(NamedTuple):
    h: Tensor
    """[B, H] the last output."""


class LSTMState(NamedTuple):
    h: Tensor
    """[B, H] the last output."""
    c: Tensor
    """[B, H] the cell."""


class _GatedCore(HoistedCore, ABC):
    """A core whose gates are linear in its input and its last output, `input_proj` and `hidden_proj`."""

    kind: ClassVar[native.Kind]
    hidden_size: int
    input_proj: nn.Linear
    hidden_proj: nn.Linear

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        found = self._in_c(inputs.unsqueeze(0), state, None)
        return super().step(inputs, state) if found is None else (found[0][0], found[1])

    def unroll(self, inputs: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        found = self._in_c(inputs, state, starts)
        return super().unroll(inputs, state, starts) if found is None else found

    def _in_c(self, inputs: Tensor, state: Any, starts: Tensor | None) -> tuple[Tensor, Any] | None:
        if not eager(inputs.device):
            return None
        h, c = state if len(state) == 2 else (state[0], None)
        x, u = self.input_proj, self.hidden_proj
        arguments = native.Arguments(inputs, h, c, starts, x.weight, x.bias, u.weight, u.bias)
        if not native.usable(self.kind, arguments):
            return None
        outputs, *last = native.native_sequence(self.kind, arguments)
        return outputs, type(state)(*last)


class RNN(_GatedCore):
    """Elman RNN (Elman 1990): h' = tanh(W x + U h + b).

    Args:
        input_size: D.
        hidden_size: H.
    """

    kind = "rnn"

    def __init__(self, input_size: int, *, hidden_size: int = 128) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size)
        self.hidden_size = hidden_size
        self.input_proj = nn.Linear(input_size, hidden_size)
        self.hidden_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        _initialise(self.input_proj, self.hidden_proj, num_gates=1)

    def initial_state(self, batch_size: int) -> RNNState:
        return RNNState(self._anchor.new_zeros(batch_size, self.hidden_size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.input_proj(inputs),)

    def recur(self, projected: tuple[Tensor, ...], state: RNNState) -> tuple[Tensor, RNNState]:
        (x,) = projected
        h = torch.tanh(x + self.hidden_proj(state.h))
        return h, RNNState(h)


class LSTM(_GatedCore):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gate).

    i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b), c' = f c + i g, h' = o tanh(c').

    Args:
        input_size: D.
        hidden_size: H.
        forget_bias: initial bias of the forget gate; 1 keeps the cell at first.
    """

    kind = "lstm"

    def __init__(self, input_size: int, *, hidden_size: int = 128, forget_bias: float = 1.0) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size)
        self.hidden_size = hidden_size
        self.input_proj = nn.Linear(input_size, 4 * hidden_size)  # gates in the order i, f, g, o
        self.hidden_proj = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        _initialise(self.input_proj, self.hidden_proj, num_gates=4)
        with torch.no_grad():
            self.input_proj.bias[hidden_size : 2 * hidden_size] = forget_bias

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self._anchor.new_zeros(batch_size, self.hidden_size)
        return LSTMState(zeros, zeros)

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.input_proj(inputs),)

    def recur(self, projected: tuple[Tensor, ...], state: LSTMState) -> tuple[Tensor, LSTMState]:
        (x,) = projected
        i, f, g, o = (x + self.hidden_proj(state.h)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, LSTMState(h, c)


class GRU(_GatedCore):
    """Gated recurrent unit (Cho et al. 2014), in the form of cuDNN and `nn.GRU`.

    r, z = sigmoid(W x + b + U h + b'), n = tanh(W x + b + r (U h + b')), h' = (1 - z) n + z h.

    Args:
        input_size: D.
        hidden_size: H.
        update_bias: initial bias of the update gate z; above 0 keeps the state at first.
    """

    kind = "gru"

    def __init__(self, input_size: int, *, hidden_size: int = 128, update_bias: float = 0.0) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size)
        self.hidden_size = hidden_size
        self.input_proj = nn.Linear(input_size, 3 * hidden_size)  # gates in the order r, z, n
        self.hidden_proj = nn.Linear(hidden_size, 3 * hidden_size)
        _initialise(self.input_proj, self.hidden_proj, num_gates=3)
        with torch.no_grad():
            self.input_proj.bias[hidden_size : 2 * hidden_size] = update_bias

    def initial_state(self, batch_size: int) -> GRUState:
        return GRUState(self._anchor.new_zeros(batch_size, self.hidden_size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.input_proj(inputs),)

    def recur(self, projected: tuple[Tensor, ...], state: GRUState) -> tuple[Tensor, GRUState]:
        (x,) = projected
        x_r, x_z, x_n = x.chunk(3, dim=-1)
        h_r, h_z, h_n = self.hidden_proj(state.h).chunk(3, dim=-1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        h = torch.addcmul(
            n, z, state.h - n
        )  # (1 - z) n + z h; `lerp` would not mix precisions under autocast
        return h, GRUState(h)


@torch.no_grad()
def _initialise(input_proj: nn.Linear, hidden_proj: nn.Linear, num_gates: int) -> None:
    """Orthogonal recurrent matrices, gate by gate; variance-preserving inputs; zero biases."""
    nn.init.xavier_uniform_(input_proj.weight, gain=num_gates**0.5)
    for gate in hidden_proj.weight.chunk(num_gates):
        nn.init.orthogonal_(gate)
    for linear in (input_proj, hidden_proj):
        if linear.bias is not None:
            linear.bias.zero_()

"""The classical recurrent cores: Elman RNN, LSTM and GRU.

`recur` defines each core. `step` and `unroll` compute the same in C (kernels/c/gated.c) where there is a
compiler, and LSTM and GRU on a GPU in Triton (kernels/gated_triton_kernels.py). minGRU (mingru.py) uses the
same code.

Axes: T time, B batch, I input size, H hidden size, which is also the output size.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores.base import (
    HoistedCore,
    IndexedInputs,
    PreparedSteps,
    PreparedUnroll,
    gradient_of,
    require_positive,
)
from rmc_agents.cores.kernels import gated_native as native
from rmc_agents.cores.kernels import gated_triton
from rmc_agents.cores.kernels.call import eager, in_place
from rmc_agents.cores.kernels.unchanged import are_plain, replaces
from rmc_agents.tree import map_tree


class RNNState(NamedTuple):
    h: Tensor
    """[B, H] the previous output."""


class GRUState(NamedTuple):
    h: Tensor
    """[B, H] the previous output."""


class LSTMState(NamedTuple):
    h: Tensor
    """[B, H] the previous output."""
    c: Tensor
    """[B, H] the cell."""


_CORES: dict[native.Kind, type[GatedCore]] = {}  # filled by `GatedCore.__init_subclass__`


class GatedCore(HoistedCore, ABC):
    """Core whose gates are linear in the input (`input_proj`) and the previous output.

    A class with a `kind` defines that core. Its layer for the previous output is `hidden_proj`, if it has
    one.
    """

    kind: ClassVar[native.Kind]
    hidden_size: int
    input_proj: nn.Linear

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in vars(cls):
            _CORES[cls.kind] = cls

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        result = self._run_fused(inputs.unsqueeze(0), state, None)
        return super().step(inputs, state) if result is None else (result[0][0], result[1])

    def unroll(self, inputs: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        result = self._run_fused(inputs, state, starts)
        return self._unroll_in_torch(inputs, state, starts) if result is None else result

    def _unroll_in_torch(self, inputs: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        return super().unroll(inputs, state, starts)

    def unroll_indexed(self, inputs: IndexedInputs, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        own = not replaces(self, GatedCore, "unroll")
        result = self._run_fused(inputs.rows, state, starts, inputs.ids) if own else None
        return super().unroll_indexed(inputs, state, starts) if result is None else result

    def prepare_unroll(self, inputs: IndexedInputs, state: Any, starts: Tensor) -> PreparedUnroll | None:
        if replaces(self, GatedCore, "unroll") or not self._has_fused_sequence(inputs.rows):
            return None
        arguments = self._native_arguments(inputs.rows, state, starts, inputs.ids)
        if not native.usable(self.kind, arguments) or not in_place(arguments):
            return None
        weights = arguments.input, arguments.input_bias, arguments.hidden, arguments.hidden_bias
        return native.PreparedSequences(self.kind, arguments, map_tree(gradient_of, weights))

    def prepare_steps(self, inputs: Tensor, states: Any, starts: Tensor) -> PreparedSteps | None:
        if replaces(self, GatedCore, "unroll") or not self._has_fused_sequence(inputs):
            return None
        first = type(states)(*(x[0] for x in states))
        arguments = self._native_arguments(inputs.unsqueeze(0), first, starts[:1], None)
        if not native.usable(self.kind, arguments) or not in_place([*arguments, *states, starts]):
            return None
        return native.PreparedSteps(self.kind, arguments, states, starts)

    def _has_fused_sequence(self, inputs: Tensor) -> bool:
        """Return whether C or Triton can compute what the core defines: neither methods nor layers differ."""
        return (
            eager(inputs.device)
            and are_plain(*filter(None, self._layers()))
            and not replaces(self, _CORES[self.kind], "initial_state", "project", "recur")
        )

    def _run_fused(
        self, inputs: Tensor, state: Any, starts: Tensor | None, ids: Tensor | None = None
    ) -> tuple[Tensor, Any] | None:
        """Run a sequence in C or Triton: outputs [T, B, H] and the last state; None if neither can."""
        if not self._has_fused_sequence(inputs):
            return None
        if ids is None and gated_triton.unusable(self, inputs, state) is None:
            return gated_triton.run(self, inputs, state, starts)
        arguments = self._native_arguments(inputs, state, starts, ids)
        if not native.usable(self.kind, arguments):
            return None
        outputs, *last = native.native_sequence(self.kind, arguments)
        return outputs, type(state)(*last)

    def _native_arguments(
        self, inputs: Tensor, state: Any, starts: Tensor | None, ids: Tensor | None
    ) -> native.Arguments:
        h, c = state if len(state) == 2 else (state[0], None)
        x, u = self._layers()
        hidden, bias = (None, None) if u is None else (u.weight, u.bias)
        return native.Arguments(inputs, h, c, starts, x.weight, x.bias, hidden, bias, ids)

    def _layers(self) -> tuple[nn.Linear, nn.Linear | None]:
        return self.input_proj, getattr(self, "hidden_proj", None)


class RNN(GatedCore):
    """Elman RNN (Elman 1990): inputs [B, I] -> output [B, H].

        h' = tanh(W x + U h + b)

    Cost per step and batch row: O(H (I + H)).

    Args:
        input_size: I.
        hidden_size: H.
    """

    capturable = True
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


class LSTM(GatedCore):
    """LSTM (Hochreiter & Schmidhuber 1997, with a forget gate): inputs [B, I] -> output [B, H].

        i, f, o = sigmoid(W x + U h + b),  g = tanh(W x + U h + b)   (W, U, b per gate)
        c' = f c + i g,  h' = o tanh(c')

    Cost per step and batch row: O(4 H (I + H)).

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate; 1 keeps most of the cell at first.
    """

    capturable = True
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


class GRU(GatedCore):
    """GRU (Cho et al. 2014, in the form of `nn.GRU`): inputs [B, I] -> output [B, H].

        r, z = sigmoid(W x + b + U h + b')   (W, b, U, b' per gate)
        n = tanh(W x + b + r (U h + b')),  h' = (1 - z) n + z h

    This form, which cuDNN uses too, applies r after the product with U.

    Cost per step and batch row: O(3 H (I + H)).

    Args:
        input_size: I.
        hidden_size: H.
        update_bias: initial bias of the update gate z; above 0 keeps more of the state at first.
    """

    capturable = True
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
        # (1 - z) n + z h; not `lerp`, which does not accept the mixed precisions of autocast.
        h = torch.addcmul(n, z, state.h - n)
        return h, GRUState(h)


@torch.no_grad()
def _initialise(input_proj: nn.Linear, hidden_proj: nn.Linear, num_gates: int) -> None:
    """Initialise: orthogonal recurrent matrices per gate, variance-preserving input weights, zero biases."""
    nn.init.xavier_uniform_(input_proj.weight, gain=num_gates**0.5)
    for gate in hidden_proj.weight.chunk(num_gates):
        nn.init.orthogonal_(gate)
    for linear in (input_proj, hidden_proj):
        if linear.bias is not None:
            linear.bias.zero_()

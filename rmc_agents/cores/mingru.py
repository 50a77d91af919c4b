"""minGRU: a gated core whose gates do not read its state, so that whole sequences are one scan.

Axes: T time, B batch, I input size, H hidden size, which is also the output size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores.base import HoistedCore, require_positive
from rmc_agents.cores.gated import GatedCore
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.unchanged import replaces
from rmc_agents.cores.scan import linear_scan


class MinGRUState(NamedTuple):
    h: Tensor
    """[B, H] the previous output."""


class MinGRU(GatedCore):
    """minGRU (Feng et al. 2024): inputs [B, I], state h [B, H] -> output h' [B, H].

        z = sigmoid(W_z x + b_z),  c = g(W_c x + b_c),  h' = (1 - z) h + z c
        g(x) = x + 1/2 where x >= 0, and sigmoid(x) elsewhere

    Gates and candidates depend on the input alone, so that `unroll` computes all of them in one product, and
    the states by `linear_scan`; on a CPU, C does both. What the core cannot do in one layer is decide by what
    it remembers. Cost per step and batch row: O(I H).

    Args:
        input_size: I.
        hidden_size: H.
        update_bias: initial bias of z. Units differ in how long they remember at first: their biases are
            spread evenly between this and 0.
    """

    capturable = True
    kind = "mingru"

    def __init__(self, input_size: int, *, hidden_size: int = 128, update_bias: float = -4.0) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size)
        self.hidden_size = hidden_size
        self.input_proj = nn.Linear(input_size, 2 * hidden_size)  # z, c
        with torch.no_grad():
            self.input_proj.bias[:hidden_size] = torch.linspace(update_bias, 0.0, hidden_size)

    def initial_state(self, batch_size: int) -> MinGRUState:
        return MinGRUState(self._anchor.new_zeros(batch_size, self.hidden_size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        update, candidate = self.input_proj(inputs).chunk(2, dim=-1)
        update = torch.sigmoid(update)
        candidate = torch.where(candidate >= 0, candidate + 0.5, torch.sigmoid(candidate))
        return 1 - update, update * candidate

    def recur(self, projected: tuple[Tensor, ...], state: MinGRUState) -> tuple[Tensor, MinGRUState]:
        kept, new = projected
        h = kept * state.h + new
        return h, MinGRUState(h)

    def _unroll_in_torch(
        self, inputs: Tensor, state: MinGRUState, starts: Tensor
    ) -> tuple[Tensor, MinGRUState]:
        if not eager(inputs.device) or replaces(self, MinGRU, "initial_state", "recur"):
            return HoistedCore.unroll(self, inputs, state, starts)
        kept, new = self.project(inputs)
        h = linear_scan(kept.masked_fill(starts.unsqueeze(-1), 0.0), new, state.h)
        return h, MinGRUState(h[-1])

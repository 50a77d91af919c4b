"""No memory at all: the control in every experiment."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores.base import MemoryCore, require_positive


class FeedforwardState(NamedTuple):
    nothing: Tensor
    """[B, 0]."""


class Feedforward(MemoryCore):
    """output = relu(W x + b). What it cannot do, only memory can.

    Args:
        input_size: D.
        hidden_size: H, the width of the output.
    """

    def __init__(self, input_size: int, *, hidden_size: int = 128) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size)
        self.linear = nn.Linear(input_size, hidden_size)

    @property
    def output_size(self) -> int:
        return self.linear.out_features

    def initial_state(self, batch_size: int) -> FeedforwardState:
        return FeedforwardState(self._anchor.new_zeros(batch_size, 0))

    def step(self, inputs: Tensor, state: FeedforwardState) -> tuple[Tensor, FeedforwardState]:
        return torch.relu(self.linear(inputs)), state

    def unroll(
        self, inputs: Tensor, state: FeedforwardState, starts: Tensor
    ) -> tuple[Tensor, FeedforwardState]:
        return self.step(inputs, state)  # no state, so no loop over time

"""A core without memory: the control in every experiment.

Axes: B batch, I input size, H output size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores.base import MemoryCore, require_positive


class FeedforwardState(NamedTuple):
    nothing: Tensor
    """[B, 0]."""


class Feedforward(MemoryCore):
    """Memoryless control: output = relu(W x + b), inputs [B, I] -> output [B, H].

    A task that this core solves does not need memory. Cost per step and batch row: O(I H).

    Args:
        input_size: I.
        hidden_size: H.
    """

    capturable = True

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

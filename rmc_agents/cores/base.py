"""The contract of a memory core: state is an argument and a result, never an attribute.

Axes: T time, B batch, D input size, H output size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from rmc_agents.tree import map_tree

State = Any
"""A NamedTuple of tensors, each with the batch axis first: [B, ...]."""


class MemoryCore(nn.Module, ABC):
    """A recurrent memory. A new one needs `initial_state`, `step` and `output_size`, and a line in `CORES`.

    Every constructor takes `input_size` first and its own options, each with a default, by keyword.
    """

    _anchor: Tensor

    def __init__(self, input_size: int) -> None:
        super().__init__()
        require_positive(input_size=input_size)
        self.input_size = input_size
        # Knows the device and dtype of the core even where the core has no parameters.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    @property
    @abstractmethod
    def output_size(self) -> int:
        """H, the width of the output."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """A fresh state for `batch_size` rows, on the core's device."""

    @abstractmethod
    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one input: inputs [B, D], state -> output [B, H], next state."""

    def unroll(self, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Read a sequence, beginning episodes afresh where they start.

        Args:
            inputs: [T, B, D].
            state: the state before the first input.
            starts: [T, B] bool; where `starts[t]` is true that row goes back to `initial_state`
                before it reads `inputs[t]`.

        Returns:
            outputs [T, B, H] and the state after the last input.
        """
        fresh = self.initial_state(inputs.shape[1])
        outputs = []
        # unbind and not inputs[t]: indexing in a differentiated loop makes autograd allocate a zero
        # tensor of the whole sequence at every step.
        for x, start in zip(inputs.unbind(0), starts.unbind(0), strict=True):
            output, state = self.step(x, reset_rows(state, fresh, start))
            outputs.append(output)
        return torch.stack(outputs), state


class HoistedCore(MemoryCore, ABC):
    """A core that splits its step into what depends on the input alone and what depends on the state.

    `project` is applied to a whole sequence in one matrix product; only `recur` is in the time loop.
    """

    @abstractmethod
    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The part of a step that does not depend on the state: [..., D] -> tensors [..., *]."""

    @abstractmethod
    def recur(self, projected: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        """The rest of the step: projected [B, *], state -> output [B, H], next state."""

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        return self.recur(self.project(inputs), state)

    def unroll(self, inputs: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        fresh = self.initial_state(inputs.shape[1])
        outputs = []
        projected = [p.unbind(0) for p in self.project(inputs)]
        for start, *x in zip(starts.unbind(0), *projected, strict=True):
            output, state = self.recur(tuple(x), reset_rows(state, fresh, start))
            outputs.append(output)
        return torch.stack(outputs), state


def reset_rows(state: State, fresh: State, starts: Tensor) -> State:
    """`fresh` where `starts` [B] is true, `state` elsewhere.

    Never a multiplication by zero: the fresh state of a core need not be zero, and 0 * inf is not 0.
    """
    return map_tree(lambda s, f: torch.where(starts.view(-1, *[1] * (s.ndim - 1)), f, s), state, fresh)


def require_positive(**sizes: int) -> None:
    """Raise ValueError naming the first size that is not a positive whole number."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")

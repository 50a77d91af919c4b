"""Adapter that lets a memory core take the place of sb3-contrib's LSTM.

Axes: T time, B batch, D input size, H output size, S numbers in a state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmc_agents.cores import MemoryCore, State
from rmc_agents.tree import leaves, unflatten

PackedState = tuple[Tensor, ...]
"""A memory's state as sb3-contrib stores it: an LSTM's two tensors, [num_layers, B, hidden_size] each."""


class PackedCore(nn.Module):
    """A memory core with the attributes and state format of an `nn.LSTM`, as far as sb3-contrib uses them.

    sb3-contrib stores two float32 tensors [num_layers, B, hidden_size] for a memory and resets them to zero.
    A state is therefore stored as its difference from the initial state, with its S numbers split in half:
    zeros mean the initial state, even for the RMC, whose initial state is the identity matrix.

    Args:
        core: the memory core.
        skip: concatenate the inputs to the outputs, so that the next layers read both.
    """

    num_layers = 1

    def __init__(self, core: MemoryCore, skip: bool = False) -> None:
        super().__init__()
        self.core, self.skip = core, skip
        self.input_size = core.input_size
        self.output_size = core.output_size + skip * core.input_size
        numbers = sum(leaf.numel() for leaf in leaves(core.initial_state(1)))
        self.hidden_size = max(1, (numbers + 1) // 2)

    def pack(self, state: State) -> PackedState:
        """Pack a state of the core into two tensors [1, B, hidden_size]."""
        rows = _flatten_rows(state)
        difference = rows - _flatten_rows(self.core.initial_state(1))
        difference = nn.functional.pad(difference, (0, 2 * self.hidden_size - rows.shape[1]))
        first, second = difference.unsqueeze(0).chunk(2, dim=-1)
        return first, second

    def unpack(self, packed: PackedState) -> State:
        """Unpack two tensors [1, B, hidden_size] into a state of the core; the inverse of `pack`."""
        initial = self.core.initial_state(packed[0].shape[1])
        difference = torch.cat(packed, dim=-1).squeeze(0)
        tensors = []
        for leaf in leaves(initial):
            part, difference = difference.tensor_split([leaf[0].numel()], dim=1)
            part = part.reshape(leaf.shape)
            tensors.append(leaf + (part if leaf.is_floating_point() else part.round().to(leaf.dtype)))
        return unflatten(initial, tensors)

    def forward(self, inputs: Tensor, packed: PackedState, starts: Tensor) -> tuple[Tensor, PackedState]:
        """Run the core over a sequence.

        Args:
            inputs: [T, B, D].
            packed: state before the first step.
            starts: [T, B] bool, true where an episode starts.

        Returns:
            outputs [T, B, H], or [T, B, H + D] with `skip`, and the packed state after the last step.
        """
        outputs, state = self.core.unroll(inputs, self.unpack(packed), starts)
        return torch.cat([outputs, inputs], dim=-1) if self.skip else outputs, self.pack(state)


def _flatten_rows(state: State) -> Tensor:
    """Return the numbers of a state as float32 [B, S]."""
    return torch.cat([leaf.reshape(leaf.shape[0], -1).float() for leaf in leaves(state)], dim=1)

"""A memory core in the place where sb3-contrib keeps its LSTM.

Axes: T time, B batch, D input size, H output size, S numbers in a state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmc_agents.cores import MemoryCore, State
from rmc_agents.tree import leaves, unflatten

PackedState = tuple[Tensor, ...]
"""What sb3-contrib stores of a memory: an LSTM's two tensors, each [layers, B, hidden size]."""


class PackedCore(nn.Module):
    """Any memory core behind the face of an `nn.LSTM`, as far as sb3-contrib looks at one.

    sb3-contrib keeps two float32 tensors [num_layers, B, hidden_size] a memory, whatever the memory is, and
    takes zeros for fresh. So a state is stored as its distance from the fresh state, its S numbers dealt
    out to the two tensors by halves: zeros mean fresh, also where fresh is the RMC's identity matrix.

    Args:
        core: the memory.
        skip: add the inputs to the outputs, so that what follows reads them beside the memory.
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
        """A state of the core -> two tensors [1, B, hidden_size]."""
        rows = _rows(state)
        distance = rows - _rows(self.core.initial_state(1))
        distance = nn.functional.pad(distance, (0, 2 * self.hidden_size - rows.shape[1]))
        first, second = distance.unsqueeze(0).chunk(2, dim=-1)
        return first, second

    def unpack(self, packed: PackedState) -> State:
        """Two tensors [1, B, hidden_size] -> the state of the core that they stand for."""
        template = self.core.initial_state(packed[0].shape[1])
        distance = torch.cat(packed, dim=-1).squeeze(0)
        tensors = []
        for leaf in leaves(template):
            part, distance = distance.tensor_split([leaf[0].numel()], dim=1)
            part = part.reshape(leaf.shape)
            tensors.append(leaf + (part if leaf.is_floating_point() else part.round().to(leaf.dtype)))
        return unflatten(template, tensors)

    def forward(self, inputs: Tensor, packed: PackedState, starts: Tensor) -> tuple[Tensor, PackedState]:
        """inputs [T, B, D], packed state, starts [T, B] bool -> outputs [T, B, H], packed state."""
        outputs, state = self.core.unroll(inputs, self.unpack(packed), starts)
        return torch.cat([outputs, inputs], dim=-1) if self.skip else outputs, self.pack(state)


def _rows(state: State) -> Tensor:
    """[B, S] the numbers of a state, one row after the other."""
    return torch.cat([leaf.reshape(leaf.shape[0], -1).float() for leaf in leaves(state)], dim=1)

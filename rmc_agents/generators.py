"""Random generators that go on from a checkpoint, also on another kind of device."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

OTHER_DEVICE = "begun on another kind of device: from here on other random numbers are drawn than there"
"""What to tell the user of a state that is not `usable`."""


def usable(state: Tensor, device: torch.device) -> bool:
    """Whether generators of that device have states like this one."""
    return state.numel() == torch.Generator(device).get_state().numel()


def state_here(state: Tensor, device: torch.device) -> Tensor:
    """A saved state of a generator as one that generators of `device` can go on from.

    A CPU's state means nothing to a GPU, nor the other way round: there it is taken for a seed, so that a run
    depends on nothing but its own past.
    """
    if usable(state, device):
        return state.cpu()
    seed = zlib.crc32(state.cpu().numpy().tobytes())
    return torch.Generator(device).manual_seed(seed).get_state()

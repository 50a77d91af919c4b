"""Random generators that continue from a checkpoint, also on another kind of device."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

OTHER_DEVICE = "the run started on another kind of device: from here on it draws other random numbers"


def resume_generator(generator: torch.Generator, state: Tensor) -> list[str]:
    """Continue a generator from a saved state; return what the user should know."""
    converted = convert_state(state, generator.device)
    generator.set_state(converted)
    return [] if torch.equal(converted, state.cpu()) else [OTHER_DEVICE]


def convert_state(state: Tensor, device: torch.device) -> Tensor:
    """Return a saved generator state as one that generators of `device` accept.

    A CPU's state means nothing to a GPU, nor the reverse: there it serves as a seed, so that a run still
    depends on nothing but its own past.
    """
    state, other = state.cpu(), torch.Generator(device)
    if state.numel() == other.get_state().numel():
        return state
    return other.manual_seed(zlib.crc32(state.numpy().tobytes())).get_state()

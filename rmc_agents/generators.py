"""Random generators that go on from a checkpoint, also on another kind of device."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

OTHER_DEVICE = "begun on another kind of device: from here on other random numbers are drawn than there"


def go_on(generator: torch.Generator, state: Tensor) -> list[str]:
    """Let a generator go on from a saved state; returns what the user should know."""
    here = state_here(state, generator.device)
    generator.set_state(here)
    return [] if torch.equal(here, state.cpu()) else [OTHER_DEVICE]


def state_here(state: Tensor, device: torch.device) -> Tensor:
    """A saved state of a generator as one that generators of `device` can go on from.

    A CPU's state means nothing to a GPU, nor the other way round: there it is taken for a seed, so that a run
    depends on nothing but its own past.
    """
    state, other = state.cpu(), torch.Generator(device)
    if state.numel() == other.get_state().numel():
        return state
    return other.manual_seed(zlib.crc32(state.numpy().tobytes())).get_state()

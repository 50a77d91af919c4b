"""Random generators: continued from a checkpoint, also on another type of device, or left undisturbed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

OTHER_DEVICE = "the run started on another type of device; its random numbers differ from here on"


def make_generator(device: torch.device, seed: int) -> torch.Generator | None:
    """Return a seeded generator of a device; None for the meta device, which draws no numbers."""
    return None if device.type == "meta" else torch.Generator(device).manual_seed(seed)


def resume_generator(generator: torch.Generator | None, state: Tensor) -> list[str]:
    """Continue a generator from a saved state; return notes for the user."""
    if generator is None:
        raise ValueError("the meta device has no generator that could continue")
    converted = convert_state(state, generator.device)
    generator.set_state(converted)
    return [] if torch.equal(converted, state.cpu()) else [OTHER_DEVICE]


def convert_state(state: Tensor, device: torch.device) -> Tensor:
    """Return a saved generator state as one that generators of `device` accept.

    CPU and GPU states are incompatible; a state of the other type is used as a seed, so that a run still
    depends only on its own past.
    """
    state, other = state.cpu(), torch.Generator(device)
    if state.numel() == other.get_state().numel():
        return state
    return other.manual_seed(zlib.crc32(state.numpy().tobytes())).get_state()


@contextmanager
def keep_global_generators() -> Iterator[None]:
    """Restore the states of Python's, NumPy's and torch's global generators at the end of a `with` block."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)

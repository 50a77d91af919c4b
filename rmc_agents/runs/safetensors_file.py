"""Weights as a safetensors file: tensors by name, and no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from rmc_agents.errors import UsageError, shown
from rmc_agents.runs.files import require_regular, write_atomically

WEIGHTS = "model.safetensors"
"""Name of the file in the folder of a shared agent."""
MAX_BYTES = 64 * 2**30
"""No file is larger."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, in full precision.

    Raises:
        OSError: the file cannot be written; an older one is unchanged.
    """
    own = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    data = safetensors.torch.save(own, metadata={"format": "pt"})
    write_atomically(path, lambda file: file.write(data))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file. Nothing in it is executed, and it bounds the memory that they take.

    Raises:
        UsageError: missing, damaged, or not a safetensors file.
    """
    try:
        require_regular(path)
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large for weights")
        return safetensors.torch.load(path.read_bytes())
    except UsageError:
        raise
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason or type(error).__name__}") from error
    except Exception as error:  # safetensors raises its own type, and those of torch for unknown types
        raise UsageError(
            f"{path} is damaged or not a safetensors file ({type(error).__name__}: {shown(error, 100)})"
        ) from error

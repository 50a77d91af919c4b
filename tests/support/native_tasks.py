"""Native tasks, for tests of every task: those that differ from another one in numbers alone are slow."""

from __future__ import annotations

from typing import Any

import pytest

import rmc_envs

ALIKE = (
    *(f"rmc/MemoryMaze-{size}x{size}-v0" for size in (11, 13, 15)),
    *("rmc/MemoryS9-v0", "rmc/MemoryS11-v0", "rmc/MemoryS13-v0"),
    *("rmc/BoxWorld-v0", "rmc/MiniPacMan-v0"),  # the viewports are tested always
)


def parameters(env_id: str, *others: Any) -> Any:
    """Return the parameters of a test for one task."""
    return pytest.param(env_id, *others, marks=pytest.mark.slow if env_id in ALIKE else ())


EVERY_TASK = [parameters(env_id) for env_id in rmc_envs.NATIVE]

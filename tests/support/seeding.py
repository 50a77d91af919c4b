"""Seeds that are refused, and which native tasks can be seeded as Farama's environments are."""

from __future__ import annotations

import inspect

import rmc_envs

NO_SEEDS = ("0", 1.5, -1, True, 2**63, [0])
"""What is no whole number from 0 to 2**63 - 1."""


def takes_seeding(env_id: str) -> bool:
    """Return whether a native task has the option `seeding`, as the Memory mazes do."""
    builder = rmc_envs.native(env_id)
    assert builder is not None
    return "seeding" in inspect.signature(builder).parameters

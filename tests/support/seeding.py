"""Which native tasks can be seeded as Farama's environments are."""

from __future__ import annotations

import inspect

import rmc_envs


def takes_seeding(env_id: str) -> bool:
    """Return whether a native task has the option `seeding`, as the Memory mazes do."""
    builder = rmc_envs.native(env_id)
    assert builder is not None
    return "seeding" in inspect.signature(builder).parameters

"""Checks of numbers that users give to tasks."""

from __future__ import annotations

import numpy as np

from rmc_agents.errors import shown

MAX_ENVS = 2**31 - 1
"""Largest number of environments in a batch."""
MAX_SEED = 2**63 - 1
"""Largest seed."""


def require_whole(name: str, value: object, least: int, most: int) -> None:
    """Raise ValueError unless a value is a whole number (not a bool, not 2.0) in a range.

    Args:
        name: of the argument, for the message.
        value: to check.
        least: smallest number that is allowed.
        most: largest number that is allowed.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most:
        return
    found = shown(repr(value), 60)
    raise ValueError(f"{name}={found}: expected at least {least} and at most {most:,}, as a whole number")


def whole_seed(seed: object) -> int | None:
    """Return a seed, None for none, as Python's int.

    Raises:
        ValueError: it is not a whole number from 0 to `MAX_SEED`.
    """
    if seed is None:
        return None
    require_whole("seed", seed, 0, MAX_SEED)
    assert isinstance(seed, int | np.integer)
    return int(seed)


def require_flag(name: str, value: object) -> None:
    """Raise ValueError unless a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={shown(repr(value), 60)}: expected True or False")

"""Options in saved states, so that no state is loaded into a task with other rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rmc_agents.errors import shown
from rmc_agents.options import is_plain

KIND = "task"
"""Name under which the class of the task is saved."""


def plain(value: Any) -> Any:
    """Return an option as a checkpoint can hold it: tuples as lists, NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def saved_options(task: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a state holds of the rules: the class of the task, and those options that can be saved."""
    values = {name: plain(value) for name, value in options.items()}
    return {KIND: type(task).__name__, **{name: x for name, x in values.items() if is_plain(x)}}


def require_same_options(saved: Mapping[str, Any] | None, own: Mapping[str, Any]) -> None:
    """Raise ValueError, with the options that differ, unless a state has the options of a task.

    Args:
        saved: of the state, which may lack newer options; None for a state of an older version.
        own: of the task.
    """
    if saved is None:
        return
    if not isinstance(saved, Mapping):
        raise ValueError(f"a state with options={shown(repr(saved), 60)}: expected a dictionary")
    if saved.get(KIND) != own[KIND]:
        raise ValueError(f"a state of {saved.get(KIND)}: expected {own[KIND]}")
    differ = [name for name, value in own.items() if name in saved and saved[name] != value]
    found, expected = (
        ", ".join(f"{name}={shown(repr(options[name]), 100)}" for name in differ) for options in (saved, own)
    )
    if differ:
        raise ValueError(f"a state of a task with {found}: expected {expected}")


def require_rows(count: int, expected: int) -> None:
    """Raise ValueError unless a state is of as many environments as a batch."""
    if count != expected:
        raise ValueError(f"a state of {count} environments: expected {expected}")

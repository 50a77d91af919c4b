"""Hyperparameters of a run, from its description in config.json, for TensorBoard and other trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEFT_OUT = ("observation_space", "action_space", "own_spaces", "imports")
"""Entries of config.json that are no hyperparameters."""


def hyperparameters(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was chosen for a run.

    Args:
        described: the run, as a trainer's `to_json` describes it.
    """
    return {name: value for name, value in described.items() if name not in LEFT_OUT}


def flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return `{"ppo": {"gamma": 0.99}}` as `{"ppo/gamma": 0.99}`, without None, and with lists as strings."""
    flat: dict[str, bool | int | float | str] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float | str):
            flat[f"{prefix}{name}"] = value
        elif value is not None:
            flat[f"{prefix}{name}"] = str(value)
    return flat

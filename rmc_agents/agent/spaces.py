"""Conversion of Gymnasium spaces to and from JSON, so that a saved agent loads without its environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of them, as JSON.

    Raises:
        ValueError: any other space.
    """
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
            "shape": list(space.shape),
            "dtype": np.dtype(space.dtype).name,  # type: ignore[arg-type]
        }
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    raise ValueError(f"{space} cannot be saved; use Box, Discrete, MultiDiscrete, MultiBinary or a flat Dict")


def space_from_json(description: dict[str, Any]) -> spaces.Space[Any]:
    """Build the space that `space_to_json` described.

    Raises:
        ValueError: an unknown type of space.
    """
    kind = description["type"]
    if kind == "Box":
        dtype, shape = np.dtype(description["dtype"]), tuple(description["shape"])
        low, high = (
            np.broadcast_to(np.asarray(description[end], dtype=np.float64), shape).astype(dtype)
            for end in ("low", "high")
        )
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(description["nvec"])
    if kind == "MultiBinary":
        shape = description["shape"]
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)  # n and [n] are not equal
    if kind == "Dict":
        # From a list, because Gymnasium sorts a dictionary's keys, and an encoder depends on their order.
        return spaces.Dict([(key, space_from_json(part)) for key, part in description["spaces"].items()])
    raise ValueError(f"unknown type of space {kind!r}")


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    """Return one number where all are equal, else nested lists; Python's JSON writes infinities."""
    flat = bound.astype(np.float64).ravel()
    return float(flat[0]) if flat.size and (flat == flat[0]).all() else bound.astype(np.float64).tolist()

"""Conversion of Gymnasium spaces to and from JSON, so that a saved agent loads without its environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.plain import is_text
from rmc_agents.spaces.text import AnnotatedText


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe a Box, Discrete, MultiDiscrete, MultiBinary or Text, or a Dict or Tuple of them, as JSON.

    Raises:
        ValueError: any other space.
    """
    if isinstance(space, spaces.Box):
        described = {
            "type": "Box",
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
            "shape": list(space.shape),
            "dtype": np.dtype(space.dtype).name,  # type: ignore[arg-type]
        }
        return {**described, "read_as": space.read_as} if isinstance(space, AnnotatedBox) else described
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), **_dtype_of(space)}
    if isinstance(space, spaces.MultiDiscrete):
        described = {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), **_dtype_of(space)}
        return {**described, "start": space.start.tolist()} if space.start.any() else described
    if isinstance(space, spaces.MultiBinary):
        described = {"type": "MultiBinary", "shape": list(space.shape)}
        # MultiBinary(1) and MultiBinary([1]) have the same shape, and are not equal.
        return (
            described if isinstance(space.n, int) == (len(space.shape) == 1) else {**described, "list": True}
        )
    if isinstance(space, spaces.Dict):
        parts = {key: space_to_json(part) for key, part in space.spaces.items()}
        # The keys of a JSON object are strings.
        strings = all(isinstance(key, str) for key in parts)
        return {"type": "Dict", "spaces": parts if strings else [list(pair) for pair in parts.items()]}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, AnnotatedText):
        return {"type": "Text", "words": list(space.words), "length": space.length}
    if is_text(space):
        return {"type": "Text"}
    raise ValueError(
        f"{space} cannot be saved; use Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of them"
    )


def space_from_json(description: dict[str, Any]) -> spaces.Space[Any]:
    """Build the space that `space_to_json` described.

    Raises:
        ValueError: an unknown type of space.
    """
    kind = description["type"]
    if kind == "Box":
        dtype, shape = np.dtype(description["dtype"]), tuple(description["shape"])
        low, high = (_bound_from_json(description[end], shape, dtype) for end in ("low", "high"))
        box = spaces.Box(low, high, shape, dtype.type)
        return AnnotatedBox(box, description["read_as"]) if "read_as" in description else box
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"], **_dtype_from(description))
    if kind == "MultiDiscrete":
        options = _dtype_from(description)
        return spaces.MultiDiscrete(description["nvec"], start=description.get("start"), **options)
    if kind == "MultiBinary":
        shape = description["shape"]
        return spaces.MultiBinary(shape[0] if len(shape) == 1 and not description.get("list") else shape)
    if kind == "Dict":
        # From a list, because Gymnasium sorts a dictionary's keys, and an encoder depends on their order.
        parts = description["spaces"]
        pairs = parts.items() if isinstance(parts, dict) else parts
        return spaces.Dict([(key, space_from_json(part)) for key, part in pairs])
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(part) for part in description["spaces"]])
    if kind == "Text" and "words" in description:
        return AnnotatedText(description["words"], description["length"])
    if kind == "Text":
        return spaces.Text(1)  # never read, so its length does not matter
    raise ValueError(f"unknown type of space {kind!r}")


def _dtype_of(space: spaces.Discrete | spaces.MultiDiscrete) -> dict[str, str]:
    """Return the type of integers that are not int64."""
    dtype = np.dtype(space.dtype)  # type: ignore[arg-type]
    return {} if dtype == np.int64 else {"dtype": dtype.name}


def _dtype_from(description: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": np.dtype(description["dtype"]).type} if "dtype" in description else {}


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    """Return one number where all are equal, else nested lists; Python's JSON writes infinities."""
    # Integers stay integers: a float has 53 bits only.
    numbers = bound.astype(np.float64) if bound.dtype.kind == "f" else bound.astype(object)
    flat = bound.ravel()
    return numbers.ravel().tolist()[0] if flat.size and (flat == flat[0]).all() else numbers.tolist()


def _bound_from_json(numbers: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray[Any, Any]:
    if dtype.kind == "f":
        return np.broadcast_to(np.asarray(numbers, dtype=np.float64), shape).astype(dtype)
    return np.broadcast_to(np.asarray(numbers, dtype=object), shape).astype(dtype)

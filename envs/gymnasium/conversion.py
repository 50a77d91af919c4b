"""Conversion between Gymnasium's spaces and those of a `BatchedEnv`: flat, float32, counted from 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Path = tuple[str | int, ...]
"""Keys and indices that lead to a part of a nested observation."""


def leaves_of(space: spaces.Space, path: Path = ()) -> Iterator[tuple[Path, spaces.Space]]:
    """Yield the parts of an observation space that are not `Dict` or `Tuple`, with their paths, without
    strings.

    Raises:
        ValueError: a part that is not supported.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in parts:
            # MiniGrid's mission space is not a `Text`, but it has the dtype of a string.
            if not (isinstance(part, spaces.Text) or (part.dtype is not None and part.dtype.kind == "U")):
                yield from leaves_of(part, (*path, key))
    else:
        plain_space(space)  # raises if it is not supported
        yield path, space


def key_of(path: Path) -> str:
    """Return the key of a leaf in the flat `Dict`, such as "outer.inner"; "" for a space without parts."""
    return ".".join(str(part) for part in path)


def leaf_at(obs: Any, path: Path) -> Any:
    """Return the part of a nested observation that a path leads to."""
    for part in path:
        obs = obs[part]
    return obs


def plain_space(space: spaces.Space) -> spaces.Space:
    """Return the space that the agent sees: float32 instead of other floats, and counted from 0.

    Raises:
        ValueError: the space is not supported.
    """
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec)
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(space.n)
    if isinstance(space, spaces.Box):
        dtype = _plain_dtype(np.dtype(space.dtype))
        if dtype == space.dtype:
            return space
        with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
            return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype.type)
    raise ValueError(
        f"space {space}: expected Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them; "
        "wrap the environment"
    )


def to_plain(space: spaces.Space, array: NDArray) -> NDArray:
    """Return a new array of observations of `space`, converted to `plain_space(space)`."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return np.array(array, dtype=np.int64) - np.asarray(space.start, dtype=np.int64)
    return np.array(array, dtype=_plain_dtype(array.dtype))


def from_plain(space: spaces.Space, actions: NDArray) -> NDArray:
    """Return actions of `plain_space(space)`, converted to `space` and clipped to its bounds."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (actions + space.start).astype(space.dtype)
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype).kind in "iu":
            actions = actions.round()
        return np.clip(actions, space.low, space.high).astype(space.dtype)
    return actions.astype(space.dtype)


def _plain_dtype(dtype: np.dtype) -> np.dtype:
    if dtype.kind == "f":
        return np.dtype(np.float32)
    in_torch = ("bool", "uint8", "int8", "int16", "int32", "int64")
    return dtype if dtype.name in in_torch else np.dtype(np.int64)

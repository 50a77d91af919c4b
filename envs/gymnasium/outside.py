"""Detection of observations outside the bounds of their space.

Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.plain import Path, key_of
from rmc_agents.spaces.reading import read


class Outside:
    """Detector of boxes whose bounds are wrong: numbers are scaled by them, and codes counted.

    Integers outside of the bounds are reported, and floats that miss them by more than their range; many
    environments exceed the bounds of floats a little, which does no harm. So are codes of categories that the
    space does not count.

    Args:
        leaves: the parts of an observation, with their paths.
    """

    def __init__(self, leaves: Iterable[tuple[Path, spaces.Space]]) -> None:
        self._limits: dict[str, tuple[float, float, str]] = {}
        self._sizes: dict[str, NDArray[np.int64]] = {}
        for path, space in leaves:
            if isinstance(space, AnnotatedBox) and (sizes := read(space).sizes):
                self._sizes[key_of(path)] = np.array(sizes)
            if not isinstance(space, spaces.Box) or 0 in space.shape:
                continue
            low, high = float(space.low.min()), float(space.high.max())
            slack = high - low if np.dtype(space.dtype).kind == "f" else 0.0
            everything = _limits_of(np.dtype(space.dtype))
            if np.isfinite(slack) and (low - slack > everything[0] or high + slack < everything[1]):
                self._limits[key_of(path)] = low - slack, high + slack, f"{low:g} to {high:g}"

    def found_in(self, arrays: Mapping[str, NDArray]) -> list[str]:
        """Describe the parts [B, ...] by key that are outside of their bounds, each part once."""
        found = []
        for key, (low, high, bounds) in list(self._limits.items()):
            least, most = arrays[key].min(), arrays[key].max()
            # As floats, since NumPy would cast the bounds to the type of the array.
            if float(least) < low or float(most) > high:
                del self._limits[key]
                found.append(
                    f"returned {least if least < low else most} as observation {key}".strip()
                    + f", outside of its space, {bounds}: correct the bounds, by which it is read"
                )
        for key, sizes in list(self._sizes.items()):
            most = arrays[key].reshape(-1, len(sizes)).max(axis=0)
            if (most >= sizes).any():
                del self._sizes[key]
                found.append(
                    f"returned codes up to {most.tolist()} as observation {key}".strip()
                    + f", and the agent reads {sizes.tolist()} codes, counted from 0: it does not see larger "
                    "ones; choose another reading with read_as"
                )
        return found


def _limits_of(dtype: np.dtype) -> tuple[float, float]:
    """Return the smallest and largest number of a type."""
    if dtype.kind == "b":
        return 0.0, 1.0
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return float(info.min), float(info.max)

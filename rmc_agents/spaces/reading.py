"""How an agent reads an observation: one decision for each part of an observation space.

A reading is a name, with details after a colon:

| reading | values | input of the network |
|---|---|---|
| `categories` | integers | a one-hot vector for each |
| `bits` | zeros and ones | as they are |
| `codes:11,6,4` | [H, W, C] categories, with the number of values of each channel | cells, embedded |
| `picture:hwc` | pixels, scaled by the bounds of the space | convolutions |
| `cells:hwc` | small grid of uint8 whose meaning is unknown | each cell as pixels and as categories |
| `numbers` | numbers, scaled by the bounds of the space | as they are |
| `raw` | numbers | as they are, without scaling |
| `log` | numbers of any size | sign(x) log(1 + abs(x)) / 5 |
| `words` | ids of the words of a text, from 0 (behind its end) | embedded, in their order |

The letters of a picture or grid name its axes: n frames, h height, w width, c channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.spaces.annotated import AnnotatedBox

Kind = Literal["categories", "bits", "codes", "picture", "cells", "numbers", "raw", "log", "words"]
LAYOUTS = ("hw", "hwc", "chw", "nhwc", "nchw")
"""Orders of the axes of a picture or grid."""
SMALL = 36
"""Side below which a uint8 picture may as well be a grid of codes. The usual convolutions need 36 pixels."""
MAX_CATEGORIES = 2**20
"""Largest number of values of an integer."""
LARGEST_PIXEL = 2**16
"""Numbers with bounds beyond this are not taken for pixels."""
NO_BOUND = 1e9
"""Bounds of a picture beyond this are no bounds, but a formality."""
NEAR_ZERO = 20
"""Floats whose bounds are within this distance of 0, and whose range is not small, stay as they are."""


@dataclass(frozen=True)
class Reading:
    """How one part of an observation is read."""

    kind: Kind
    layout: str = ""
    """Axes of a picture or grid, such as "hwc"."""
    sizes: tuple[int, ...] = ()
    """Number of values of each channel of a grid of codes."""

    def __str__(self) -> str:
        details = ",".join(map(str, self.sizes)) if self.kind == "codes" else self.layout
        return f"{self.kind}:{details}" if details else self.kind

    @classmethod
    def parse(cls, text: str, space: spaces.Space[Any]) -> Reading:
        """Return the reading that `text` names, with the details that it leaves out.

        Raises:
            ValueError: an unknown reading, or one that does not fit the space.
        """
        name, _, details = text.partition(":") if isinstance(text, str) else (text, "", "")
        if name not in get_args(Kind):
            raise ValueError(f"a reading of {text!r}: expected one of {', '.join(get_args(Kind))}")
        if name in ("categories", "bits"):
            return _parse_integers(name, details, space)
        if not isinstance(space, spaces.Box):
            raise ValueError(f"{space} cannot be read as {text}: only a Box can be read in several ways")
        shape = space.shape
        if name == "codes":
            _require_integers(space, text)
            sizes = _parse_sizes(details) if details else _code_sizes(space)
            if len(shape) not in (2, 3) or len(sizes) != (shape[2] if len(shape) == 3 else 1):
                raise ValueError(
                    f"{space} cannot be read as {text}: codes need [H, W, C] and a number of values for each "
                    "of the C channels"
                )
            return cls("codes", sizes=sizes)
        if name in ("picture", "cells"):
            if name == "cells":
                _require_integers(space, text)
                if (space.low < 0).any() or (space.high > 255).any():
                    raise ValueError(f"{space} cannot be read as {text}: cells are numbers from 0 to 255")
            layout = details or _layout(shape)
            if layout not in LAYOUTS or len(layout) != len(shape):
                raise ValueError(
                    f"{space} cannot be read as {text}: expected {' or '.join(LAYOUTS)}, with one letter for "
                    "each axis"
                )
            return cls(name, layout)  # type: ignore[arg-type]
        if details:
            raise ValueError(f"a reading of {text!r}: {name} takes nothing after the colon")
        if name == "words":
            _require_integers(space, text)
            _require_ids(space)
        return cls(name)  # type: ignore[arg-type]


def read(space: spaces.Space[Any]) -> Reading:
    """Decide how a part of an observation is read, by its annotation, or else by shape, dtype and bounds.

    Raises:
        ValueError: the space has no reading; the message names it and an alternative.
    """
    if isinstance(space, AnnotatedBox):
        return Reading.parse(space.read_as, space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return _parse_integers("categories", "", space)
    if isinstance(space, spaces.MultiBinary):
        return Reading("bits")
    if not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind not in "biuf":
        raise ValueError(
            f"no encoder for an observation of {space}; use Box, Discrete, MultiDiscrete, MultiBinary, or "
            "Dict and Tuple of them (gymnasium.wrappers.FlattenObservation turns others into a Box)"
        )
    if 0 in space.shape:
        raise ValueError(f"an observation of {space} holds no numbers")
    return _read_box(space)


def with_readings(space: spaces.Space[Any], read_as: Mapping[str, Any]) -> spaces.Space[Any]:
    """Annotate each `Box` of a plain space with the reading that is decided for it.

    Args:
        space: a space without nested parts.
        read_as: readings by key that override the decision; the key of a space without parts is
            "observation".

    Raises:
        ValueError: an unknown key or reading, or one that does not fit; or a space that has no reading.
    """
    parts = named_parts(space)
    unknown = [key for key in read_as if key not in parts]
    if unknown:
        raise ValueError(
            f"read_as names {', '.join(map(repr, unknown))}; the parts of the observation are "
            f"{', '.join(map(repr, parts))}"
        )
    annotated: dict[str, spaces.Space[Any]] = {}
    for key, part in parts.items():
        reading = Reading.parse(read_as[key], part) if key in read_as else read(part)
        annotated[key] = AnnotatedBox(part, str(reading)) if isinstance(part, spaces.Box) else part
    if not isinstance(space, spaces.Dict):
        return annotated[WHOLE]
    return spaces.Dict(list(annotated.items()))  # from a list, since Gymnasium sorts a dictionary's keys


WHOLE = "observation"
"""Name of an observation without parts."""


def named_parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """Return the parts of a plain `Dict` by key, or any other space under the name "observation"."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {WHOLE: space}


def _read_box(space: spaces.Box) -> Reading:
    shape, kind = space.shape, np.dtype(space.dtype).kind
    uniform = _uniform_bounds(space)
    if len(shape) in (2, 3, 4) and uniform is not None:
        layout = _layout(shape)
        sides = [n for n, axis in zip(shape, layout, strict=True) if axis in "hw"]
        is_byte = space.dtype == np.uint8
        if is_byte and uniform == (0, 255) and max(sides) < SMALL:
            return Reading("cells", layout)
        smallest = {2: 8 if kind in "bui" else 16, 3: 1 if is_byte else 7, 4: 7}[len(shape)]
        if min(sides) >= smallest:
            return Reading("picture", layout)
    if kind == "f" and not _finite(space).any():
        return Reading("raw")
    return Reading("numbers")


def _uniform_bounds(space: spaces.Box) -> tuple[float, float] | None:
    """Return the bounds if all numbers have the same finite ones, as pixels do."""
    low, high = (np.unique(bound.astype(np.float64)) for bound in (space.low, space.high))
    if len(low) == len(high) == 1 and -LARGEST_PIXEL <= low[0] < high[0] <= LARGEST_PIXEL:
        return float(low[0]), float(high[0])
    return None


def _layout(shape: tuple[int, ...]) -> str:
    """Return the order of axes: channels last, unless the shape can only be channels first."""
    if len(shape) not in (2, 3, 4):
        return ""
    if len(shape) == 2:
        return "hw"
    first, middle, last = shape[-3:]
    if first == middle or (last <= 4 and not (first in (1, 3) and middle == last)):
        channels_first = False
    else:
        channels_first = middle == last or first in (1, 3) or 3 * first <= min(middle, last)
    return ("n" if len(shape) == 4 else "") + ("chw" if channels_first else "hwc")


def scaling(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return how `numbers` are scaled: shift, factor, and where the logarithm is taken instead.

    A number between finite bounds becomes (x - shift) * factor, which lies in [0, 1], or in [-1, 1] if the
    bounds have both signs. Floats that are of the order of 1 stay as they are. Where the range is above 1000,
    or an integer has no bounds, the logarithm keeps small and large numbers apart.

    Returns:
        three arrays of the space's shape.
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    finite = _finite(space)
    low, high = np.where(finite, low, 0.0), np.where(finite, high, 1.0)
    span = high - low
    is_float = np.dtype(space.dtype).kind == "f"
    large = np.where(finite, span > 1000, not is_float)
    near = np.maximum(np.abs(low), np.abs(high)) <= NEAR_ZERO
    plain = is_float & near & (span >= 0.2) & (span <= 20)
    scaled = finite & ~large & ~plain & (span > 1e-30)  # the factor of a smaller range is infinite
    signed = scaled & (low < 0)
    shift = np.where(scaled, np.where(signed, (low + high) / 2, low), 0.0)
    factor = np.where(scaled, np.where(signed, 2.0, 1.0) / np.where(scaled, span, 1.0), 1.0)
    return shift.astype(np.float32), factor.astype(np.float32), large


def _finite(space: spaces.Box) -> NDArray[np.bool_]:
    """Return where both bounds are finite, and not merely the limits of the dtype."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    limit = 1e30 if np.dtype(space.dtype).kind == "f" else 2**31 - 2
    return (np.abs(low) < limit) & (np.abs(high) < limit)


def bounds(space: spaces.Box) -> tuple[float, float]:
    """Return the smallest and largest bound of a picture; 0 and 1 if it has none."""
    low, high = float(space.low.min()), float(space.high.max())
    return (low, high) if abs(low) < NO_BOUND and abs(high) < NO_BOUND and low < high else (0.0, 1.0)


def _parse_integers(name: str, details: str, space: spaces.Space[Any]) -> Reading:
    if details:
        raise ValueError(f"a reading of {name}:{details}: {name} takes nothing after the colon")
    if name == "bits":
        if not isinstance(space, spaces.MultiBinary):
            raise ValueError(f"{space} cannot be read as bits: only MultiBinary holds bits")
        return Reading("bits")
    sizes = category_sizes(space)
    if sum(sizes) > MAX_CATEGORIES:
        raise ValueError(
            f"{space} has {sum(sizes):,} values, and at most {MAX_CATEGORIES:,} can be read as categories; "
            "make it a Box"
        )
    return Reading("categories")


def category_sizes(space: spaces.Space[Any]) -> list[int]:
    """Return the number of values of each integer of a space that is read as categories.

    Raises:
        ValueError: its numbers are not integers, or have no bounds.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "biu":
        spans = space.high.astype(np.float64) - space.low.astype(np.float64) + 1
        return [int(n) for n in np.minimum(spans, 2.0**53).reshape(-1)]
    raise ValueError(f"{space} cannot be read as categories: its numbers are not integers")


def owners(sizes: Sequence[int]) -> list[int]:
    """Return the vector that each entry of concatenated one-hot vectors of these sizes belongs to."""
    return [i for i, size in enumerate(sizes) for _ in range(size)]


def code_values(sizes: Sequence[int], start: Sequence[int] | None = None) -> list[int]:
    """Return the number that each entry of concatenated one-hot vectors of these sizes stands for.

    In Python, because torch.arange and repeat_interleave on the meta device import sympy and torch._dynamo,
    which takes more than a second.
    """
    return [
        first + k for first, size in zip(start or [0] * len(sizes), sizes, strict=True) for k in range(size)
    ]


def _code_sizes(space: spaces.Box) -> tuple[int, ...]:
    """Return the number of codes of each channel, from the bounds of the space."""
    if (space.low < 0).any() or (space.high > 255).any():
        raise ValueError(f"{space} cannot be read as codes: codes are whole numbers from 0 to 255")
    high = space.high.reshape(-1, space.shape[2]) if len(space.shape) == 3 else space.high.reshape(-1, 1)
    return tuple(int(n) + 1 for n in high.max(axis=0))


def _require_integers(space: spaces.Box, text: str) -> None:
    if np.dtype(space.dtype).kind not in "biu":
        raise ValueError(f"{space} cannot be read as {text}: its numbers are not integers")


def _require_ids(space: spaces.Box) -> None:
    """Raise ValueError unless a space holds ids of words [W], with 0 for padding."""
    if len(space.shape) != 1 or (space.low != 0).any() or not 1 <= int(space.high.max()) < MAX_CATEGORIES:
        raise ValueError(
            f"{space} cannot be read as words: ids of words are whole numbers from 0 (padding), in one "
            "dimension"
        )


def _parse_sizes(details: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(n) for n in details.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1 or max(sizes) > 256:
        raise ValueError(f"codes:{details}: expected the number of codes of each channel, such as 11,6,4")
    return sizes

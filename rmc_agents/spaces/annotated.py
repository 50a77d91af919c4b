"""Boxes that say how they are read, and what is known of MiniGrid's observations.

MiniGrid's `image` is a `Box(0, 255, (7, 7, 3), uint8)`, whether it holds codes of objects or pixels. The
space alone cannot tell the two apart, so the environment has to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rmc_agents.spaces.text import SPECIAL, AnnotatedText

MINIGRID_CODES = (11, 6, 4)
"""Number of object, color and state codes of a cell in MiniGrid's symbolic image."""


class AnnotatedBox(spaces.Box):
    """A `Box` that says how an agent reads it. It equals the `Box` of the same bounds, shape and dtype.

    Args:
        box: the space.
        read_as: a reading, such as "codes:11,6,4"; see `rmc_agents.spaces.reading`.
    """

    def __init__(self, box: spaces.Box, read_as: str) -> None:
        super().__init__(box.low, box.high, box.shape, np.dtype(box.dtype).type)  # type: ignore[arg-type]
        self.read_as = read_as

    def __repr__(self) -> str:
        if self.read_as != "words":
            return super().__repr__()
        known = int(self.high.max()) + 1 - SPECIAL
        return f"Text of at most {self.shape[0]} words, from a vocabulary of {known}"


class AnnotatedDict(spaces.Dict):
    """A `Dict` that says how its parts are read, for libraries that replace its boxes. It equals a `Dict`.

    Args:
        space: a `Dict`, in which an `AnnotatedBox` says how it is read.
        texts: the texts whose words some of its parts are the ids of, by key.
    """

    def __init__(self, space: spaces.Dict, texts: Mapping[str, AnnotatedText] | None = None) -> None:
        super().__init__(list(space.spaces.items()))  # from a list, since Gymnasium sorts a dictionary's keys
        parts = self.spaces.items()
        self.read_as = {key: part.read_as for key, part in parts if isinstance(part, AnnotatedBox)}
        self.texts = dict(texts or {})


def minigrid_image(view_size: int) -> AnnotatedBox:
    """Return the space of MiniGrid's symbolic image, [view_size, view_size, 3]."""
    return AnnotatedBox(
        spaces.Box(0, 255, (view_size, view_size, 3), np.uint8), codes_reading(MINIGRID_CODES)
    )


def codes_reading(sizes: tuple[int, ...]) -> str:
    """Return the reading of a grid of categories, with the number of values of each channel."""
    return "codes:" + ",".join(map(str, sizes))


def annotate(env: gymnasium.Env[Any, Any]) -> spaces.Space[Any]:
    """Return the observation space of an environment, with what its wrappers say about MiniGrid's images.

    MiniGrid is recognised by the modules of its classes and is not imported.
    """
    space = env.observation_space
    classes = [type(layer) for layer in _layers(env)]
    ours = [cls.__name__ for cls in classes if cls.__module__.split(".")[0] == "minigrid"]
    if not ours or not any(cls.__name__ == "MiniGridEnv" for cls in type(env.unwrapped).__mro__):
        return space
    return _annotated(space, _minigrid_reading(ours))


def _layers(env: gymnasium.Env[Any, Any]) -> list[Any]:
    """Return an environment's wrappers, outermost first, and the environment inside."""
    layers: list[Any] = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


_BY_WRAPPER = {
    "RGBImgObsWrapper": "picture:hwc",
    "RGBImgPartialObsWrapper": "picture:hwc",
    "OneHotPartialObsWrapper": "raw",
    "FlatObsWrapper": "raw",
    "SymbolicObsWrapper": "cells:hwc",
}
"""How the observations of MiniGrid's wrappers are read: pixels, zeros and ones, or codes beside positions."""


def _minigrid_reading(classes: list[str]) -> str:
    return next((_BY_WRAPPER[name] for name in classes if name in _BY_WRAPPER), codes_reading(MINIGRID_CODES))


def _annotated(space: spaces.Space[Any], read_as: str) -> spaces.Space[Any]:
    """Annotate the uint8 boxes of a space that have no annotation yet."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, _annotated(part, read_as)) for key, part in space.spaces.items()])
    if isinstance(space, AnnotatedBox) or not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return space
    if read_as.startswith("codes"):
        fits = len(space.shape) == 3 and space.shape[2] == len(MINIGRID_CODES)
    else:
        fits = len(space.shape) == 3 or (read_as == "raw" and len(space.shape) == 1)
    return AnnotatedBox(space, read_as) if fits else space

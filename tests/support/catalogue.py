"""A catalogue of observation and action spaces, and an environment that asks for what it shows.

The tests of spaces run the whole catalogue through everything that touches a space.
"""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rmc_agents import AnnotatedText

INF = float("inf")


def box(low: float, high: float, shape: tuple[int, ...], dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


def small_discrete(n: int, start: int, dtype: Any) -> spaces.Discrete:
    """Return a `Discrete` of a dtype, if this version of Gymnasium has them."""
    own = {"dtype": dtype} if "dtype" in inspect.signature(spaces.Discrete).parameters else {}
    return spaces.Discrete(n, start=start, **own)


def full(dtype: Any, shape: tuple[int, ...] = (3,)) -> spaces.Box:
    """Return a box of all numbers of an integer dtype."""
    return box(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype)


OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "scalar": box(-1, 1, ()),
    "scalar float64": box(-1, 1, (), np.float64),
    "vector": box(-1, 1, (4,)),
    "vector float64": box(-1, 1, (4,), np.float64),
    "vector float16": box(-1, 1, (4,), np.float16),
    "unbounded": box(-INF, INF, (4,)),
    "half bounded": box(0, INF, (4,)),
    "mixed bounds": spaces.Box(
        np.array([-4.8, -INF, -0.07, 0], np.float32), np.array([4.8, INF, 0.07, 900], np.float32)
    ),
    "wide": box(-1e6, 1e6, (4,)),
    "narrow": box(0, 1e-3, (4,)),
    "percent": box(0, 100, (4,)),
    "constant": box(2, 2, (4,)),
    "far from 0": box(273, 290, (3,)),
    "far from 0 and narrow": box(1000, 1001, (2,)),
    "narrower than float32": box(0, 1e-42, (2,), np.float64),
    "matrix": box(-1, 1, (3, 4)),
    "wide matrix": box(0, 255, (2, 5)),
    "cube": box(-1, 1, (2, 3, 4)),
    "four axes": box(-1, 1, (2, 2, 2, 2)),
    "int8": full(np.int8),
    "int16": full(np.int16),
    "int32": full(np.int32),
    "int64": full(np.int64),
    "uint16": full(np.uint16),
    "uint32": full(np.uint32),
    "uint64": full(np.uint64),
    "bool": box(0, 1, (5,), bool),
    "small integers": box(-2, 7, (3,), np.int64),
    "integer scalar": box(0, 9, (), np.int64),
    "memory of a console": box(0, 255, (128,), np.uint8),
    "pixels": box(0, 255, (40, 44, 3), np.uint8),
    "pixels, channels first": box(0, 255, (3, 44, 40), np.uint8),
    "gray": box(0, 255, (36, 36), np.uint8),
    "gray with channel": box(0, 255, (36, 36, 1), np.uint8),
    "gray, channel first": box(0, 255, (1, 36, 36), np.uint8),
    "stack of gray": box(0, 255, (4, 40, 40), np.uint8),
    "stack with channels": box(0, 255, (2, 36, 36, 3), np.uint8),
    "stack with one channel": box(0, 255, (2, 36, 36, 1), np.uint8),
    "stack, channels first": box(0, 255, (2, 3, 36, 36), np.uint8),
    "float pixels": box(0, 1, (40, 40, 3)),
    "float pixels to 255": box(0, 255, (40, 40, 3)),
    "small pixels": box(0, 255, (20, 20, 3), np.uint8),
    "grid of bytes": box(0, 255, (7, 7, 3), np.uint8),
    "grid of bytes, channels first": box(0, 255, (3, 9, 9), np.uint8),
    "large grid of bytes": box(0, 255, (16, 16, 3), np.uint8),
    "flat grid of bytes": box(0, 255, (8, 8), np.uint8),
    "one-hot bytes": box(0, 255, (7, 7, 20), np.uint8),
    "grid of large numbers": box(0, 2**20, (10, 10), np.int32),
    "picture of large floats": box(0, 1e6, (20, 20, 3)),
    "cube of bytes": box(0, 255, (3, 3, 3), np.uint8),
    "grid of bits": box(0, 1, (10, 10, 4), np.uint8),
    "grid of codes with bounds": box(0, 10, (7, 7, 3), np.uint8),
    "tiny grid": box(0, 255, (1, 1, 3), np.uint8),
    "discrete": spaces.Discrete(4),
    "discrete from 1": spaces.Discrete(4, start=1),
    "discrete from -2": spaces.Discrete(4, start=-2),
    "one value": spaces.Discrete(1),
    "many values": spaces.Discrete(50_000),
    "discrete of 8 bits": small_discrete(4, 3, np.uint8),
    "more than one-hot": spaces.MultiDiscrete([2000, 3]),
    "multidiscrete of 8 bits": spaces.MultiDiscrete([3, 2], dtype=np.int8, start=[-3, 4]),
    "multibinary of one": spaces.MultiBinary([1]),
    "multidiscrete": spaces.MultiDiscrete([2, 5, 3]),
    "multidiscrete with starts": spaces.MultiDiscrete([2, 5], start=[3, -1]),
    "multidiscrete matrix": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multibinary": spaces.MultiBinary(5),
    "multibinary matrix": spaces.MultiBinary([2, 3]),
    "tuple": spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11, start=2), box(-1, 1, (2,))]),
    "dict of integers": spaces.Dict({i: spaces.Discrete(2, start=i) for i in range(12)}),
    "dict of odd names": spaces.Dict(
        {"a=b": spaces.Discrete(2), "": spaces.Discrete(3), "日本": box(-1, 1, (2,))}
    ),
    "dict like MiniGrid's": spaces.Dict(
        image=box(0, 255, (3, 9, 9), np.uint8), direction=spaces.Discrete(4), a=spaces.Discrete(4)
    ),
    "tuple of one": spaces.Tuple([spaces.Discrete(3)]),
    "dict": spaces.Dict(image=box(0, 255, (7, 7, 3), np.uint8), direction=spaces.Discrete(4)),
    "dict in any order": spaces.Dict([("z", spaces.Discrete(3)), ("a", box(-1, 1, (2,)))]),
    "dict with text": spaces.Dict(mission=spaces.Text(8), x=box(-1, 1, (3,))),
    "words": AnnotatedText(["go", "stop", "left"], 4),
    "dict with words": spaces.Dict(mission=AnnotatedText(["go", "stop"], 3), x=box(-1, 1, (3,))),
    "tuple with words": spaces.Tuple([spaces.Dict(a=AnnotatedText(["go", "to"], 2)), spaces.Discrete(2)]),
    "grid with words": spaces.Dict(
        image=box(0, 255, (7, 7, 3), np.uint8), order=AnnotatedText(["a", "b"], 5)
    ),
    "nested": spaces.Dict(
        outer=spaces.Dict(inner=spaces.Tuple([spaces.Discrete(2, start=5), box(0, 9, (2, 2), np.int32)])),
        bits=spaces.MultiBinary([2, 2]),
    ),
    "tuple of tuples": spaces.Tuple(
        [spaces.Tuple([spaces.Discrete(2), spaces.Text(3)]), spaces.MultiBinary(3)]
    ),
}
"""Spaces that agents observe."""

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "discrete from 1": spaces.Discrete(3, start=1),
    "discrete from -7": spaces.Discrete(3, start=-7),
    "one value": spaces.Discrete(1),
    "discrete of 32 bits": small_discrete(5, 0, np.int32),
    "multidiscrete of 8 bits": spaces.MultiDiscrete([3, 2], dtype=np.int8, start=[-3, 4]),
    "multibinary of one": spaces.MultiBinary([1]),
    "box of bools": box(0, 1, (2,), bool),
    "dict of integers": spaces.Dict({0: spaces.Discrete(2, start=1), 1: spaces.Discrete(3)}),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multidiscrete with starts": spaces.MultiDiscrete([3, 2], start=[1, -4]),
    "multidiscrete matrix": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multibinary": spaces.MultiBinary(3),
    "multibinary matrix": spaces.MultiBinary([2, 2]),
    "box": box(-1, 1, (2,)),
    "box float64": box(-1, 1, (2,), np.float64),
    "box scalar": box(-1, 1, ()),
    "box matrix": box(-1, 1, (2, 3)),
    "box unbounded": box(-INF, INF, (2,)),
    "box far away": box(100, 200, (1,)),
    "box of integers": box(-3, 4, (2,), np.int32),
    "box of bytes": box(0, 255, (2,), np.uint8),
    "box of all integers": full(np.int64, (2,)),
    "tuple of choices": spaces.Tuple([spaces.Discrete(3, start=1), spaces.MultiBinary(2)]),
    "dict of numbers": spaces.Dict(steer=box(-1, 1, (1,)), throttle=box(0, 1, ())),
    "nested choices": spaces.Dict(move=spaces.Tuple([spaces.Discrete(2), spaces.MultiDiscrete([[2, 3]])])),
}
"""Spaces that agents act in."""

REFUSED_OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "text": spaces.Text(5),
    "only text": spaces.Dict(mission=spaces.Text(5)),
    "sequence": spaces.Sequence(spaces.Discrete(3)),
    "graph": spaces.Graph(spaces.Discrete(2), spaces.Discrete(2)),
    "one of": spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
    "sequence in a dict": spaces.Dict(x=spaces.Discrete(2), y=spaces.Sequence(spaces.Discrete(3))),
    "nothing": spaces.Dict({}),
    "no numbers": box(0, 1, (0,)),
    "names that are tuples": spaces.Dict({(0, 1): spaces.Discrete(2)}),
    "names that collide": spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))}),
    "too many values": spaces.Discrete(2**24),
}
"""Spaces that no agent observes."""

REFUSED_ACTIONS: dict[str, spaces.Space[Any]] = {
    "text": spaces.Text(5),
    "sequence": spaces.Sequence(spaces.Discrete(3)),
    "numbers and choices": spaces.Dict(a=spaces.Discrete(2), b=box(-1, 1, (2,))),
    "nothing": spaces.Tuple([]),
    "no numbers": box(0, 1, (0,)),
}
"""Spaces that no agent acts in."""


class Spaced(gymnasium.Env[Any, Any]):
    """Samples of the given spaces, in episodes of three steps; it refuses actions outside of its space.

    Args:
        observation: name in `OBSERVATIONS`.
        action: name in `ACTIONS`.
    """

    def __init__(self, observation: str = "vector", action: str = "discrete") -> None:
        every = {**OBSERVATIONS, **REFUSED_OBSERVATIONS}
        self.observation_space = every[observation]
        self.action_space = {**ACTIONS, **REFUSED_ACTIONS}[action]
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self._sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.time += 1
        return self._sample(), float(self.time), self.time == 3, False, {}

    def _sample(self) -> Any:
        return self.observation_space.sample()


gymnasium.register("catalogue/Spaced-v0", Spaced, disable_env_checker=True)

"""Free-form options, as `KEY=VALUE` words on the command line and as JSON in a run folder."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from rmc_agents.errors import UsageError, shown

MAX_SIZE = 2**20
"""Largest size of anything in a network: a width, a number of slots, an axis of an observation."""
Option = int | float | bool | str | list[Any] | dict[str, Any] | None
"""The value of one option: what JSON can hold, so that a run folder can."""
Options = dict[str, Option]
"""Options of a memory core or an environment, by the name of its constructor's argument."""

BOOLEANS = {"true": True, "false": False}
"""Words for booleans on the command line, in lower case."""


def parse_options(words: list[str]) -> Options:
    """Read `["num_slots=8", "gate_style=unit"]` as a dictionary; Python's literals are recognised.

    So are `true` and `false`: as strings, both would switch an option on. A quoted word stays a string.

    Raises:
        ValueError: a word without an equals sign, or a number that is not finite.
    """
    options: Options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got '{shown(word, 60)}'")
        try:
            options[key] = as_plain(ast.literal_eval(value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            options[key] = BOOLEANS.get(value.lower(), value)
        if _is_infinite(options[key]):
            raise ValueError(f"{shown(key, 60)}={shown(value, 60)}: expected a finite number")
    return options


def _is_infinite(option: Option) -> bool:
    """Return whether an option is a number that is not finite, or the name of one."""
    if isinstance(option, str):
        return option.strip("+-").lower() in ("nan", "inf", "infinity")
    return isinstance(option, float) and not math.isfinite(option)


def require_types(config: Any) -> None:
    """Raise TypeError for a field of the wrong type; tuples in options become lists, as in a run folder."""
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(type(config), field.name, {})
        if field.name in ("imports", "may_change") or "Path" in str(field.type):
            continue
        optional = (str,) if "str" in str(field.type) else (int, float)
        kinds = {float: (int, float), type(None): (*optional, type(None))}
        expected = kinds.get(type(default), (type(default),))
        if type(value) not in expected and not (float in expected and isinstance(value, float)):
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in expected)
            raise TypeError(
                f"{field.name} is {value!r:.60}, of type {type(value).__name__}; expected {names}"
            )
        if isinstance(value, dict):
            value = as_plain(value)
            object.__setattr__(config, field.name, value)
        for name, option in value.items() if isinstance(value, dict) else ():
            if type(name) is not str or not is_plain(option):
                raise TypeError(
                    f"{field.name}: {name} is {option!r:.60}; expected numbers, strings, booleans, None, and "
                    "lists and dictionaries of them, which a run folder can hold"
                )


def require_ranges(config: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError for a field outside of its range, both ends of which are allowed; None is."""
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} must be {least:g} to {most:g}, got {value}")


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is an integer or a float, and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_plain(value: Any) -> Any:
    """Return a value as it is after it was written as JSON and read: tuples become lists."""
    if isinstance(value, dict):
        return {key: as_plain(part) for key, part in value.items()}
    return [as_plain(part) for part in value] if isinstance(value, list | tuple) else value


def is_plain(value: Any) -> bool:
    """Return whether JSON can hold a value, and gives it back as it is."""
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, str, int) or (type(value) is float and math.isfinite(value))


def require_sizes(config: Mapping[str, Any], source: str) -> None:
    """Raise UsageError if a network's description asks for a size above `MAX_SIZE`.

    Args:
        config: as config.json holds it.
        source: where it comes from, for the message.
    """
    parts = ("agent", "classifier", "observation_space", "action_space", "own_spaces")
    large = _largest_number([config.get(part) for part in parts])
    if large > MAX_SIZE:
        raise UsageError(f"{source} asks for a size of {large:.3g}; no network has one above {MAX_SIZE:,}")


def _largest_number(tree: Any) -> float:
    """Return the largest size in a description; a space's bounds and start are not sizes."""
    largest, left = 0.0, [tree]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [value for key, value in part.items() if key not in ("low", "high", "start")]
            shape = part.get("shape")
            if isinstance(shape, list) and all(type(n) is int for n in shape):
                product = 1
                for n in shape[:64]:
                    product *= n
                largest = max(largest, product / 8)  # a picture has more numbers than a layer is wide
        elif isinstance(part, list):
            left += part
        elif isinstance(part, int | float):
            largest = max(largest, abs(part) if part == part else math.inf)
    return largest

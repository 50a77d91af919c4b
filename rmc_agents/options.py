"""Free-form options, as `KEY=VALUE` words on the command line and as JSON in a run folder."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

Option = int | float | bool | str | None
"""The value of one option."""
Options = dict[str, Option]
"""Options of a memory core or an environment, by the name of its constructor's argument."""


def parse_options(words: list[str]) -> Options:
    """Read `["num_slots=8", "gate_style=unit"]` as a dictionary; numbers, booleans and None are recognised.

    Raises:
        ValueError: a word without an equals sign.
    """
    options: Options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got {word!r}")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def require_types(config: Any) -> None:
    """Raise TypeError for a field of the wrong type."""
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(type(config), field.name, {})
        if field.name in ("run_dir", "resume", "imports", "may_change"):
            continue
        optional = (str,) if "str" in str(field.type) else (int, float)
        kinds = {float: (int, float), type(None): (*optional, type(None))}
        if type(value) not in kinds.get(type(default), (type(default),)):
            raise TypeError(f"{field.name} is {str(value)[:60]!r}")
        if isinstance(value, dict) and not all(isinstance(option, Option) for option in value.values()):
            raise TypeError(f"{field.name} is {str(value)[:60]!r}")

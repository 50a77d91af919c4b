"""Rules of the contract about the types in a saved state, and about changes of a state in place."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from rmc_agents.environment import BatchedEnv

from .report import Report
from .values import same

RULE = "saved state"
ROOT = "state_dict()"
ANSI_CODES = re.compile(r"\x1b\[[0-9;]*m")


def read_state(saved: bytes) -> dict[str, Any]:
    """Return a new copy of a saved state."""
    return torch.load(io.BytesIO(saved), weights_only=True)


def save_state(report: Report, env: BatchedEnv) -> tuple[Any, bytes | None]:
    """Return the state, and the bytes that `torch.save` writes; report a state that a checkpoint cannot hold.

    The bytes are None if there is no state or a violation was reported.
    """
    state: Any = None
    buffer = io.BytesIO()
    try:
        state = env.state_dict()
        found = None if state is None else find_unsupported(state)
        if found is None:
            torch.save(state, buffer)
            read_state(buffer.getvalue())
    except Exception as error:
        reason = ANSI_CODES.sub("", str(error)).strip().partition("\n")[0]
        found = f"writing and reading the state raised {type(error).__name__}: {reason}"
    if found is not None:
        report.add(
            RULE,
            found,
            "a dictionary with string keys, of dense tensors, numbers, bools, strings, None, and lists, "
            "tuples and dictionaries of them",
            "Convert everything else, for example an array with torch.as_tensor(array).",
        )
    return state, None if state is None or found is not None else buffer.getvalue()


def find_unsupported(value: Any, path: str = ROOT) -> str | None:
    """Describe the first part of a state that a checkpoint cannot hold; None if it can hold all of them."""
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and not value.is_quantized
        return None if dense else f"`{path}` is a tensor of layout {value.layout} and dtype {value.dtype}"
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            if type(key) is not str:
                return f"`{path}` has the key {key!r} of type {_type_name(key)}"
            found = find_unsupported(part, f"{path}[{key!r}]")
            if found is not None:
                return found
        return None
    if path == ROOT or not (value is None or type(value) in (int, float, bool, str, list, tuple)):
        return f"`{path}` is of type {_type_name(value)}"
    if isinstance(value, list | tuple):
        parts = (find_unsupported(part, f"{path}[{i}]") for i, part in enumerate(value))
        return next((found for found in parts if found is not None), None)
    return None


def changed_part(now: Any, before: Any, path: str = "") -> str | None:
    """Name the first part of a state that differs from a copy, as in "['numpy'][0]"; None if equal."""
    if isinstance(before, Tensor):
        return None if isinstance(now, Tensor) and same(now, before) else path
    if isinstance(before, dict):
        if not isinstance(now, dict) or now.keys() != before.keys():
            return path
        parts = (changed_part(now[key], part, f"{path}[{key!r}]") for key, part in before.items())
    elif isinstance(before, list | tuple):
        if not isinstance(now, list | tuple) or len(now) != len(before):
            return path
        pairs = enumerate(zip(now, before, strict=True))
        parts = (changed_part(a, b, f"{path}[{i}]") for i, (a, b) in pairs)
    else:
        return None if now == before or (now != now and before != before) else path
    return next((part for part in parts if part is not None), None)


def check_unchanged(report: Report, state: Any, saved: bytes, what: str) -> None:
    """Report a state that was changed after it had been returned, or passed to `load_state_dict`."""
    part = changed_part(state, read_state(saved))
    if part is not None:
        report.add(
            RULE,
            f"{what} changed later" + (f", at {part}" if part else ""),
            "a state that no later step changes in place",
            "Copy what is changed in place, in `state_dict` and in `load_state_dict`.",
        )


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

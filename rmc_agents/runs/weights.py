"""Weights of a network: checked before they are loaded, rounded to half precision for shipping."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rmc_agents.errors import UsageError


def load_weights(network: nn.Module, payload: dict[str, Any], path: Path) -> None:
    """Load a checkpoint's weights into a network: all of them, or none.

    On torch's meta device, which holds no numbers, the weights are only checked.

    Args:
        network: an agent or a classifier.
        payload: a checkpoint, with the weights under "agent"; half precision is widened.
        path: where it was read, for messages.

    Raises:
        UsageError: the weights belong to another configuration, or are not finite.
    """
    given = payload.get("agent")
    if not isinstance(given, dict) or not all(isinstance(x, torch.Tensor) for x in given.values()):
        raise UsageError(f"{path} holds no weights")
    wanted = network.state_dict()
    halves = {name for name, x in given.items() if x.dtype == torch.float16 and name in wanted}
    given = {name: x.to(wanted[name].dtype) if name in halves else x for name, x in given.items()}
    wrong = [
        f"{name}: {_form(given.get(name))}, expected {_form(wanted.get(name))}"
        for name in [*wanted, *(name for name in given if name not in wanted)]
        if _form(given.get(name)) != _form(wanted.get(name))
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UsageError(f"{path} belongs to another configuration: {'; '.join(wrong[:3])}{more}")
    for name, part in network.named_modules():
        if (require_loadable := getattr(part, "require_loadable", None)) is not None:
            _require_loadable(require_loadable, name, given, path)
    bad = non_finite(given)
    if bad:
        raise UsageError(f"{path} holds weights that are not finite: {shorten(bad)}; use an older checkpoint")
    if next(network.parameters()).device.type != "meta":
        network.load_state_dict(given)


def _require_loadable(
    check: Callable[[dict[str, torch.Tensor]], None], name: str, given: dict[str, torch.Tensor], path: Path
) -> None:
    """Raise UsageError if a part of a network refuses its own weights."""
    own = {key.removeprefix(f"{name}."): x for key, x in given.items() if key.startswith(f"{name}.")}
    try:
        check(own)
    except ValueError as error:
        raise UsageError(f"{path} holds weights that do not fit: {name}: {error}") from error


def non_finite(tree: Any, name: str = "") -> list[str]:
    """Return the names of the tensors and numbers of a tree that hold NaN or an infinity."""
    if isinstance(tree, torch.Tensor):
        return [] if tree.device.type == "meta" or bool(tree.isfinite().all()) else [name]
    if isinstance(tree, float):
        return [] if math.isfinite(tree) else [name]
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [bad for key, part in parts for bad in non_finite(part, f"{name}.{key}" if name else str(key))]


def shorten(names: list[str]) -> str:
    """Return the first three of some names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def half_precision(weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Round float32 weights to half precision, which `load_weights` accepts; float64 is for statistics.

    Raises:
        UsageError: a weight is too large for that; `path` is where they were read.
    """
    halves = {name: x.half() if x.dtype == torch.float32 else x for name, x in weights.items()}
    if not all(x.isfinite().all() for x in halves.values()):
        raise UsageError(f"{path} holds weights that are too large for half precision")
    return halves


def _form(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

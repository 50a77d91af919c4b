"""Continuing a trainer from a checkpoint: all of it or nothing, and its parts validated first.

A checkpoint may belong to another configuration, or be forged: every part is checked against the trainer's
own before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rmc_agents.errors import UsageError, shown
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.weights import non_finite
from rmc_agents.training.arithmetic import compare_arithmetic
from rmc_agents.tree import clone

Load = Callable[[dict[str, Any]], list[str]]
"""Continues a trainer from a state; returns notes for the user."""


def load_all_or_nothing(load: Load, before: dict[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Load a copy of a state; if it does not fit, load `before` again and raise the error."""
    try:
        return load(clone(dict(state)))
    except Exception:
        load(before)
        raise


def load_newest(run_dir: Path, device: torch.device, load: Load, now: dict[str, str]) -> list[str]:
    """Continue from the newest intact checkpoint of a run folder; return notes for the user.

    Args:
        run_dir: the run folder; damaged files in it that are newer are renamed.
        device: where the trainer's tensors are.
        load: continues the trainer.
        now: the arithmetic of this process.

    Raises:
        UsageError: no checkpoint, or one of another configuration.
    """
    path, payload, skipped = read_newest(run_dir, device, rename_damaged=True)
    try:
        notes = load(payload)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:  # whatever a part raises that is given another's numbers
        missing = isinstance(error, KeyError)
        reason = f"it has no {error}" if missing else str(error).split("\n")[0][:200]
        raise UsageError(f"{path} belongs to a run of another configuration: {reason}") from error
    notes += compare_arithmetic(payload.get("arithmetic"), now)
    return [*(f"skipped: {line}" for line in skipped), f"resuming from {path}", *notes]


def require_same_form(where: str, own: Any, given: Any) -> None:
    """Raise ValueError unless two trees have the same keys and types (the environment checks sizes)."""
    if isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor):
        same = own.ndim == given.ndim and own.dtype == given.dtype
    elif isinstance(own, dict) and isinstance(given, dict):
        same = own.keys() == given.keys()
    else:
        numbers = isinstance(own, int | float) and isinstance(given, int | float)
        same = numbers or own is None or given is None or type(own) is type(given)
    if not same:
        raise ValueError(f"{where} has another form")
    if isinstance(own, dict) and isinstance(given, dict):
        for key in own:
            require_same_form(f"{where} ({key})", own[key], given[key])


def require_count(name: str, value: Any, most: float = 2**62) -> Any:
    """Return a number of a checkpoint if it is a finite int or float from 0 to `most`.

    Raises:
        ValueError: it is not.
    """
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ValueError(f"{name} is {shown(value, 60)}, expected a number from 0 to {most:.3g}")
    return value


def require_moments(optimizer: torch.optim.Optimizer, state: dict[int, Any]) -> dict[int, Any]:
    """Return an optimizer's moments if they fit its parameters, which it does not check itself.

    Raises:
        ValueError: another number of parameters, other shapes, or numbers that are not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if state and list(state) != list(range(len(parameters))):
        raise ValueError(f"moments of {len(state)} parameters, expected {len(parameters)}")
    for index, moments in state.items():
        shape = tuple(parameters[index].shape)
        shapes = {name: tuple(x.shape) for name, x in moments.items()}
        expected = {name: () if name == "step" else shape for name in _MOMENTS[type(optimizer).__name__]}
        if shapes != expected:
            raise ValueError(f"moments of shapes {shapes}, expected {expected}")
        if non_finite(moments):
            raise ValueError(f"the optimizer's moments of parameter {index} are not finite")
        if any(bool((moments[name] < 0).any()) for name in ("step", "exp_avg_sq") if name in moments):
            raise ValueError(f"the optimizer's moments of parameter {index} are negative")
    return state


_MOMENTS = {"Adam": ("step", "exp_avg", "exp_avg_sq"), "Muon": ("momentum_buffer",)}
"""What each optimizer keeps per parameter."""

"""Continuing a trainer from a checkpoint: all of it or nothing, and its parts validated first.

A checkpoint may belong to another configuration, or be forged: every part is checked against the trainer's
own before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from rmc_agents.errors import UsageError, shown
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.weights import non_finite
from rmc_agents.training.arithmetic import compare_arithmetic
from rmc_agents.training.processes import ALONE, Processes


class Optimizer(Protocol):
    """What is checked of an optimizer: its parameters."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...


Load = Callable[[dict[str, Any]], list[str]]
"""Continues a trainer from a state; returns notes for the user."""


OTHERS = "other_processes"
"""Key under which a state holds the parts of processes 1, 2, ...; that of process 0 is the state itself."""


def own_part(
    state: Mapping[str, Any], names: Collection[str], processes: Processes
) -> tuple[dict[str, Any], int]:
    """Return the state of this process, and the number of processes that saved it.

    Args:
        state: what process 0 saved.
        names: the keys of what each process saves for itself, as far as the state has them; left out if the
            numbers of processes differ.
        processes: of this run.

    Raises:
        ValueError: the parts of the other processes are not such parts.
    """
    own, others = {name: part for name, part in state.items() if name != OTHERS}, state.get(OTHERS, [])
    if not isinstance(others, list | tuple) or any(
        not isinstance(part, dict) or part.keys() != own.keys() & set(names) for part in others
    ):
        raise ValueError(f"{OTHERS} does not hold the states of processes")
    saved_by = 1 + len(others)
    if saved_by != processes.size:
        own = {name: part for name, part in own.items() if name not in names}
    elif processes.rank:
        own.update(others[processes.rank - 1])
    return own, saved_by


def with_other_parts(state: dict[str, Any], names: Collection[str], processes: Processes) -> dict[str, Any]:
    """Return the state of process 0 with the parts of the others; called in all processes."""
    if processes.size > 1:
        parts = processes.gather({name: state[name] for name in names if name in state})
        if parts is not None:
            state[OTHERS] = parts[1:]
    return state


def load_all_or_nothing(
    load: Callable[[], list[str]], undo: Callable[[], object], processes: Processes = ALONE
) -> list[str]:
    """Continue a trainer from a state; if that fails in one process, undo it in all and raise the error."""
    try:
        return processes.together(load)
    except Exception:
        undo()
        raise


def load_newest(
    run_dir: Path, device: torch.device, load: Load, now: dict[str, str], processes: Processes = ALONE
) -> list[str]:
    """Continue from the newest intact checkpoint of a run folder; return notes for the user.

    Process 0 reads it, and renames damaged files.

    Args:
        run_dir: the run folder; damaged files in it that are newer are renamed.
        device: where the trainer's tensors are.
        load: continues the trainer.
        now: the arithmetic of this process.
        processes: of the run.

    Raises:
        UsageError: no checkpoint, or one of another configuration.
    """
    path, payload, skipped = processes.from_first(lambda: read_newest(run_dir, device, rename_damaged=True))
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


def require_moments(optimizer: Optimizer, state: dict[int, Any]) -> dict[int, Any]:
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


_ADAM = ("step", "exp_avg", "exp_avg_sq")
_MOMENTS = {"Adam": _ADAM, "FlatAdam": _ADAM, "Muon": ("momentum_buffer",)}
"""What each optimizer keeps per parameter."""

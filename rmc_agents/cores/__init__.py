"""Recurrent memory cores, and the registry that builds them by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from rmc_agents.cores.base import HoistedCore, MemoryCore, SlotTrace, State, TracedCore, reset_rows
from rmc_agents.cores.delta_rmc import DeltaRMC
from rmc_agents.cores.dnc import DNC
from rmc_agents.cores.entity_delta import EntityDelta
from rmc_agents.cores.feedforward import Feedforward
from rmc_agents.cores.gated import GRU, LSTM, RNN
from rmc_agents.cores.gated_delta import GatedDelta
from rmc_agents.cores.gtrxl import GTrXL
from rmc_agents.cores.lru import LRU
from rmc_agents.cores.mingru import MinGRU
from rmc_agents.cores.rmc import RMC
from rmc_agents.cores.shm import SHM
from rmc_agents.options import is_number

CORES: dict[str, type[MemoryCore]] = {
    "rmc": RMC,
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "dnc": DNC,
    "gated_delta": GatedDelta,
    "mingru": MinGRU,
    "lru": LRU,
    "shm": SHM,
    "gtrxl": GTrXL,
    "delta_rmc": DeltaRMC,
    "entity_delta": EntityDelta,
    "feedforward": Feedforward,
}
"""The registered cores by name. Agents, scripts, benchmarks, SB3 policies and tests build cores from it.

To register a core of your own, subclass `MemoryCore` (its docstring has a complete example) and add the
class:

    CORES["mine"] = Mine

The scripts import the module that does so with `--import MODULE`, after which `--core mine` works.
"""


def make_core(name: str, input_size: int, options: Mapping[str, Any] | None = None) -> MemoryCore:
    """Build a registered core.

    Args:
        name: a key of `CORES`.
        input_size: width of the input.
        options: keyword arguments of the core's constructor; options that are not given keep their defaults.

    Raises:
        ValueError: an unknown name, an unknown option or an invalid value; the message lists the choices.
    """
    if name not in CORES:
        raise ValueError(
            f"unknown core {name!r}; choose one of {', '.join(CORES)}.{_suggestion(name, CORES)} "
            "For a core of your own, import the module that adds it to CORES"
        )
    options = dict(options or {})
    known = core_options(name)
    for key in options:
        if key not in known:
            choices = ", ".join(known) or "none"
            raise ValueError(
                f"core {name!r} has no option {key!r}; it has: {choices}.{_suggestion(key, known)}"
            )
    typed = {key: _typed(key, value, known[key]) for key, value in options.items()}
    return CORES[name](input_size, **typed)


def reads_entities(name: str) -> bool:
    """Return whether a core is registered and takes the first inputs as entities."""
    return name in CORES and CORES[name].reads_entities


def core_options(name: str) -> dict[str, Any]:
    """Return the options of a registered core and their defaults."""
    parameters = inspect.signature(CORES[name]).parameters
    return {key: p.default for key, p in parameters.items() if key != "input_size"}


def _typed(name: str, value: Any, default: Any) -> Any:
    """Return an option's value as its default has it: whole numbers become floats.

    Raises:
        ValueError: the default is a boolean or a float, and the value is not.
    """
    if value is None:  # no value, if the core knows what that means
        return None
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r:.60}")
    if isinstance(default, float):
        if not is_number(value):
            raise ValueError(f"{name} must be a number, got {value!r:.60}")
        return float(value)
    return value


def _suggestion(word: str, choices: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


__all__ = [
    "CORES",
    "DNC",
    "GRU",
    "LRU",
    "LSTM",
    "RMC",
    "RNN",
    "SHM",
    "DeltaRMC",
    "EntityDelta",
    "Feedforward",
    "GTrXL",
    "GatedDelta",
    "HoistedCore",
    "MemoryCore",
    "MinGRU",
    "SlotTrace",
    "State",
    "TracedCore",
    "core_options",
    "make_core",
    "reset_rows",
]

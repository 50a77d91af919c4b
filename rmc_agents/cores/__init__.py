"""Memory cores by name. A new one is a file here and a line in `CORES`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from rmc_agents.cores.base import HoistedCore, MemoryCore, State, reset_rows
from rmc_agents.cores.dnc import DNC
from rmc_agents.cores.feedforward import Feedforward
from rmc_agents.cores.gated import GRU, LSTM, RNN
from rmc_agents.cores.rmc import RMC

CORES: dict[str, type[MemoryCore]] = {
    "rmc": RMC,
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "dnc": DNC,
    "feedforward": Feedforward,
}


def make_core(name: str, input_size: int, options: Mapping[str, Any] | None = None) -> MemoryCore:
    """Build a core by its name in `CORES`.

    Args:
        name: a key of `CORES`.
        input_size: width of the input.
        options: the keyword arguments of the core's constructor; what is left out keeps its default.

    Raises:
        ValueError: unknown name, unknown option or a value the core refuses; the message lists the choices.
    """
    if name not in CORES:
        raise ValueError(f"unknown core {name!r}; choose one of {', '.join(CORES)}{_hint(name, CORES)}")
    options = dict(options or {})
    known = core_options(name)
    for key in options:
        if key not in known:
            choices = ", ".join(known) or "none"
            raise ValueError(f"core {name!r} has no option {key!r}; it has: {choices}{_hint(key, known)}")
    return CORES[name](input_size, **options)


def core_options(name: str) -> dict[str, Any]:
    """The options of a core and their defaults."""
    parameters = inspect.signature(CORES[name]).parameters
    return {key: p.default for key, p in parameters.items() if key != "input_size"}


def _hint(word: str, choices: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f". Did you mean {close[0]!r}?" if close else ""


__all__ = [
    "CORES",
    "DNC",
    "GRU",
    "LSTM",
    "RMC",
    "RNN",
    "Feedforward",
    "HoistedCore",
    "MemoryCore",
    "State",
    "core_options",
    "make_core",
    "reset_rows",
]

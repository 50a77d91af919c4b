"""Search spaces: which settings a sweep varies, by default and on request.

The defaults of all cores are in this file. Sizes that must divide each other (`SIZES`) are chosen around
those of the configuration that the search starts from, so that every combination of them fits.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig
from rmc_agents.cores import core_options
from rmc_agents.errors import shown
from rmc_agents.options import Option, is_number, parse_options
from rmc_agents.rl.ppo import PPOConfig


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Whether the logarithm is drawn evenly."""
    whole: bool = False
    """Whether only whole numbers are drawn."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"{self}: expected the lower end first, and an upper end above it")
        if self.log and not self.low > 0:
            raise ValueError(f"{self}: a logarithmic range needs a lower end above 0")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(f"{self}: expected whole numbers")

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}" + (":log" if self.log else "")

    def suggest(self, trial: Any, name: str) -> float | int:
        """Draw a value by a trial of Optuna; fractions are rounded to three digits."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        drawn = trial.suggest_float(name, self.low, self.high, log=self.log)
        return min(max(float(f"{drawn:.3g}"), self.low), self.high)

    def extremes(self) -> tuple[Option, ...]:
        """Return the values whose validity shows that of all others."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def including(self, value: Option) -> Range | None:
        """Return the range, widened to contain a value; None if it cannot."""
        if not is_number(value) or (self.log and value <= 0):
            return None
        return dataclasses.replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Option, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.values))

    def suggest(self, trial: Any, name: str) -> Option:
        """Draw a value by a trial of Optuna."""
        return self.values[0] if len(self.values) == 1 else trial.suggest_categorical(name, self.values)

    def extremes(self) -> tuple[Option, ...]:
        """Return the values whose validity shows that of all others."""
        return self.values

    def including(self, value: Option) -> Choice | None:
        """Return the choice with one more value, if it is new; None if it is not a plain value."""
        if isinstance(value, list | dict):
            return None
        return self if value in self.values else Choice((*self.values, value))


Search = Range | Choice
"""The values that one setting may take."""

PPO: dict[str, Search] = {
    "learning_rate": Range(1e-4, 3e-3, log=True),
    "entropy_coef": Range(1e-3, 0.1, log=True),
    "gamma": Choice((0.9, 0.95, 0.98, 0.99, 0.995, 0.999)),
    "gae_lambda": Range(0.8, 1.0),
    "clip_range": Choice((0.1, 0.2, 0.3)),
    "epochs": Choice((2, 4, 8)),
}
"""Settings of PPO that every sweep varies. `learning_rate_end` and `entropy_coef_end` stay in proportion."""

SIZES: dict[str, tuple[float, ...]] = {
    "num_envs": (0.5, 2),
    "bptt_length": (0.5, 2),
    "minibatch_size": (0.5, 2),
    "num_steps": (),
}
"""Sizes that must divide each other, and by which factors every sweep varies them where they then fit."""

CORES: dict[str, dict[str, Search]] = {
    "rmc": {
        "num_slots": Choice((2, 4, 8)),
        "num_heads": Choice((1, 2, 4)),
        "head_size": Choice((8, 16, 32)),
        "num_blocks": Choice((1, 2)),
        "gate_style": Choice(("unit", "memory")),
        "forget_bias": Range(0.0, 4.0),
        "input_bias": Range(-3.0, 1.0),
        "normalize_output": Choice((False, True)),
    },
    "lstm": {"hidden_size": Choice((64, 128, 256)), "forget_bias": Range(0.0, 4.0)},
    "gru": {"hidden_size": Choice((64, 128, 256)), "update_bias": Range(-1.0, 4.0)},
    "rnn": {"hidden_size": Choice((64, 128, 256))},
    "dnc": {
        "hidden_size": Choice((32, 64, 128)),
        "num_rows": Choice((8, 16, 32)),
        "row_size": Choice((8, 16, 32)),
        "num_reads": Choice((1, 2, 4)),
    },
    "gated_delta": {
        "num_heads": Choice((2, 4, 8)),
        "key_size": Choice((8, 16, 32)),
        "value_size": Choice((8, 16, 32)),
        "forget_bias": Range(0.0, 6.0),
    },
    "lru": {
        "hidden_size": Choice((64, 128, 256)),
        "state_size": Choice((64, 128, 256)),
        "min_radius": Range(0.0, 0.95),
        "max_radius": Choice((0.99, 0.999, 0.9999)),
    },
    "mingru": {"hidden_size": Choice((64, 128, 256)), "update_bias": Range(-6.0, 0.0)},
    "shm": {"hidden_size": Choice((16, 32, 64)), "num_rows": Choice((1, 16, 128))},
    "delta_rmc": {
        "num_slots": Choice((2, 4, 8)),
        "num_heads": Choice((2, 4, 8)),
        "head_size": Choice((8, 16, 32)),
        "delta_value_size": Choice((8, 16, 32)),
    },
    "entity_delta": {
        "hidden_size": Choice((64, 128, 256)),
        "key_size": Choice((16, 32, 64)),
        "value_size": Choice((8, 16, 32)),
        "num_reads": Choice((2, 4, 8)),
    },
    "gtrxl": {
        "hidden_size": Choice((32, 64, 128)),
        "num_layers": Choice((1, 2, 3)),
        "num_heads": Choice((1, 2, 4)),
        "window": Choice((16, 32, 64)),
        "gate_bias": Range(0.0, 4.0),
    },
    "feedforward": {"hidden_size": Choice((64, 128, 256))},
}
"""Options of each core that every sweep varies. A core of your own has none here: name them in a search."""

_NOT_SEARCHED = {
    *("total_steps", "learning_rate_end", "entropy_coef_end"),
    # `hidden_size` is an option of most cores, and there it means another width.
    *("core", "core_options", "read_as", "hidden_size"),
}


def part_of(name: str, core: str) -> str:
    """Return where a setting belongs: "core", "ppo", "agent" or "environment".

    Raises:
        ValueError: there is no such setting, or it cannot be searched.
    """
    names = searchable(core)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        advice = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"no setting {shown(name, 60)!r} can be searched for core {core}; there are: "
            f"{', '.join(names)}.{advice}"
        )
    return names[name]


def searchable(core: str) -> dict[str, str]:
    """Return the settings that a sweep can vary for a core, and where each belongs."""
    fields = {"ppo": dataclasses.fields(PPOConfig), "agent": dataclasses.fields(AgentConfig)}
    names = {f.name: part for part, each in fields.items() for f in each if f.name not in _NOT_SEARCHED}
    return {**names, "num_envs": "environment", **dict.fromkeys(core_options(core), "core")}


def value_in(config: RunConfig, name: str) -> Any:
    """Return the value of a setting in a configuration.

    Raises:
        ValueError: there is no such setting.
    """
    part, agent = part_of(name, config.agent.core), config.agent
    if part == "core":
        return {**core_options(agent.core), **agent.core_options}[name]
    return getattr({"ppo": config.ppo, "agent": agent, "environment": config.environment}[part], name)


def parse_searches(words: Sequence[str], base: RunConfig) -> dict[str, Search]:
    """Read `learning_rate=1e-4:1e-2:log` and `num_slots=2,4,8`.

    Args:
        words: one for each setting.
        base: the configuration that the search starts from; it says which settings are whole numbers.

    Raises:
        ValueError: an unknown setting, one that is given twice, or values that cannot be read.
    """
    found: dict[str, Search] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not text:
            raise ValueError(
                f"search {shown(word, 60)!r}: expected NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C"
            )
        if name in found:
            raise ValueError(f"search names {name} twice")
        present = value_in(base, name)
        try:
            found[name] = _parse(text, present)
        except ValueError as error:
            raise ValueError(f"search {shown(word, 60)!r}: {error}") from error
        if name in SIZES and isinstance(found[name], Range):
            raise ValueError(
                f"search {shown(word, 60)!r}: sizes must divide each other, so expected a list such as "
                f"{name}={present},{2 * present}"
            )
    return found


def _parse(text: str, present: Option) -> Search:
    if ":" not in text:
        values = [_value(value) for value in text.split(",")]
        if any(isinstance(value, list | dict) for value in values):
            raise ValueError("expected numbers, words, True, False or None, separated by commas")
        return Choice(tuple(dict.fromkeys(values)))
    low, high, *scale = text.split(":")
    ends = [_value(end) for end in (low, high)]
    if scale and all(type(_value(word)) in (int, float) for word in scale):
        raise ValueError("a range has no step size: list the values, separated by commas")
    if scale not in ([], ["log"]) or not all(type(end) in (int, float) for end in ends):
        raise ValueError("expected LOW:HIGH or LOW:HIGH:log, with two numbers")
    if isinstance(present, bool | str):
        raise ValueError(f"it is {present!r} now: expected a list of values, separated by commas")
    whole = type(present) is int or (present is None and all(type(end) is int for end in ends))
    first, last = (float(end) for end in ends if isinstance(end, int | float))
    return Range(first, last, bool(scale), whole)


def _value(text: str) -> Option:
    """Read one value, or one end of a range."""
    if not text.strip():
        raise ValueError("a value is missing")
    try:
        return parse_options([f"x={text}"])["x"]
    except ValueError as error:
        raise ValueError(f"{shown(text, 40)} is not possible: expected a finite number") from error


def default_searches(base: RunConfig, without: Collection[str]) -> dict[str, Search]:
    """Return what a sweep varies by default, apart from sizes.

    Each includes the present value. A setting whose value cannot be included, such as an entropy bonus of 0
    in a logarithmic range, keeps it.

    Args:
        base: the configuration that the search starts from.
        without: names of settings to leave out.
    """
    defaults: Mapping[str, Search] = {**PPO, **CORES.get(base.agent.core, {})}
    wider = {
        name: each.including(value_in(base, name)) for name, each in defaults.items() if name not in without
    }
    return {name: each for name, each in wider.items() if each is not None}

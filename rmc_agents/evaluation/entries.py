"""Entries of evaluation.json: the figures of an agent and of policies that it is compared with."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmc_agents.errors import UsageError, shown
from rmc_agents.evaluation.statistics import Interval

MAX_WHOLE = 2**256
"""Largest whole number in an entry: plots and tables compute in float64, which holds squares of it."""


@dataclass(frozen=True)
class Figures:
    """Success, return and length of one policy in one environment."""

    success_rate: float | None = None
    """Share of solved episodes, 0 to 1; None if the task does not report success."""
    success_ci95: Interval | None = None
    """Its 95 % interval; None for computed figures."""
    mean_return: float | None = None
    """None for a classifier."""
    return_ci95: Interval | None = None
    """Its 95 % interval; None for computed figures and for a single episode."""
    mean_length: float | None = None
    """In steps; None for a classifier."""
    episodes: int | None = None
    """Number of episodes; None for computed figures and for a classifier."""
    first_seed: int | None = None
    """Episode j started in an environment seeded with `first_seed + j`."""
    implementation: str | None = None
    """Which environments were played: farama, batched or gymnasium; exact for computed figures."""
    run: str | None = None
    """Name of the run folder, for the memoryless run that another one is compared with."""

    @classmethod
    def from_json(cls, data: Any, source: str) -> Figures:
        """Read figures; keys that are not figures are ignored.

        Args:
            data: parsed JSON.
            source: where it comes from, for messages.

        Raises:
            UsageError: `data` is not an object, or a figure has the wrong type.
        """
        read = _Reader(data, source)
        return cls(
            success_rate=read.value("success_rate", _is_number, "a number"),
            success_ci95=read.interval("success_ci95"),
            mean_return=read.value("mean_return", _is_number, "a number"),
            return_ci95=read.interval("return_ci95"),
            mean_length=read.value("mean_length", _is_number, "a number"),
            episodes=read.value("episodes", _is_whole, "a whole number"),
            first_seed=read.value("first_seed", _is_whole, "a whole number"),
            implementation=read.value("implementation", _is_text, "a string"),
            run=read.value("run", _is_text, "a string"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the known figures. Of sampled episodes, success and return are null where unknown."""
        sampled = self.episodes is not None
        nullable = ("success_rate", "success_ci95", "return_ci95") if sampled else ()
        figures = {name: value for name, value in vars(self).items() if value is not None or name in nullable}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in figures.items()}


@dataclass(frozen=True)
class Entry:
    """The evaluation of one agent in one environment: an entry of evaluation.json."""

    figures: Figures
    """The agent's own figures."""
    deterministic: bool | None = None
    """Whether the agent took its most likely actions; False: drawn actions; None: not recorded."""
    seconds: float | None = None
    """Wall time of the evaluation."""
    random: Figures | None = None
    """A policy that draws its actions uniformly."""
    best_possible: Figures | None = None
    """A perfect memory on the shortest path; None if it is not known."""
    hallway: int | None = None
    """Cells between the cue's room and the junction; None unless the task is a maze of fixed length."""
    trained_hallway: int | None = None
    """The longest hallway in training; None if it is not known."""
    best_memoryless: Figures | None = None
    """The best play known that uses the observation and the number of the step alone; None if it is not
    known."""
    reference: Figures | None = None
    """A perfect memory, or the best play known; None if it is not known."""
    memoryless: Figures | None = None
    """An agent without memory in the same episodes."""
    command: str | None = None
    """The command that made this entry."""
    versions: dict[str, Any] | None = None
    """Versions of Python and of the packages used, by name."""
    checkpoint: str | None = None
    """Path of the evaluated checkpoint."""
    date: str | None = None
    """ISO 8601, in UTC."""
    earlier: tuple[Entry, ...] = ()
    """Evaluations of other checkpoints, or with another kind of actions, in more episodes."""
    other: dict[str, Any] = field(default_factory=dict)
    """Keys of the file that have no field here, kept as they are."""

    @classmethod
    def from_json(cls, data: Any, source: str) -> Entry:
        """Read an entry.

        Args:
            data: parsed JSON.
            source: where it comes from, such as "runs/x/evaluation.json, entry 'MiniGrid-MemoryS9-v0'".

        Raises:
            UsageError: `data` is not an object with a success rate or a mean return, or a value has the wrong
                type; the message names `source` and the key.
        """
        read = _Reader(data, source)
        figures = Figures.from_json(data, source)
        if figures.success_rate is None and figures.mean_return is None:
            raise read.error("it has neither a success_rate nor a mean_return")
        return cls(
            figures,
            deterministic=read.value("deterministic", lambda x: isinstance(x, bool), "true or false"),
            seconds=read.value("seconds", _is_number, "a number"),
            random=read.figures("random"),
            best_possible=read.figures("best_possible"),
            hallway=read.value("hallway", _is_whole, "a whole number"),
            trained_hallway=read.value("trained_hallway", _is_whole, "a whole number"),
            best_memoryless=read.figures("best_memoryless"),
            reference=read.figures("reference"),
            memoryless=read.figures("memoryless"),
            command=read.value("command", _is_text, "a string"),
            versions=read.value("versions", lambda x: isinstance(x, dict), "an object"),
            checkpoint=read.value("checkpoint", _is_text, "a string"),
            date=read.value("date", _is_text, "a string"),
            earlier=tuple(
                cls.from_json(each, f"{source}, earlier")
                for each in read.value("earlier", lambda x: isinstance(x, list), "a list") or ()
            ),
            other={key: value for key, value in data.items() if key not in _KNOWN},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry as evaluation.json holds it, which is flat: the agent's figures come first.

        Values that are None are left out, except those that a reader of the file may expect: `best_possible`
        besides `random`, and the hallways of a maze.
        """
        nullable: tuple[str, ...] = () if self.random is None else ("best_possible",)
        nullable += () if self.best_possible is None else ("hallway", "trained_hallway")
        flat = ("figures", "earlier", "other")
        names = [each.name for each in dataclasses.fields(self) if each.name not in flat]
        values = {name: getattr(self, name) for name in names}
        data = {
            name: value.to_json() if isinstance(value, Figures) else value
            for name, value in values.items()
            if value is not None or name in nullable
        }
        earlier = {"earlier": [each.to_json() for each in self.earlier]} if self.earlier else {}
        return self.figures.to_json() | data | self.other | earlier

    @property
    def episodes(self) -> int:
        """Number of episodes, or of a classifier's samples; 0 if it is not recorded."""
        samples = self.other.get("samples")
        return self.figures.episodes or (samples if isinstance(samples, int) else 0)

    @property
    def normalized(self) -> float | None:
        """Where the mean return lies between the best play without a memory, 0, and the reference, 1.

        None if they are not known, or differ by less than 0.01.
        """
        returns = [
            None if each is None else each.mean_return
            for each in (self.figures, self.best_memoryless, self.reference)
        ]
        own, low, high = returns
        if own is None or low is None or high is None or high - low < 0.01:
            return None
        return (own - low) / (high - low)

    @property
    def is_drawn(self) -> bool:
        """Whether actions were drawn, instead of taking the most likely ones."""
        return self.deterministic is False

    def is_like(self, later: Entry) -> bool:
        """Return whether both describe the same agent with the same kind of actions, as far as is known."""
        if self.is_drawn != later.is_drawn:
            return False
        if self.checkpoint is None or later.checkpoint is None:
            return True
        # The run folder may have been moved, or given by another path.
        own, its = Path(self.checkpoint), Path(later.checkpoint)
        return own.name == its.name and not _written_after(its, self.date)


def _written_after(path: Path, date: str | None) -> bool:
    """Return whether a file was written after a date, such as by another run in the same folder."""
    try:
        return (
            date is not None and path.stat().st_mtime > datetime.datetime.fromisoformat(date).timestamp() + 1
        )
    except (OSError, ValueError):
        return False


_KNOWN = {each.name for kind in (Figures, Entry) for each in dataclasses.fields(kind)} - {"figures", "other"}
"""Keys of an entry that have a field."""


class _Reader:
    """Values of one JSON object, with messages that say where a wrong one is."""

    def __init__(self, data: Any, source: str) -> None:
        self.source = source
        if not isinstance(data, dict):
            raise self.error(f"'{shown(data, 60)}' is not an object")
        self.data = data

    def error(self, reason: str) -> UsageError:
        return UsageError(f"{self.source}: {reason}; delete the entry, and evaluate again")

    def value(self, key: str, fits: Callable[[Any], bool], expected: str) -> Any:
        """Return a value, None if it is missing or null."""
        value = self.data.get(key)
        if value is not None and not fits(value):
            raise self.error(f"{key} is '{shown(value, 60)}', expected {expected}")
        return value

    def interval(self, key: str) -> Interval | None:
        ends = self.value(key, _is_interval, "two numbers")
        return None if ends is None else (ends[0], ends[1])

    def figures(self, key: str) -> Figures | None:
        data = self.data.get(key)
        return None if data is None else Figures.from_json(data, f"{self.source}, {key}")


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WHOLE


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))

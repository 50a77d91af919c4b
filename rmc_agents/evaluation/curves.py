"""Learning curves: the values in a run's log.jsonl, and several runs combined into a line with a band.

Axes: S runs (seeds), X points on the common axis of steps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmc_agents.evaluation.statistics import iqm_band

POINTS = 200
"""Points of a combined curve."""
MAX_VALUE = float(np.finfo(np.float32).max)
"""Largest value that is read from a log: figures can show no larger ones."""


@dataclass(frozen=True)
class Curve:
    """One logged value of one run over the steps of training."""

    steps: NDArray[np.float64]
    """[n] environment steps, increasing."""
    values: NDArray[np.float64]
    """[n]"""

    @classmethod
    def of(cls, steps: ArrayLike, values: ArrayLike) -> Curve:
        """Build a curve from any sequences of numbers.

        Raises:
            ValueError: the sequences are empty or differ in length, or the steps do not increase.
        """
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1 or not x.size or (np.diff(x) <= 0).any():
            raise ValueError(
                f"steps {x.shape} and values {y.shape}: expected increasing steps and one value for each"
            )
        return cls(x, y)

    def at(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the latest value at each of the given steps, [X]; NaN before the first.

        A run that stopped keeps its last value. Training stops early when a task is solved: without the
        solved runs, the rest of the curve would show only the failures.
        """
        index = np.searchsorted(self.steps, steps, side="right") - 1
        return np.where(index < 0, np.nan, self.values[index.clip(0)])

    def smoothed(self, window: int) -> Curve:
        """Return the mean of the latest `window` values at each step (a single rollout has few episodes)."""
        means = [float(self.values[max(i + 1 - window, 0) : i + 1].mean()) for i in range(len(self.values))]
        return Curve.of(self.steps, means)


@dataclass(frozen=True)
class Band:
    """The runs of one algorithm, combined."""

    steps: NDArray[np.float64]
    """[X]"""
    middle: NDArray[np.float64]
    """[X] interquartile mean over runs (the mean, if there are fewer than four)."""
    low: NDArray[np.float64] | None
    """[X] lower end of its 95 % bootstrap interval over runs; None for a single run."""
    high: NDArray[np.float64] | None
    """[X] upper end; None for a single run."""
    runs: int
    """Number of runs, S."""


def band(curves: Sequence[Curve], points: int = POINTS) -> Band:
    """Combine runs into one curve, from the first step that all runs have logged to the last step of any."""
    first = max(curve.steps[0] for curve in curves)
    last = max(curve.steps[-1] for curve in curves)
    steps = np.linspace(first, last, points) if last > first else np.array([first])
    middle, interval = iqm_band(np.stack([curve.at(steps) for curve in curves]))
    low, high = (None, None) if interval is None else interval
    return Band(steps, middle, low, high, len(curves))


def read_log(run_dir: Path) -> dict[str, Curve]:
    """Read every value in a run's log.jsonl, by name, such as `rollout/success_rate`.

    Missing and non-finite values are left out, those that float32 cannot hold too, and so are lines that a
    crash cut short. A step that was logged twice counts once, with its later value. Without a log the result
    is empty.
    """
    path = run_dir / "log.jsonl"
    if not path.is_file():
        return {}
    found: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            step = float(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        if not 0 <= step <= MAX_VALUE:
            continue
        for name, value in values.items():
            if isinstance(value, int | float) and abs(value) <= MAX_VALUE:  # NaN is not
                found.setdefault(name, {})[step] = float(value)
    return {
        name: Curve.of([step for step, _ in points], [value for _, value in points])
        for name, points in ((name, sorted(by_step.items())) for name, by_step in found.items())
    }


def success_curve(log: dict[str, Curve], env_id: str) -> Curve | None:
    """Return the success rate in one task, or in all tasks if the log does not separate them.

    None if training reported no success.
    """
    return log.get(f"rollout/success_rate/{env_id}") or log.get("rollout/success_rate")

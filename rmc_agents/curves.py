"""Learning curves: a run's log.jsonl as numbers, and the runs of one algorithm as a line with a band.

Axes: S runs (seeds), X points on the common axis of steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmc_agents.statistics import iqm_band

POINTS = 200


@dataclass(frozen=True)
class Curve:
    """One figure of one run, as it went."""

    steps: NDArray[np.float64]
    """[n] environment steps, rising."""
    values: NDArray[np.float64]
    """[n]"""

    @classmethod
    def of(cls, steps: ArrayLike, values: ArrayLike) -> Curve:
        """A curve from any sequences.

        Raises:
            ValueError: they differ in length, are empty, or the steps do not rise.
        """
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1 or not x.size or (np.diff(x) <= 0).any():
            raise ValueError(f"steps {x.shape} and values {y.shape}: expected rising steps, a value for each")
        return cls(x, y)

    def at(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """[X] the latest value at each of these steps: NaN before the first.

        A run that stopped keeps its last value. Training stops early where a task is solved, so that leaving
        such a run out from there on would make the others' failures the curve.
        """
        index = np.searchsorted(self.steps, steps, side="right") - 1
        return np.where(index < 0, np.nan, self.values[index.clip(0)])

    def smoothed(self, window: int) -> Curve:
        """The mean of the latest `window` values: one rollout has few episodes."""
        means = [float(self.values[max(i + 1 - window, 0) : i + 1].mean()) for i in range(len(self.values))]
        return Curve.of(self.steps, means)


@dataclass(frozen=True)
class Band:
    """The runs of one algorithm together."""

    steps: NDArray[np.float64]
    """[X]"""
    middle: NDArray[np.float64]
    """[X] interquartile mean over runs: their mean where they are fewer than four."""
    low: NDArray[np.float64] | None
    """[X] lower end of its 95 % bootstrap interval over runs; None for a single run, which tells nothing
    of others."""
    high: NDArray[np.float64] | None
    """[X]"""
    runs: int


def band(curves: Sequence[Curve], points: int = POINTS) -> Band:
    """Runs as one curve, from the first step that all of them know to the last that any of them knows."""
    first = max(curve.steps[0] for curve in curves)
    last = max(curve.steps[-1] for curve in curves)
    steps = np.linspace(first, last, points) if last > first else np.array([first])
    middle, interval = iqm_band(np.stack([curve.at(steps) for curve in curves]))
    low, high = (None, None) if interval is None else interval
    return Band(steps, middle, low, high, len(curves))


def read_log(run_dir: Path) -> dict[str, Curve]:
    """Every figure of a run's log.jsonl by its name, such as `rollout/success_rate`.

    Steps at which a figure was not known or not finite are left out, and so are lines that a crash cut
    short. Empty where there is no log.
    """
    path = run_dir / "log.jsonl"
    if not path.is_file():
        return {}
    found: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            figures = json.loads(line)
            step = float(figures.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in figures.items():
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, {})[step] = float(value)
    return {
        name: Curve.of([step for step, _ in points], [value for _, value in points])
        for name, points in ((name, sorted(by_step.items())) for name, by_step in found.items())
    }


def success_curve(log: dict[str, Curve], env_id: str) -> Curve | None:
    """Success in one task of training, or in all together where the log does not tell them apart.

    None where training knew of no success.
    """
    return log.get(f"rollout/success_rate/{env_id}") or log.get("rollout/success_rate")

"""Confidence intervals of rates and means, and comparisons of algorithms over seeds.

Sources: Wilson 1927; Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice" (arXiv 2108.13264). The aggregates follow its conventions (the `rliable` package) but use SciPy:
rliable needs a version of `arch` that cannot be imported together with pandas 3.

Axes: S seeds (runs), K tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
"""Lower and upper end."""
Scores = Sequence[ArrayLike]
"""The scores of the runs on each of K tasks: K arrays [S_k]."""

RESAMPLES = 2000
"""Default number of bootstrap resamples."""


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval for a rate: the p with |p_hat - p| <= z sqrt(p (1 - p) / n).

    Unlike the normal approximation, it stays in [0, 1] and keeps a width at 0 and 1. The
    numbers need not be whole: for weighted trials, pass their effective number.

    Raises:
        ValueError: fewer than one trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"{successes} successes of {trials} trials: expected 0 <= successes <= trials, trials >= 1"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    # At rates of 0 and 1 the closed form gives exact ends only up to rounding.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == trials else (centre + half) / scale
    return low, high


def mean_interval(values: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval | None:
    """Return the percentile bootstrap interval of a mean; None for fewer than two values.

    It assumes no distribution: episode returns are far from normal (0 or nearly 1). The resampling is seeded,
    so the same values give the same interval.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        return None
    rng = np.random.default_rng(0)
    means = [rng.choice(x, x.size).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all runs on all tasks.

    It is robust like a median, and statistically efficient like a mean.
    """
    return float(_iqm(*_arrays(scores)))


def iqm_interval(scores: Scores, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval | None:
    """Return the stratified percentile bootstrap interval of `interquartile_mean`.

    Stratified: the runs of each task are resampled separately. None if a task has fewer than two runs.
    """
    return _bootstrap(_arrays(scores), _iqm, confidence, resamples)


def iqm_band(
    values: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Return the interquartile mean over runs at each point of a curve, and its percentile bootstrap band.

    Whole runs are resampled, so that the points of a run stay together. For three runs the 95 % interval is
    their range.

    Args:
        values: [S, X], one row per run.
        confidence: of the interval.
        resamples: of the bootstrap.

    Returns:
        the means [X], and the lower and upper ends of the interval, [X] each; None in place of the ends for a
        single run.

    Raises:
        ValueError: `values` is empty or not [S, X].
    """
    runs = np.asarray(values, dtype=np.float64).T  # [X, S]
    if runs.ndim != 2 or not runs.size:
        raise ValueError(f"values of shape {runs.T.shape}: expected [runs, points]")
    middle = _iqm(runs)
    if runs.shape[1] < 2:
        return middle, None
    draws = np.random.default_rng(0).integers(runs.shape[1], size=(resamples, runs.shape[1]))
    means = np.stack([_iqm(point[draws]) for point in runs])  # [X, resamples]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return middle, (low, high)


def probability_of_improvement(x: Scores, y: Scores) -> float:
    """Return P(a run of X beats a run of Y), averaged over tasks; a tie counts half.

    On each task this is Mann-Whitney's U / (n m).

    Raises:
        ValueError: X and Y do not have the same number of tasks.
    """
    a, b = _same_tasks(x, y)
    return float(_improvement(len(a), *a, *b))


def improvement_interval(
    x: Scores, y: Scores, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the stratified percentile bootstrap interval of `probability_of_improvement`.

    None if a task has fewer than two runs of X or of Y.
    """
    a, b = _same_tasks(x, y)
    return _bootstrap(
        [*a, *b], lambda *s, axis=-1: _improvement(len(a), *s, axis=axis), confidence, resamples
    )


@dataclass(frozen=True)
class Aggregate:
    """Scores of the runs of one algorithm, combined."""

    runs: int
    """Number of scores, over all tasks."""
    iqm: float
    """Interquartile mean."""
    interval: Interval | None
    """Its 95 % interval over seeds; None if a task has fewer than two runs."""


def aggregate(scores: Scores) -> Aggregate:
    """Return the interquartile mean of the runs of one algorithm, and its interval."""
    return Aggregate(sum(a.size for a in _arrays(scores)), interquartile_mean(scores), iqm_interval(scores))


def _same_tasks(x: Scores, y: Scores) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    a, b = _arrays(x), _arrays(y)
    if len(a) != len(b):
        raise ValueError(f"X has {len(a)} tasks and Y {len(b)}: compare them on the same tasks")
    return a, b


def _arrays(scores: Scores) -> list[NDArray[np.float64]]:
    arrays = [np.asarray(task, dtype=np.float64) for task in scores]
    if not arrays or any(a.ndim != 1 or a.size == 0 for a in arrays):
        raise ValueError(f"scores of shapes {[a.shape for a in arrays]}: expected one or more [S] per task")
    return arrays


def _iqm(*samples: NDArray[np.float64], axis: int = -1) -> Any:
    from scipy.stats import trim_mean  # takes a second to import, and only comparisons need it

    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def _improvement(tasks: int, *samples: NDArray[np.float64], axis: int = -1) -> Any:
    """Return the mean probability of improvement; `samples` are X's K tasks, then Y's, [..., S_k] each."""
    assert axis == -1
    wins = []
    for x, y in zip(samples[:tasks], samples[tasks:], strict=True):
        x, y = x[..., :, None], y[..., None, :]
        wins.append(((x > y) + 0.5 * (x == y)).mean(axis=(-1, -2)))
    return np.mean(wins, axis=0)


def _bootstrap(
    samples: list[NDArray[np.float64]], statistic: Any, confidence: float, resamples: int
) -> Interval | None:
    if any(sample.size < 2 for sample in samples):
        return None
    from scipy.stats import bootstrap

    # SciPy resamples unpaired samples separately, which makes the bootstrap stratified.
    result = bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        axis=-1,
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return float(low), float(high)

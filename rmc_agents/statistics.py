"""Figures that survive review: intervals for rates and means, and comparisons of algorithms over seeds.

Sources: Wilson 1927; Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice" (arXiv 2108.13264), whose conventions (`rliable`) the aggregates follow by way of SciPy: rliable
itself needs an `arch` that does not import beside pandas 3.

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
Scores = Sequence[ArrayLike]
"""For each of K tasks, the scores of the runs on it: K arrays [S_k]."""

RESAMPLES = 2000


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a rate: the p with |p_hat - p| <= z sqrt(p (1 - p) / n).

    It stays within [0, 1] and is honest at 0 and at 1, where p_hat +- z sqrt(...) has no width. The numbers
    need not be whole: of weighted trials an effective number may be given.

    Raises:
        ValueError: no trial, or more successes than trials.
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
    # At the ends the closed form gives 0 and 1 only up to rounding.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == trials else (centre + half) / scale
    return low, high


def mean_interval(values: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval | None:
    """Percentile bootstrap interval of a mean; None for fewer than two values, which tell nothing of it.

    Episode returns are nothing like normal (0 or nearly 1), so nothing is assumed of them.
    The resampling is seeded: the same values give the same interval.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        return None
    rng = np.random.default_rng(0)
    means = [rng.choice(x, x.size).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all runs on all tasks: robust as a median, efficient as a mean."""
    return float(_iqm(*_arrays(scores)))


def iqm_interval(scores: Scores, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval | None:
    """Stratified percentile bootstrap interval of `interquartile_mean`: the runs of each task are resampled
    among themselves. None where a task has fewer than two runs.
    """
    arrays = _arrays(scores)
    return _bootstrap(arrays, _iqm, confidence, resamples)


def iqm_band(
    values: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Interquartile mean over runs at each point of a curve, and its percentile bootstrap interval.

    Runs are resampled as wholes, so that the band is that of the curve and not of points that know nothing
    of each other. Of three runs the 95 % interval is their range.

    Args:
        values: [S, X] run by run.
        confidence: of the interval.
        resamples: of the bootstrap.

    Returns:
        [X], and the ends of the interval [X] and [X]; None in their place for a single run.
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
    """P(a run of X beats a run of Y), averaged over tasks; a tie counts half (Mann-Whitney's U / (n m))."""
    a, b = _arrays(x), _arrays(y)
    if len(a) != len(b):
        raise ValueError(f"X has {len(a)} tasks and Y {len(b)}: compare them on the same tasks")
    return float(_improvement(len(a), *a, *b))


def improvement_interval(
    x: Scores, y: Scores, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Interval | None:
    """Stratified percentile bootstrap interval of `probability_of_improvement`, as `iqm_interval`."""
    a, b = _arrays(x), _arrays(y)
    if len(a) != len(b):
        raise ValueError(f"X has {len(a)} tasks and Y {len(b)}: compare them on the same tasks")
    return _bootstrap(
        [*a, *b], lambda *s, axis=-1: _improvement(len(a), *s, axis=axis), confidence, resamples
    )


@dataclass(frozen=True)
class Aggregate:
    """What the runs of one algorithm achieved together."""

    runs: int
    """Scores that entered, over all tasks."""
    iqm: float
    """Interquartile mean."""
    interval: Interval | None
    """Its 95 % interval over seeds; None with fewer than two runs a task."""


def aggregate(scores: Scores) -> Aggregate:
    """Interquartile mean of the runs of one algorithm, and its interval."""
    return Aggregate(sum(a.size for a in _arrays(scores)), interquartile_mean(scores), iqm_interval(scores))


def _arrays(scores: Scores) -> list[NDArray[np.float64]]:
    arrays = [np.asarray(task, dtype=np.float64) for task in scores]
    if not arrays or any(a.ndim != 1 or a.size == 0 for a in arrays):
        raise ValueError(f"scores of shapes {[a.shape for a in arrays]}: expected one or more [S] per task")
    return arrays


def _iqm(*samples: NDArray[np.float64], axis: int = -1) -> Any:
    from scipy.stats import trim_mean  # a second to import, and only comparisons need it

    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def _improvement(tasks: int, *samples: NDArray[np.float64], axis: int = -1) -> Any:
    """Samples are X's K tasks, then Y's; each [..., S_k] with the seeds last."""
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

    # Unpaired samples are each resampled by themselves: that is what stratified means here.
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

"""What a linear probe reads from a memory: the cue, the agent's position, the time since the cue was seen.

A probe is ridge regression from the numbers of one part of the memory (a slot, the whole state) to what is so
in the world; of the cue, the sign of the prediction is the answer. Alain and Bengio 2016 (arXiv 1610.01644).

A maze has few starts and a trained agent repeats itself: thousands of episodes may hold a few dozen different
ones. So a probe is judged on episodes that began in another situation than any of those from which it was
learned, and intervals go by the number of different histories (Kish's effective number), not of episodes.

Axes: n samples (different histories), F numbers of a part, K targets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmc_agents.recording import Recording
from rmc_agents.statistics import Interval, wilson

FOLDS = 5
STRENGTH = 0.1
"""Of the ridge, for numbers of variance 1 and a mean over samples."""
FEWEST = 10
"""Different histories below which nothing is said."""
SMALLEST_SHARE = 0.05
"""Of the episodes: what a number of steps that fewer come to tells is not how the agent remembers."""
MOST_EQUAL = 0.8
"""Share of the commonest value of a position or time above which there is nothing to tell apart."""
RESAMPLES = 1000
CUE, POSITION, TIME = "cue", "position", "time"
TARGETS = (CUE, POSITION, TIME)

Floats = NDArray[np.float64]


class Samples(NamedTuple):
    """Different histories, each with its frequency."""

    step: NDArray[np.int64]
    """[n]"""
    episode: NDArray[np.int64]
    """[n] one of the episodes with this history."""
    weight: Floats
    """[n] how many episodes had it."""

    @property
    def at(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.step, self.episode


class Score(NamedTuple):
    """How well something is read: the share of right answers for the cue, else R^2 (see `r_squared`)."""

    value: float
    low: float
    high: float
    """95 % interval."""


@dataclass(frozen=True)
class Axis:
    """Probes of their own for each number of steps, from some moment on."""

    name: str
    steps: list[int]
    episodes: list[int]
    """At each number of steps, how many episodes there were,"""
    histories: list[int]
    """and how many different ones up to there."""
    chance: list[float | None]
    """Share of the commoner cue among the episodes; None where there were too few."""
    scores: dict[str, dict[str, list[Score | None]]]
    """scores[target][part][i]; None where there were too few, or nothing to tell apart."""


@dataclass(frozen=True)
class Probe:
    """What is read from which part of a memory, and when."""

    episodes: int
    success_rate: float
    parts: list[str]
    """The memory's parts and, for comparison, the present observation."""
    since: Axis
    """By steps since the cue was last in view. Of an episode the last time counts that so many had passed."""
    step: Axis
    """By step of the episode."""
    overall: dict[str, dict[str, Score | None]]
    """overall[target][part]: one probe for all steps at which the cue had been in view and no longer was.
    Intervals are over the situations in which episodes began."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def probe(recording: Recording, most_steps: int = 40) -> Probe:
    """Probe every part of a recorded memory for every target.

    Args:
        recording: of `record`.
        most_steps: the axes end here, or where too few episodes last.
    """
    since, running = recording.since, recording.running
    bins = [_last_with(recording, since == s) for s in range(most_steps)]
    by_since = _axis("steps since the cue was last in view", recording, bins, (CUE, POSITION))
    steps = np.arange(len(since))[:, None]
    bins = [_samples(recording, running & (steps == t)) for t in range(min(most_steps, len(since)))]
    by_step = _axis("step of the episode", recording, bins, TARGETS)
    after = _samples(recording, running & (since > 0))
    found = {part: _scores(recording, part, after, TARGETS, pooled=True) for part in recording.parts}
    overall = {target: {part: found[part][target] for part in recording.parts} for target in TARGETS}
    parts = list(recording.parts)
    return Probe(recording.episodes, recording.success_rate, parts, by_since, by_step, overall)


def cross_validated(
    x: Floats, y: Floats, fold: NDArray[np.int64], weight: Floats, strength: float = STRENGTH
) -> Floats:
    """Weighted ridge regression, each sample predicted by one that was learned from all other folds.

    argmin_w mean |y - mean(y) - z w|^2 + strength |w|^2, z being x with mean 0 and variance 1.

    Args:
        x: [n, F]; a column that does not vary is not used.
        y: [n, K].
        fold: [n] two or more numbers.
        weight: [n] of the samples, in every mean.
        strength: of the ridge.

    Returns:
        [n, K] predictions.
    """
    found = np.empty_like(y)
    for held_out in np.unique(fold):
        test = fold == held_out
        seen, answers, share = x[~test], y[~test], weight[~test, None] / weight[~test].sum()
        mean, middle = (share * seen).sum(0), (share * answers).sum(0)
        deviation = np.sqrt((share * (seen - mean) ** 2).sum(0))
        used = deviation > 1e-6
        mean, scale = mean[used], deviation[used]
        z = (seen[:, used] - mean) / scale
        gram = (share * z).T @ z + strength * np.eye(z.shape[1])
        slopes = np.linalg.solve(gram, (share * z).T @ (answers - middle))
        found[test] = (x[test][:, used] - mean) / scale @ slopes + middle
    return found


def folds_of(groups: NDArray[np.int64], most: int = FOLDS) -> NDArray[np.int64]:
    """[n] a fold for each sample, the same for all samples of a group; at most `most` folds."""
    return _rank(groups) % most


def r_squared(y: Floats, predicted: Floats, weight: Floats) -> float:
    """1 - sum (y - predicted)^2 / sum (y - mean(y))^2: 1 is perfect, 0 the mean's, and below it is worse."""
    mean = float(np.average(y, weights=weight))
    return 1 - float((weight * (y - predicted) ** 2).sum() / (weight * (y - mean) ** 2).sum())


def effective_number(weight: Floats) -> float:
    """Kish's (sum w)^2 / sum w^2: how many samples of equal weight tell as much."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def _axis(name: str, recording: Recording, bins: list[Samples], targets: tuple[str, ...]) -> Axis:
    last = max((i for i, samples in enumerate(bins) if _enough(recording, samples)), default=-1)
    bins = bins[: last + 1]
    found = {
        part: [_scores(recording, part, samples, targets) for samples in bins] for part in recording.parts
    }
    scores = {
        target: {part: [score[target] for score in found[part]] for part in recording.parts}
        for target in targets
    }
    return Axis(
        name,
        list(range(last + 1)),
        [int(samples.weight.sum()) for samples in bins],
        [len(samples.weight) for samples in bins],
        [_commoner(recording, samples) if _enough(recording, samples) else None for samples in bins],
        scores,
    )


def _scores(
    recording: Recording, part: str, samples: Samples, targets: tuple[str, ...], pooled: bool = False
) -> dict[str, Score | None]:
    """How well each target is read from a part of the memory in the samples."""
    seen = recording.since[samples.at] >= 0
    if TIME in targets and not seen.all():  # there is no time before the cue was seen
        rest = tuple(target for target in targets if target != TIME)
        those = Samples(samples.step[seen], samples.episode[seen], samples.weight[seen])
        return {
            **_scores(recording, part, samples, rest, pooled),
            **_scores(recording, part, those, (TIME,), pooled),
        }
    if not _enough(recording, samples):
        return dict.fromkeys(targets)
    begun = recording.situation[0, samples.episode]
    x = recording.parts[part][samples.at].astype(np.float64)
    y = np.stack([_target(recording, target, samples) for target in targets], axis=1)
    predicted = cross_validated(x, y, folds_of(begun), samples.weight)
    group = begun if pooled else None
    return {
        target: _score(y[:, k], predicted[:, k], samples.weight, target == CUE, group)
        for k, target in enumerate(targets)
    }


def _score(
    y: Floats, predicted: Floats, weight: Floats, two_classes: bool, group: NDArray[np.int64] | None
) -> Score | None:
    """None where there is nothing to tell apart. `group`: what the interval is over; None: the samples."""
    commonest = max(weight[y == value].sum() for value in np.unique(y)) / weight.sum()
    if commonest == 1 or (not two_classes and commonest > MOST_EQUAL):
        return None
    own = np.arange(len(y)) if group is None else group
    if two_classes:
        right = ((predicted > 0) == (y > 0)).astype(np.float64)
        value, n = float(np.average(right, weights=weight)), effective_number(weight)
        interval = wilson(value * n, n) if group is None else _bootstrap(weight * right, weight, own)
        return Score(value, *interval)
    spread = (y - float(np.average(y, weights=weight))) ** 2
    low, high = _bootstrap(weight * (y - predicted) ** 2, weight * spread, own)
    return Score(r_squared(y, predicted, weight), 1 - high, 1 - low)


def _target(recording: Recording, target: str, samples: Samples) -> Floats:
    if target == CUE:
        return (2 * recording.cue[samples.episode] - 1).astype(np.float64)
    return (recording.x if target == POSITION else recording.since)[samples.at].astype(np.float64)


def _bootstrap(above: Floats, below: Floats, group: NDArray[np.int64]) -> Interval:
    """95 % interval of sum(above) / sum(below), whole groups being drawn with replacement."""
    sums = np.stack([np.bincount(_rank(group), weights=part) for part in (above, below)], axis=1)
    drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    totals = drawn @ sums
    ratios = totals[:, 0] / np.maximum(totals[:, 1], 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def _last_with(recording: Recording, marked: NDArray[np.bool_]) -> Samples:
    """The last marked step of each episode."""
    marked = marked & recording.running
    later = np.cumsum(marked[::-1], axis=0)[::-1]
    return _samples(recording, marked & (later == 1))


def _samples(recording: Recording, marked: NDArray[np.bool_]) -> Samples:
    """The marked steps [T, B], those with the same history as one."""
    t, b = np.nonzero(marked)
    _, first, count = np.unique(recording.history[t, b], return_index=True, return_counts=True)
    return Samples(t[first], b[first], count.astype(np.float64))


def _enough(recording: Recording, samples: Samples) -> bool:
    """Whether there are samples enough, of both cues, and beginnings enough to learn from others."""
    cues, begun = recording.cue[samples.episode], recording.situation[0, samples.episode]
    return (
        len(cues) >= FEWEST
        and samples.weight.sum() >= SMALLEST_SHARE * recording.episodes
        and len(np.unique(cues)) == 2
        and len(np.unique(begun)) >= FOLDS
    )


def _commoner(recording: Recording, samples: Samples) -> float:
    ones = float(np.average(recording.cue[samples.episode], weights=samples.weight))
    return max(ones, 1 - ones)


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] the groups as 0, 1, 2, ..."""
    return np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64)

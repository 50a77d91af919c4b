"""Linear probes of a memory: how well it encodes the cue, the agent's position and the time since the cue.

A probe is a ridge regression from the numbers of one part of the memory (a slot, the whole state) to a target
number of the world; for the cue, the sign of the prediction is the answer. Alain and Bengio 2016 (arXiv
1610.01644).

A maze has few starts and a trained agent repeats itself: thousands of episodes may hold a few dozen different
ones. So a probe is tested on episodes with other starting states than those that it was fitted to, and
intervals use the effective number of different histories (Kish) instead of the number of episodes.

Axes: n samples (different histories), F numbers of a part, K targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.errors import UsageError
from rmc_agents.evaluation.statistics import Interval, wilson
from rmc_agents.interpret.recording import Recording

FOLDS = 5
"""Folds of the cross-validation."""
STRENGTH = 0.1
"""Ridge penalty, for inputs of variance 1 and a loss that is a mean over samples."""
MIN_DEVIATION = 1e-6
"""Deviation up to which a column counts as constant."""
MIN_HISTORIES = 10
"""Number of different histories below which nothing is reported."""
MIN_SHARE = 0.05
"""Share of the episodes below which nothing is reported: so few do not show how the agent remembers."""
MAX_EQUAL = 0.8
"""Share of the most common value of a position or time above which no R^2 is reported."""
RESAMPLES = 1000
"""Resamples of the bootstrap."""
CUE, POSITION, TIME = "cue", "position", "time"
TARGETS = (CUE, POSITION, TIME)

Floats = NDArray[np.float64]


class Samples(NamedTuple):
    """Different histories, each with one of its episodes and its frequency."""

    step: NDArray[np.int64]
    """[n] the step at which the history ends."""
    episode: NDArray[np.int64]
    """[n] an episode with this history."""
    weight: Floats
    """[n] number of episodes with this history."""

    @property
    def at(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index of the samples in arrays [T, B]."""
        return self.step, self.episode


class Score(NamedTuple):
    """How well a target is read: the share of right answers for the cue, else R^2 (see `r_squared`)."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Axis:
    """Scores by a number of steps, with separate probes for each number."""

    name: str
    """What the steps are counted from."""
    steps: list[int]
    """0, 1, 2, ..."""
    episodes: list[int]
    """Number of episodes at each number of steps."""
    histories: list[int]
    """Number of different histories among them."""
    chance: list[float | None]
    """Share of the more common cue among the episodes; None if they are too few."""
    scores: dict[str, dict[str, list[Score | None]]]
    """`scores[target][part][i]`; None if the samples are too few, or the target hardly varies."""


@dataclass(frozen=True)
class Probe:
    """Scores of the probes of one recording."""

    episodes: int
    success_rate: float
    """Share of the episodes with the right choice within the recorded steps."""
    parts: list[str]
    """The parts of the memory and, for comparison, the current observation."""
    since: Axis
    """By steps since the cue was last in view. If an episode reaches a number several times, the last
    counts."""
    step: Axis
    """By step of the episode."""
    overall: dict[str, dict[str, Score | None]]
    """`overall[target][part]`: one probe for all steps at which the cue had been in view and no longer was.
    Intervals are over the starting states of the episodes."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


def require_variety(recording: Recording, name: str) -> None:
    """Raise UsageError, with the reason, if no probe of a recording could have a score.

    Args:
        recording: returned by `record`.
        name: of the run and the environment, for the message.
    """
    since, running = recording.since, recording.running
    step = np.arange(len(since))[:, None]
    bins = [_samples(recording, running & (since > 0))]
    bins += [_last_where(recording, since == s) for s in range(len(since))]
    bins += [_samples(recording, running & (step == t)) for t in range(len(since))]
    if any(_enough(recording, samples) for samples in bins):
        return
    starts = len(np.unique(recording.state_id[0]))
    if starts < FOLDS:
        raise UsageError(
            f"{name} cannot be probed: its {recording.episodes:,} episodes have {starts} different starts; a "
            f"probe is fitted and tested on different ones, at least {FOLDS}. Choose a larger environment"
        )
    raise UsageError(
        f"{name} cannot be probed: at every step, its episodes hold fewer than {MIN_HISTORIES} different "
        f"histories of both cues; more episodes, drawn actions or some random actions make them differ"
    )


def probe(recording: Recording, max_steps: int = 40, progress: Callable[[int], None] | None = None) -> Probe:
    """Probe every part of a recorded memory for every target.

    Args:
        recording: returned by `record`.
        max_steps: length of the axes; they are shorter where too few episodes last that long.
        progress: called with the number of probed steps, of `2 * max_steps` at most.
    """
    done = count(1)

    def advance() -> None:
        if progress is not None:
            progress(next(done))

    since, running = recording.since, recording.running
    bins = [_last_where(recording, since == s) for s in range(max_steps)]
    name = "steps since the cue was last in view"
    by_since = _axis(name, recording, bins, (CUE, POSITION), advance)
    steps = np.arange(len(since))[:, None]
    bins = [_samples(recording, running & (steps == t)) for t in range(min(max_steps, len(since)))]
    by_step = _axis("step of the episode", recording, bins, TARGETS, advance)
    after = _samples(recording, running & (since > 0))
    parts = list(recording.parts)
    found = {part: _scores(recording, part, after, TARGETS, pooled=True) for part in parts}
    overall = {target: {part: found[part][target] for part in parts} for target in TARGETS}
    return Probe(recording.episodes, recording.success_rate, parts, by_since, by_step, overall)


def cross_validated(
    x: Floats, y: Floats, *, fold: NDArray[np.int64], weight: Floats, strength: float = STRENGTH
) -> Floats:
    """Predict each sample by a weighted ridge regression that was fitted to all other folds.

    argmin_w mean |y - mean(y) - z w|^2 + strength |w|^2, where z is x scaled to mean 0 and variance 1.

    Args:
        x: [n, F]; a column that does not vary is not used.
        y: [n, K].
        fold: [n] with two different numbers or more.
        weight: [n] of the samples, in every mean.
        strength: ridge penalty.

    Returns:
        the predictions, [n, K].
    """
    # In units of each column's deviation over all samples, which keeps sums and differences exact.
    share = weight[:, None] / weight.sum()
    mean = (share * x).sum(0)
    scale = np.sqrt((share * (x - mean) ** 2).sum(0))
    varies = scale > MIN_DEVIATION
    data = torch.as_tensor((x[:, varies] - mean[varies]) / scale[varies])
    least = torch.as_tensor(np.maximum(MIN_DEVIATION / scale[varies], MIN_DEVIATION))
    targets, weights = torch.as_tensor(y), torch.as_tensor(weight)[:, None]
    predicted = torch.empty_like(targets)
    total = _moments(data, targets, weights)
    for held_out in np.unique(fold):
        test = torch.as_tensor(fold == held_out)
        if int((~test).sum()) < data.shape[1]:
            found = _fit_samples(data[~test], targets[~test], weights[~test], least, strength)
        else:
            left_out = _moments(data[test], targets[test], weights[test])
            rest = _Moments(*(a - b for a, b in zip(total, left_out, strict=True)))
            found = _fit_moments(rest, least, strength)
        centre, slopes, intercept = found
        predicted[test] = (data[test] - centre) @ slopes + intercept
    return predicted.numpy()


class _Moments(NamedTuple):
    """Weighted sums over samples."""

    weight: Tensor
    """[] of the weights."""
    x: Tensor
    """[F]."""
    y: Tensor
    """[K]."""
    xx: Tensor
    """[F, F] of products."""
    xy: Tensor
    """[F, K]."""


def _moments(x: Tensor, y: Tensor, weight: Tensor) -> _Moments:
    weighted = weight * x
    return _Moments(weight.sum(), weighted.sum(0), (weight * y).sum(0), weighted.T @ x, weighted.T @ y)


def _fit_moments(sums: _Moments, least: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a ridge regression by its normal equations, from sums over samples.

    Returns:
        mean of the inputs [F], slopes [F, K] (0 for a column whose deviation is not above `least`) and mean
        of the targets [K].
    """
    mean, intercept = sums.x / sums.weight, sums.y / sums.weight
    covariance = sums.xx / sums.weight - torch.outer(mean, mean)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    scale = torch.where(deviation > least, deviation, torch.inf)
    gram = covariance / torch.outer(scale, scale) + strength * torch.eye(len(scale), dtype=scale.dtype)
    right = (sums.xy / sums.weight - torch.outer(mean, intercept)) / scale[:, None]
    slopes = torch.cholesky_solve(right, torch.linalg.cholesky(gram)) / scale[:, None]
    return mean, slopes, intercept


def _fit_samples(
    x: Tensor, y: Tensor, weight: Tensor, least: Tensor, strength: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit the same regression in its dual form, which is smaller where samples are fewer than columns."""
    share = weight / weight.sum()
    mean, intercept = (share * x).sum(0), (share * y).sum(0)
    deviation = (share * (x - mean) ** 2).sum(0).sqrt()
    scale = torch.where(deviation > least, deviation, torch.inf)
    z = share.sqrt() * (x - mean) / scale
    gram = z @ z.T + strength * torch.eye(len(z), dtype=z.dtype)
    right = share.sqrt() * (y - intercept)
    slopes = z.T @ torch.cholesky_solve(right, torch.linalg.cholesky(gram)) / scale[:, None]
    return mean, slopes, intercept


def folds_of(groups: NDArray[np.int64], folds: int = FOLDS) -> NDArray[np.int64]:
    """Return a fold for each sample, [n], at most `folds` different ones. Samples of a group share their
    fold."""
    return _rank(groups) % folds


def r_squared(y: Floats, predicted: Floats, weight: Floats) -> float:
    """Return 1 - sum (y - predicted)^2 / sum (y - mean(y))^2.

    1 is perfect, 0 is as good as predicting the mean, and below 0 is worse than that.
    """
    mean = float(np.average(y, weights=weight))
    return 1 - float((weight * (y - predicted) ** 2).sum() / (weight * (y - mean) ** 2).sum())


def effective_number(weight: Floats) -> float:
    """Return Kish's (sum w)^2 / sum w^2: the number of equally weighted samples with as much information."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def _axis(
    name: str,
    recording: Recording,
    bins: list[Samples],
    targets: tuple[str, ...],
    advance: Callable[[], None],
) -> Axis:
    """Score the samples of each bin; the axis ends with the last bin that has enough samples."""
    last = max((i for i, samples in enumerate(bins) if _enough(recording, samples)), default=-1)
    bins = bins[: last + 1]
    found = []
    for samples in bins:
        found.append({part: _scores(recording, part, samples, targets) for part in recording.parts})
        advance()
    scores = {
        target: {part: [each[part][target] for each in found] for part in recording.parts}
        for target in targets
    }
    return Axis(
        name,
        list(range(last + 1)),
        [int(samples.weight.sum()) for samples in bins],
        [len(samples.weight) for samples in bins],
        [_majority(recording, samples) if _enough(recording, samples) else None for samples in bins],
        scores,
    )


def _scores(
    recording: Recording, part: str, samples: Samples, targets: tuple[str, ...], *, pooled: bool = False
) -> dict[str, Score | None]:
    """Score how well each target can be read from a part of the memory.

    Args:
        recording: the episodes.
        part: name of the part.
        samples: the samples to fit and to test on.
        targets: names of the targets.
        pooled: the samples are of many steps, so that intervals are over the starting states of the episodes,
            instead of over samples.
    """
    seen = recording.since[samples.at] >= 0
    if TIME in targets and not seen.all():  # the time since the cue is undefined before it was seen
        rest = tuple(target for target in targets if target != TIME)
        defined = Samples(samples.step[seen], samples.episode[seen], samples.weight[seen])
        return {
            **_scores(recording, part, samples, rest, pooled=pooled),
            **_scores(recording, part, defined, (TIME,), pooled=pooled),
        }
    if not _enough(recording, samples):
        return dict.fromkeys(targets)
    start = recording.state_id[0, samples.episode]
    x = recording.parts[part][samples.at].astype(np.float64)
    y = np.stack([_target(recording, target, samples) for target in targets], axis=1)
    predicted = cross_validated(x, y, fold=folds_of(start), weight=samples.weight)
    group = start if pooled else None
    return {
        target: _score(y[:, k], predicted[:, k], samples.weight, two_classes=target == CUE, group=group)
        for k, target in enumerate(targets)
    }


def _score(
    y: Floats, predicted: Floats, weight: Floats, *, two_classes: bool, group: NDArray[np.int64] | None
) -> Score | None:
    """Score the predictions [n] of one target; None if the target hardly varies.

    The interval is over the groups, or over the samples if `group` is None.
    """
    commonest = max(weight[y == value].sum() for value in np.unique(y)) / weight.sum()
    if commonest == 1 or (not two_classes and commonest > MAX_EQUAL):
        return None
    own = np.arange(len(y)) if group is None else group
    if two_classes:
        right = ((predicted > 0) == (y > 0)).astype(np.float64)
        value, n = float(np.average(right, weights=weight)), effective_number(weight)
        interval = wilson(value * n, n) if group is None else bootstrap(weight * right, weight, own)
        return Score(value, *interval)
    spread = (y - float(np.average(y, weights=weight))) ** 2
    low, high = bootstrap(weight * (y - predicted) ** 2, weight * spread, own)
    return Score(r_squared(y, predicted, weight), 1 - high, 1 - low)


def _target(recording: Recording, target: str, samples: Samples) -> Floats:
    """Return the true values of a target, [n]; the cue as -1 or 1."""
    if target == CUE:
        return (2 * recording.cue[samples.episode] - 1).astype(np.float64)
    return (recording.x if target == POSITION else recording.since)[samples.at].astype(np.float64)


def bootstrap(above: Floats, below: Floats, group: NDArray[np.int64]) -> Interval:
    """Return the 95 % bootstrap interval of sum(above) / sum(below); whole groups are resampled."""
    sums = np.stack([np.bincount(_rank(group), weights=part) for part in (above, below)], axis=1)
    totals = _resamples(len(sums)) @ sums
    ratios = totals[:, 0] / np.maximum(totals[:, 1], 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


@lru_cache(maxsize=4)  # the parts of a memory share their samples
def _resamples(n: int) -> Floats:
    """Return how often each of n groups is drawn in each resample, [RESAMPLES, n]."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)


def _last_where(recording: Recording, where: NDArray[np.bool_]) -> Samples:
    """Return the samples of the last step of each episode for which `where` [T, B] is true."""
    where = where & recording.running
    from_here = np.cumsum(where[::-1], axis=0)[::-1]
    return _samples(recording, where & (from_here == 1))


def _samples(recording: Recording, where: NDArray[np.bool_]) -> Samples:
    """Return the steps for which `where` [T, B] is true; steps with the same history are one sample."""
    t, b = np.nonzero(where)
    _, first, count = np.unique(recording.history[t, b], return_index=True, return_counts=True)
    return Samples(t[first], b[first], count.astype(np.float64))


def _enough(recording: Recording, samples: Samples) -> bool:
    """Return whether there are enough samples of both cues, with enough starting states for all folds."""
    cues, starts = recording.cue[samples.episode], recording.state_id[0, samples.episode]
    return (
        len(cues) >= MIN_HISTORIES
        and samples.weight.sum() >= MIN_SHARE * recording.episodes
        and len(np.unique(cues)) == 2
        and len(np.unique(starts)) >= FOLDS
    )


def _majority(recording: Recording, samples: Samples) -> float:
    """Return the share of the more common cue."""
    ones = float(np.average(recording.cue[samples.episode], weights=samples.weight))
    return max(ones, 1 - ones)


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups 0, 1, 2, ..., [n]."""
    return np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64)

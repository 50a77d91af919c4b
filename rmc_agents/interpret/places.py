"""Linear probes of where objects are: how well a memory encodes the places of objects that it no longer sees.

A probe is a ridge regression from the numbers of one part of the memory (a slot, the whole state) to how many
cells an object lies ahead of the agent and to its right. It is tested on episodes that it was not fitted to.

Axes: T steps, B environments (one episode each), K objects, n samples, F numbers of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import ObjectsEnv
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.episodes import Policy
from rmc_agents.interpret.probe import FOLDS, Score, bootstrap, cross_validated, folds_of
from rmc_agents.interpret.recording import OBSERVATION, WHOLE, parts_of
from rmc_agents.tree import leaves

EVERY = 10
"""Steps between two samples of an episode, except the first episode, of which all steps are sampled."""
NEAR = 1.5
"""A place counts as right up to this distance in both directions: the cell itself or one beside it."""
MIN_SAMPLES = 50
"""Samples of an object below which nothing is reported."""
STRENGTH = 0.01
"""Ridge penalty: a stronger one would move the places towards their mean."""
SINCE = (1, 11, 51, 201)
"""Lower ends of the ranges of steps since an object was last in view."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PlacesRecording:
    """Samples of the first episode of each environment."""

    parts: dict[str, NDArray[Any]]
    """[n, F] the parts of the memory and, for comparison, the current observation."""
    offset: Floats
    """[n, K, 2] cells ahead of the agent and to its right."""
    known: NDArray[np.bool_]
    """[n, K] the object has been in view."""
    since: NDArray[np.int64]
    """[n, K] steps since the object was last in view: 0 while it is, and before it has been."""
    episode: NDArray[np.int64]
    """[n]."""
    step: NDArray[np.int64]
    """[n]."""
    actions: Tensor
    """[T, B] of all steps, so that an episode can be played again."""
    returns: Floats
    """[B] rewards of the recorded steps."""

    @property
    def weight(self) -> Floats:
        """[n] each episode counts alike."""
        return np.where(self.episode == 0, 1 / EVERY, 1.0)


@dataclass(frozen=True)
class PlacesProbe:
    """Scores of the probes of one recording: the share of places that are found, to one cell."""

    episodes: int
    steps: int
    mean_return: float
    objects: list[str]
    chance: list[float | None]
    """[K] share of the best place for all samples together; None if there are too few samples."""
    scores: dict[str, list[Score | None]]
    """`scores[part][k]`, of objects that have been in view and are no longer."""
    since: list[tuple[str, int, Score | None]]
    """For all objects and the whole memory: range of steps since the object was in view, samples, score."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


@torch.no_grad()
def record_places(
    policy: Policy,
    env: ObjectsEnv,
    *,
    seed: int,
    steps: int,
    progress: Callable[[int], None] | None = None,
) -> PlacesRecording:
    """Play the first episode of every environment, and sample the memory and the places of the objects.

    Args:
        policy: its state has the core's state as `memory`, as an agent's has.
        env: a batched task with objects.
        seed: of the episodes.
        steps: T at most; recording stops before the first episode ends.
        progress: called after each step with the number of steps.
    """
    obs, B, device = env.reset(seed), env.num_envs, env.device
    state: Any = policy.initial_state(B)
    starts, reward = torch.ones(B, dtype=torch.bool, device=device), torch.zeros(B, device=device)
    total, since = (
        torch.zeros(B, device=device),
        torch.zeros_like(env.object_places().known, dtype=torch.int64),
    )
    samples: list[tuple[Tensor, ...]] = []
    parts: list[dict[str, Tensor]] = []
    actions = []
    for t in range(steps):
        masks = env.action_masks() if policy.uses_action_masks else None
        acted, state = policy.act(obs, starts, reward, state, *(() if masks is None else (masks,)))
        places = env.object_places()
        since = torch.where(places.known & ~places.in_view, since + 1, 0)
        rows = torch.arange(B if t % EVERY == 0 else 1, device=device)
        columns = (places.offset[rows], places.known[rows], since[rows], rows, torch.full_like(rows, t))
        samples.append(tuple(column.cpu() for column in columns))
        seen = torch.cat([x.reshape(B, -1).float() for x in leaves(obs)], dim=1)
        found = {**parts_of(state.memory), OBSERVATION: seen}
        parts.append({name: part[rows.to(part.device)].cpu() for name, part in found.items()})
        actions.append(acted)
        step = env.step(acted)
        obs, reward, starts = step.obs, step.reward, step.done
        total = total + reward
        if progress is not None:
            progress(t + 1)
        if bool(starts.any()):
            break
    offset, known, out_of_view, episode, when = (
        torch.cat([columns[i] for columns in samples]).numpy() for i in range(5)
    )
    return PlacesRecording(
        {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]},
        offset.astype(np.float64),
        known,
        out_of_view,
        episode,
        when,
        torch.stack(actions),
        total.double().numpy(force=True),
    )


def decode(recording: PlacesRecording, part: str, include_in_view: bool = False) -> Floats:
    """Return the places that probes of a part of the memory find, [n, K, 2], NaN for too few samples.

    The probe of an object is fitted to samples of other episodes in which it has been in view.

    Args:
        recording: returned by `record_places`.
        part: name of the part.
        include_in_view: fit to samples with the object in view, too.
    """
    x, fold = recording.parts[part].astype(np.float64), folds_of(recording.episode)
    found = np.full(recording.offset.shape, np.nan)
    for k in range(recording.known.shape[1]):
        used = recording.known[:, k] if include_in_view else recording.since[:, k] > 0
        if used.sum() < MIN_SAMPLES or len(np.unique(fold[used])) < FOLDS:
            continue
        weight = np.where(used, recording.weight, 0.0)
        found[:, k] = cross_validated(x, recording.offset[:, k], fold=fold, weight=weight, strength=STRENGTH)
    return found


def probe_places(
    recording: PlacesRecording, names: tuple[str, ...], progress: Callable[[int], None] | None = None
) -> PlacesProbe:
    """Score how well the places of objects can be read from each part of a memory.

    Args:
        recording: returned by `record_places`.
        names: of the objects.
        progress: called with the number of parts that are done.

    Raises:
        UsageError: no object was in view and then out of view often enough.
    """
    used = recording.since > 0
    scores: dict[str, list[Score | None]] = {}
    near = np.zeros(used.shape, dtype=bool)
    for done, part in enumerate(recording.parts, 1):
        error = np.abs(decode(recording, part) - recording.offset).max(2)
        right = error < NEAR
        scores[part] = [
            None if np.isnan(error[:, k]).all() else _share(recording, right[:, k], used[:, k])
            for k in range(len(names))
        ]
        if part == WHOLE:
            near = right
        if progress is not None:
            progress(done)
    if all(score is None for score in scores[WHOLE]):
        raise UsageError(
            f"places cannot be probed: no object was out of view after it had been in view in {MIN_SAMPLES} "
            "samples; record more episodes or steps"
        )
    ranges = []
    for low, high in zip(SINCE, (*SINCE[1:], np.inf), strict=True):
        within = (recording.since >= low) & (recording.since < high)
        name = f"{low} to {int(high) - 1}" if np.isfinite(high) else f"{low} or more"
        count = int(within.sum())
        ranges.append((name, count, _share(recording, near, within) if count >= MIN_SAMPLES else None))
    return PlacesProbe(
        len(recording.returns),
        len(recording.actions),
        float(recording.returns.mean()),
        list(names),
        [_chance(recording, k) for k in range(len(names))],
        scores,
        ranges,
    )


def _share(recording: PlacesRecording, right: NDArray[np.bool_], where: NDArray[np.bool_]) -> Score:
    """Return the share of right places, with an interval over episodes; the arrays are [n] or [n, K]."""
    sample = np.nonzero(where)[0]
    weight, correct = recording.weight[sample], right[where].astype(np.float64)
    low, high = bootstrap(weight * correct, weight, recording.episode[sample])
    return Score(float(np.average(correct, weights=weight)), low, high)


def _chance(recording: PlacesRecording, k: int) -> float | None:
    """Return the share of places that are right if always the same one is named, the best one."""
    used = recording.since[:, k] > 0
    if used.sum() < MIN_SAMPLES:
        return None
    places, weight = recording.offset[used, k], recording.weight[used]
    candidates = np.unique(places, axis=0)
    near = np.abs(places[None] - candidates[:, None]).max(2) < NEAR
    return float((near * weight).sum(1).max() / weight.sum())

"""Causal test of a memory: exchange a part of it between two episodes, and count how often the choice flips.

The two episodes of a pair are in the same state and saw the cue equally long ago, but their cues differ. If
the agent chooses by the exchanged part, it now makes the other choice: the choice flips. Pairs with equal
cues are the control, in which nothing should change. Everything else continues as it would have, with the
same random draws.

Axes: B episodes, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rmc_agents.cores import State, reset_rows
from rmc_agents.environment import CuedEnv
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.episodes import Policy
from rmc_agents.evaluation.statistics import Interval, wilson
from rmc_agents.interpret.probe import effective_number
from rmc_agents.interpret.recording import WHOLE, Edit, Recording, parts_of, record, with_part
from rmc_agents.tree import map_tree


class Pairs(NamedTuple):
    """Pairs of episodes: each taker receives a part of its giver's memory."""

    takers: NDArray[np.int64]
    """[P]."""
    givers: NDArray[np.int64]
    """[P]."""


@dataclass(frozen=True)
class Swap:
    """Outcome of exchanging one part of the memory."""

    part: str
    same_cue: bool
    """True for the control: both episodes of a pair have the same cue."""
    pairs: int
    """Number of pairs. Without the exchange, every taker would have come to a choice."""
    different: int
    """Number of pairs that differ in the history of either episode."""
    effective: float
    """Effective number of different pairs (Kish), which determines the interval."""
    flipped: int
    """Number of takers that made the other choice."""
    undecided: int
    """Number of takers that made no choice within the recorded steps."""

    @property
    def rate(self) -> float:
        """Share of flipped choices."""
        return self.flipped / self.pairs

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval of the rate."""
        return wilson(self.rate * self.effective, self.effective)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, the rate and its interval."""
        return {**asdict(self), "rate": self.rate, "ci95": self.interval}


def swap_parts(
    new_policy: Callable[[], Policy],
    env: CuedEnv,
    recording: Recording,
    *,
    seed: int,
    after: int,
    progress: Callable[[int], None] | None = None,
) -> list[Swap]:
    """Exchange each part of the memory, and half of the slots, between episodes.

    Each part is exchanged between episodes with opposite cues, and between episodes with the same cue.

    Args:
        new_policy: returns the recorded policy as it was before its first step.
        env: the environment of the recording.
        recording: returned by `record`.
        seed: the seed of the recording.
        after: steps since the cue was last in view at which parts are exchanged, 0 or more.
        progress: called with the number of exchanges so far, two for each part.

    Raises:
        UsageError: the memory is empty, or there is no pair of episodes.
    """
    parts = parts_of(recording.memory, 2)
    if parts[WHOLE].shape[-1] == 0:
        raise UsageError("this core has no memory, so there is nothing to exchange")
    names = list(parts)
    if len(names) > 3:
        names.insert(-1, f"slots 1-{len(names) // 2}")
    moment = moments(recording, after)
    swaps = []
    for same_cue in (False, True):
        pairs = pair(recording, moment, same_cue)
        if not len(pairs.takers):
            raise UsageError(
                f"no two episodes with {'the same cue' if same_cue else 'opposite cues'} are in the same "
                f"state {after} steps after the cue left the view; record more episodes, or exchange earlier"
            )
        counts = _count(recording, moment, pairs)
        given = _given(recording.memory, moment, pairs)
        only = np.isin(np.arange(recording.episodes), pairs.takers)
        for part in names:
            edit = _edit(part, np.where(only, moment, -1), given)
            steps = len(recording.running)
            edited = record(new_policy(), env, seed=seed, steps=steps, edit=edit, only=only)
            choice = edited.choice[pairs.takers]
            flipped = (choice >= 0) & (choice != recording.choice[pairs.takers])
            swaps.append(Swap(part, same_cue, *counts, int(flipped.sum()), int((choice < 0).sum())))
            if progress is not None:
                progress(len(swaps))
    return swaps


def moments(recording: Recording, after: int) -> NDArray[np.int64]:
    """Return the step at which the memory of each episode is exchanged, [B]; -1 for never.

    It is the first step at which the cue has been out of view for `after` steps, if the episode continues
    after it and comes to a choice.
    """
    continues = np.vstack([recording.running[1:], np.zeros((1, recording.episodes), dtype=bool)])
    fits = (recording.since == after) & continues & (recording.choice >= 0)
    return np.where(fits.any(0), fits.argmax(0), -1)


def pair(recording: Recording, moment: NDArray[np.int64], same_cue: bool) -> Pairs:
    """Draw a giver for each episode: another history that is in the same state at its own moment.

    Episodes without a giver are left out.

    Args:
        recording: the episodes.
        moment: [B] returned by `moments`.
        same_cue: whether both episodes of a pair have the same cue, rather than opposite ones.
    """
    rng = np.random.default_rng(0)
    episodes = np.flatnonzero(moment >= 0)
    state_id, cue = recording.state_id[moment[episodes], episodes], recording.cue[episodes]
    history = recording.history[moment[episodes], episodes]
    givers = np.full(len(episodes), -1)
    for i in range(len(episodes)):
        fits = (state_id == state_id[i]) & ((cue == cue[i]) == same_cue) & (history != history[i])
        if fits.any():
            givers[i] = rng.choice(episodes[fits])
    return Pairs(episodes[givers >= 0], givers[givers >= 0])


def _count(recording: Recording, moment: NDArray[np.int64], pairs: Pairs) -> tuple[int, int, float]:
    """Return the number of pairs, of different pairs, and the effective number of different pairs."""
    histories = [recording.history[moment[episodes], episodes] for episodes in pairs]
    frequency = np.unique(np.stack(histories), axis=1, return_counts=True)[1].astype(np.float64)
    return len(pairs.takers), len(frequency), effective_number(frequency)


def _given(memory: State, moment: NDArray[np.int64], pairs: Pairs) -> State:
    """Return the givers' states at their moments, in the rows of their takers: [B, ...]."""
    takers, givers = (torch.as_tensor(episodes) for episodes in pairs)
    when = torch.as_tensor(moment[pairs.givers])
    return map_tree(lambda m: m[0].index_put((takers.to(m.device),), m[when, givers]), memory)


def _edit(part: str, moment: NDArray[np.int64], given: State) -> Edit:
    """Return an edit that replaces the part by the given one, in each episode at its moment."""
    when = torch.as_tensor(moment)

    def edit(t: int, state: State) -> State:
        now = (when == t).to(state[0].device)
        return reset_rows(state, with_part(state, part, given), now)

    return edit

"""Does the choice hang on what a part of the memory holds? Exchange that part between two episodes and see.

The episodes of a pair stand in the same situation, the cue equally long out of view; but their cues differ.
If the agent chooses by the part that it was given, it now makes the other choice: the choice flips. Where the
cues are the same (the control) nothing should change. All else goes on as it would have, with the same draws.

Axes: B episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rmc_agents.cores import State, reset_rows
from rmc_agents.errors import UsageError
from rmc_agents.evaluation import Policy
from rmc_agents.probe import effective_number
from rmc_agents.recording import WHOLE, CuedEnv, Edit, Recording, parts_of, record, with_part
from rmc_agents.statistics import Interval, wilson
from rmc_agents.tree import map_tree

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Episodes that are given a part of another's memory, and the episodes that it is taken from."""


@dataclass(frozen=True)
class Swap:
    """What became of the episodes that were given a part of another's memory."""

    part: str
    same_cue: bool
    """Whether the other's cue was the same: the control."""
    pairs: int
    """Episodes, each with a partner; all would have come to a choice if left alone."""
    different: int
    """How many of the pairs differ in the history of one or the other."""
    effective: float
    """How many different pairs of equal frequency tell as much: what the interval goes by."""
    flipped: int
    """How many episodes made the other choice,"""
    undecided: int
    """and how many none within the recorded steps."""

    @property
    def rate(self) -> float:
        """Share of flipped choices."""
        return self.flipped / self.pairs

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval."""
        return wilson(self.rate * self.effective, self.effective)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate, "ci95": self.interval}


def swap_parts(
    new_policy: Callable[[], Policy],
    env: CuedEnv,
    seed: int,
    recording: Recording,
    after: int,
) -> list[Swap]:
    """Exchange each part of the memory, and half of the slots, between episodes with opposite cues; and with
    the same cue.

    Args:
        new_policy: gives the policy that was recorded, as it was before the first step.
        env: that it was recorded in.
        seed: that it was recorded with.
        recording: what `record` gave.
        after: how many steps the cue has been out of view when parts are exchanged, 0 or more.

    Raises:
        UsageError: a memory that holds nothing, or no pair of episodes to exchange between.
    """
    parts = parts_of(recording.memory, 2)
    if parts[WHOLE].shape[-1] == 0:
        raise UsageError("this core has no memory, so there is nothing to exchange")
    names = list(parts)
    if len(names) > 3:
        names.insert(-1, f"slots 1-{len(names) // 2}")
    moment = moments(recording, after)
    found = []
    for same_cue in (False, True):
        takers, givers = pair(recording, moment, same_cue)
        if not len(takers):
            raise UsageError(
                f"no two episodes with {'the same cue' if same_cue else 'opposite cues'} stand in the same "
                f"situation {after} steps after the cue left the view; record more episodes, or exchange "
                "earlier"
            )
        given = _given(recording.memory, moment, (takers, givers))
        histories = recording.history[moment[takers], takers], recording.history[moment[givers], givers]
        frequency = np.unique(np.stack(histories), axis=1, return_counts=True)[1].astype(np.float64)
        only = np.isin(np.arange(recording.episodes), takers)
        for part in names:
            edit = _edit(part, np.where(only, moment, -1), given)
            now = record(new_policy(), env, seed, len(recording.running), edit, only).choice[takers]
            flipped = (now >= 0) & (now != recording.choice[takers])
            counts = len(takers), len(frequency), effective_number(frequency)
            found.append(Swap(part, same_cue, *counts, int(flipped.sum()), int((now < 0).sum())))
    return found


def moments(recording: Recording, after: int) -> NDArray[np.int64]:
    """[B] the step of each episode at which its memory is exchanged; -1: never.

    It is the first one at which the cue has been out of view for `after` steps, if the episode goes on and
    comes to a choice.
    """
    goes_on = np.vstack([recording.running[1:], np.zeros((1, recording.episodes), dtype=bool)])
    fits = (recording.since == after) & goes_on & (recording.choice >= 0)
    return np.where(fits.any(0), fits.argmax(0), -1)


def pair(recording: Recording, moment: NDArray[np.int64], same_cue: bool) -> Pairs:
    """For each episode with a moment one of another history in the same situation then, drawn at random.

    Args:
        recording: the episodes.
        moment: of `moments`.
        same_cue: whether the two have the same cue, rather than opposite ones.
    """
    rng = np.random.default_rng(0)
    episodes = np.flatnonzero(moment >= 0)
    situation, cue = recording.situation[moment[episodes], episodes], recording.cue[episodes]
    history = recording.history[moment[episodes], episodes]
    givers = np.full(len(episodes), -1)
    for i in range(len(episodes)):
        fits = (situation == situation[i]) & ((cue == cue[i]) == same_cue) & (history != history[i])
        if fits.any():
            givers[i] = rng.choice(episodes[fits])
    return episodes[givers >= 0], givers[givers >= 0]


def _given(memory: State, moment: NDArray[np.int64], pairs: Pairs) -> State:
    """The givers' memories at their moments, in the rows of those that are given them: [B, ...]."""
    takers, givers = (torch.as_tensor(episodes) for episodes in pairs)
    when = torch.as_tensor(moment[pairs[1]])
    return map_tree(lambda m: m[0].index_put((takers.to(m.device),), m[when, givers]), memory)


def _edit(part: str, moment: NDArray[np.int64], given: State) -> Edit:
    when = torch.as_tensor(moment)

    def edit(t: int, memory: State) -> State:
        now = (when == t).to(memory[0].device)
        return reset_rows(memory, with_part(memory, part, given), now)

    return edit

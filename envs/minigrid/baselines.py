"""Exact scores in the Memory mazes: of a perfect memory, and of random actions."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from .tables import MazeSpec, build_tables


def best_possible(spec: MazeSpec) -> tuple[float, float]:
    """Return the mean number of steps and the mean reward of an agent with a perfect memory.

    The mean is over all start states. From each, the agent takes the shortest path on which the cue is in
    view before the choice is made, found by dynamic programming over (state, cue seen).
    """
    tables = build_tables((spec,), 3)
    steps = np.full((len(tables.next_state), 2), np.inf)  # [N, cue seen]: steps to success
    steps[tables.first_solved :, 1] = 0.0
    ordinary = tables.next_state[: tables.first_failed]  # [n, 3]
    while True:
        # The view in an ending state comes too late for the choice, so it does not set the flag.
        ending = ordinary >= tables.first_failed
        seen_there = tables.cue_seen[ordinary] & ~ending
        unseen = np.where(seen_there, steps[ordinary, 1], steps[ordinary, 0]).min(axis=1) + 1
        better = np.stack([unseen, steps[ordinary, 1].min(axis=1) + 1], axis=1)
        if (better == steps[: tables.first_failed]).all():
            break
        steps[: tables.first_failed] = better
    lengths = []
    for first, count in tables.hallway_starts.tolist():
        starts = tables.starts[first : first + count]
        lengths.append(steps[starts, tables.cue_seen[starts].astype(int)].mean())
    mean = float(np.mean(lengths))  # hallways are equally likely, whatever their number of start states
    return mean, 1 - 0.9 * mean / spec.max_steps


@lru_cache(maxsize=64)
def random_walk(spec: MazeSpec, actions: Literal[3, 7] = 7) -> tuple[float, float, float]:
    """Return the exact success rate, mean number of steps and mean reward of uniformly random actions.

    The walk is a Markov chain on the states of the tables: p' = p P, where ending states absorb.
    """
    tables = build_tables((spec,), actions)
    p = np.zeros(len(tables.next_state))
    for first, count in tables.hallway_starts.tolist():
        p[tables.starts[first : first + count]] = 1 / (len(tables.hallway_starts) * count)
    ordinary, to = slice(0, tables.first_failed), tables.next_state[: tables.first_failed].ravel()
    steps = success = reward = 0.0
    for step in range(1, spec.max_steps + 1):
        steps += p[ordinary].sum()  # share of episodes that take this step
        p = np.bincount(to, np.repeat(p[ordinary] / actions, actions), minlength=len(p))
        solved = p[tables.first_solved :].sum()
        success += solved
        reward += solved * (1 - 0.9 * step / spec.max_steps)
    return float(success), float(steps), float(reward)

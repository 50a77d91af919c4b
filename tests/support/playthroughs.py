"""Synthetic episodes for the tests of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rmc_agents.interpret.playthrough import Cue, MemoryTrace, Moment, Playthrough

PICTURE = np.full((288, 288, 3), 100, dtype=np.uint8)


def scripted_episode(
    in_view: Sequence[bool], success: bool | None, in_time: bool = True, cue: bool = True
) -> Playthrough:
    """Return an episode without slots; the reward is 1.5 per step.

    Args:
        in_view: whether the cue is in view, at each step.
        success: the outcome.
        in_time: whether the episode ends before its time limit.
        cue: whether there is a cue at all.
    """
    moments = [
        Moment(PICTURE, step, 1.5 * step, Cue((1, 4), 9, seen) if cue else None, None)
        for step, seen in enumerate(in_view)
    ]
    return Playthrough(moments, success, in_time)


def traced_episode(
    in_view: Sequence[bool], slots: int = 4, heads: int = 2, success: bool = True, maze_size: int = 9
) -> Playthrough:
    """Return an episode with even attention and gates that rise from 0 to 1; 0 slots: without a memory."""
    moments = []
    for step, seen in enumerate(in_view):
        attention = np.full((heads, slots, slots + 1), 1 / (slots + 1), dtype=np.float32)
        gates = np.full((3, slots), step / len(in_view), dtype=np.float32)
        traced = slots > 0 and step < len(in_view) - 1
        cue = Cue((1, maze_size // 2 - 1), maze_size, seen)
        moments.append(Moment(PICTURE, step, 0.0, cue, MemoryTrace(attention, *gates) if traced else None))
    return Playthrough(moments, success, True)

"""Shortest paths of an agent that turns left, turns right or walks forward, for a batch of grids.

A row of a grid is a number whose bits are cells, so that a search moves all rows of all grids at once.

Axes: B grids, H rows of at most 62 cells.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEFT, RIGHT, FORWARD = 0, 1, 2
"""Actions."""
FAR = 2**30
"""Number of steps to a goal that cannot be reached."""
CHECKED_EVERY = 8
"""Steps of a search after which the host looks whether it has ended."""


class Way(NamedTuple):
    """The first action of a shortest path."""

    action: Tensor
    """[B] int64."""
    steps: Tensor
    """[B] int64 length of the path, at least 1; `FAR` and more if there is none."""


def to_bits(cells: Tensor) -> Tensor:
    """Return the rows of grids [..., H, W] bool as numbers, [..., H] int64."""
    return (cells * (1 << torch.arange(cells.shape[-1]))).sum(-1)


def shortest(free: Tensor, goals: Tensor, places: Tensor) -> Way:
    """Find a shortest path from each agent to a pose of its goals; turns and steps forward count alike.

    Args:
        free: [B, H] cells that can be entered, as bits.
        goals: [B, 4, H] cells to reach, by the direction that the agent has there, as bits.
        places: [B, 3] column, row and direction of each agent.
    """
    column, row, direction = places.unbind(1)
    rows = torch.arange(len(free))
    # The poses after each action. Walking into a wall is no pose of the search.
    dx, dy = torch.tensor([1, 0, -1, 0])[direction], torch.tensor([0, 1, 0, -1])[direction]
    directions = torch.stack([(direction - 1) % 4, (direction + 1) % 4, direction], dim=1)  # [B, 3]
    columns = torch.stack([column, column, column + dx], dim=1)
    lines = torch.stack([row, row, row + dy], dim=1).clamp(0, free.shape[1] - 1)
    steps = torch.full((len(free), 3), FAR)
    reached = goals & free.unsqueeze(1)
    for count in range(1, 4 * free.shape[1] ** 2):
        here = reached[rows[:, None], directions, lines] >> columns & 1
        steps = torch.where((here == 1) & (steps == FAR), count, steps)
        before = _one_step_before(reached) & free.unsqueeze(1)
        if count % CHECKED_EVERY == 0 and (bool((steps.amin(1) < FAR).all()) or before.equal(reached)):
            break
        reached = before
    # Of equally short paths, one that begins with a step forward.
    best, which = steps.flip(1).min(1)
    return Way(FORWARD - which, best)


def _one_step_before(reached: Tensor) -> Tensor:
    """Return the poses from which one action, or none, leads to these poses, [B, 4, H]."""
    right, down, left, up = reached.unbind(1)
    ahead = torch.stack([right >> 1, _shifted(down, -1), left << 1, _shifted(up, 1)], dim=1)
    return reached | reached.roll(1, 1) | reached.roll(-1, 1) | ahead


def _shifted(rows: Tensor, by: int) -> Tensor:
    """Move rows [B, H] down by 1, or up by 1 if `by` is -1."""
    shifted = torch.zeros_like(rows)
    if by > 0:
        shifted[:, 1:] = rows[:, :-1]
    else:
        shifted[:, :-1] = rows[:, 1:]
    return shifted


def poses_before(free: Tensor, cells: Tensor) -> Tensor:
    """Return the poses on free cells from which a step forward would enter one of the given cells.

    Args:
        free: [B, H] as bits.
        cells: [B, H] as bits.

    Returns:
        [B, 4, H] as bits.
    """
    ahead = torch.stack([cells >> 1, _shifted(cells, -1), cells << 1, _shifted(cells, 1)], dim=1)
    return ahead & free.unsqueeze(1)

"""Levels of BoxWorld: where the boxes stand, and which key each of them holds.

Axes: n levels, P places of a layout, S boxes of the longest solution, D branches, E boxes of a branch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE = 12
"""Cells on a side of the room, without its walls."""
NUM_COLORS = 20
MAX_PLACES = 24
"""Number of boxes that always fit; see `_lattice`."""
NUM_LAYOUTS = 4096
"""Number of layouts that are drawn once; each is used in four mirror images."""

EMPTY, WALL, GEM = 0, 1, 2
KEY, LOCK, DEAD_KEY = 2, 22, 42
"""Codes of a cell: each plus a color from 1 to 20. A dead key lies in a box of a branch that leads away
from the gem. It looks like any other key."""
NUM_CODES = DEAD_KEY + NUM_COLORS + 1


class Design(NamedTuple):
    """Numbers that the levels of a task are drawn from."""

    min_solution: int
    max_solution: int
    min_distractors: int
    max_distractors: int
    distractor_length: int

    @property
    def max_boxes(self) -> int:
        return self.max_solution + self.max_distractors * self.distractor_length


class Levels(NamedTuple):
    """The start of n episodes."""

    grid: Tensor
    """[n, W * W] uint8: the code of each cell, row by row, with `rings` rings of wall around the room."""
    position: Tensor
    """[n] int64: the agent's cell."""
    boxes: Tensor
    """[n, P] int64: the cell of the loose key, then the left cells of the boxes, those of the solution first,
    in their order; 0 for boxes that the level does not have."""


def draw_levels(
    count: int,
    design: Design,
    layouts: Tensor,
    empty_room: Tensor,
    generator: torch.Generator | None,
    device: torch.device,
) -> Levels:
    """Draw levels.

    Args:
        count: n.
        design: the ranges of their numbers, each of which is drawn uniformly.
        layouts: [N, P] the left cells of places for `design.max_boxes` boxes and the loose key.
        empty_room: [W * W] uint8, the walls.
        generator: of the random numbers.
        device: of the tensors.
    """

    def numbers(least: int, most: int) -> Tensor:
        return torch.randint(least, most + 1, (count, 1), generator=generator, device=device)

    def uniform(size: int) -> Tensor:
        return torch.rand(count, size, generator=generator, device=device)

    S, D, E = design.max_solution, design.max_distractors, design.distractor_length
    length = numbers(design.min_solution, S)
    branches = numbers(design.min_distractors, D)
    colors = uniform(NUM_COLORS).argsort(1) + 1
    path, wrong = colors[:, :S], colors[:, S : S + D * E].view(count, D, E)

    # Box i of the solution opens with color i of the path, and holds color i + 1 or the gem.
    box = torch.arange(S, device=device)
    contents = torch.where(box == length - 1, GEM, KEY + path.roll(-1, dims=1)) * (box < length)
    locks = (LOCK + path) * (box < length)
    # The first box of a branch opens with a color of the path, each later one with the key before it.
    root = path.gather(1, (uniform(D) * length).long()).unsqueeze(2)
    exists = (torch.arange(D, device=device) < branches).unsqueeze(2)
    wrong_contents = (DEAD_KEY + wrong) * exists
    wrong_locks = (LOCK + torch.cat([root, wrong[:, :, :-1]], dim=2)) * exists

    layout = torch.randint(len(layouts), (count,), generator=generator, device=device)
    places = layouts[layout].gather(1, uniform(layouts.shape[1]).argsort(1))
    left = places[:, 1:]
    loose = places[:, :1] + (uniform(1) < 0.5)
    cells = torch.cat([loose, left, left + 1], dim=1)
    codes = torch.cat(
        [KEY + path[:, :1], contents, wrong_contents.flatten(1), locks, wrong_locks.flatten(1)], dim=1
    )
    grid = empty_room.repeat(count, 1).scatter_(1, cells, codes.to(torch.uint8))
    position = torch.where(grid == EMPTY, uniform(grid.shape[1]), -1.0).argmax(1)
    boxes = cells[:, : 1 + design.max_boxes] * (codes[:, : 1 + design.max_boxes] != EMPTY)
    return Levels(grid, position, boxes)


def empty_room(rings: int) -> NDArray[np.uint8]:
    """Return the codes [W * W] of a room without boxes, with some rings of wall around it."""
    inside = np.full((SIDE, SIDE), EMPTY, np.uint8)
    return np.pad(inside, rings, constant_values=WALL).reshape(-1)


@lru_cache
def draw_layouts(num_places: int, rings: int) -> Tensor:
    """Return [N, P] left cells of places, each two cells wide, no two of which touch, not even diagonally.

    Places are drawn one after the other, uniformly among those that are left; where none is left, the whole
    layout is a part of a lattice. All boxes are then solvable in any order: what touches nothing encloses
    nothing, so that all free cells are connected, and each lock borders on a free cell.

    The layouts are always the same ones; levels differ further by what stands in which place.

    Args:
        num_places: P, at most 24.
        rings: number of rings of wall around the room.
    """
    random = np.random.default_rng(0)
    row, column = np.divmod(np.arange(SIDE * (SIDE - 1)), SIDE - 1)
    apart = (abs(row[:, None] - row) > 1) | (abs(column[:, None] - column) > 2)
    allowed = np.ones((NUM_LAYOUTS, len(row)), bool)
    fits = np.ones(NUM_LAYOUTS, bool)
    drawn = np.empty((NUM_LAYOUTS, num_places), np.int64)
    for i in range(num_places):
        drawn[:, i] = np.where(allowed, random.random(allowed.shape, np.float32), -1).argmax(1)
        fits &= allowed.any(1)
        allowed &= apart[drawn[:, i]]
    rows, columns = row[drawn], column[drawn]
    rows[~fits], columns[~fits] = _lattice(int((~fits).sum()), num_places, random)
    rows = np.concatenate([rows, SIDE - 1 - rows] * 2)
    columns = np.concatenate([columns, columns, SIDE - 2 - columns, SIDE - 2 - columns])
    return torch.from_numpy((rows + rings) * (SIDE + 2 * rings) + columns + rings)


def _lattice(
    count: int, num_places: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns [n, P] of places in every second row and every third column."""
    order = random.random((count, MAX_PLACES)).argsort(1)[:, :num_places]
    shift = random.integers(0, 2, (2, count, 1))
    return order // 4 * 2 + shift[0], order % 4 * 3 + shift[1]

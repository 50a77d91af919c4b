"""The maze of Mini PacMan, as tables that the player and the ghosts move by.

Cells are numbered from 0 to 137, row by row; `NOWHERE` stands for walls and for ghosts that were eaten.
Axes: N = 138 cells, V cells on a side of the view.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAZE = """
###################
#...#.........#...#
#.#.#.#######.#.#.#
#.................#
#.#.#.#######.#.#.#
#.#.............#.#
#.####.#####.####.#
#......#####......#
#.####.#####.####.#
#.#.............#.#
#.#.#.#######.#.#.#
#.................#
#.#.#.#######.#.#.#
#...#.........#...#
###################
"""
"""The maze of Weber et al. (2017)."""

WALLS = np.array([[char == "#" for char in line] for line in MAZE.split()])
HEIGHT, WIDTH = WALLS.shape
ROWS, COLUMNS = np.nonzero(~WALLS)
NUM_CELLS = len(ROWS)
NOWHERE = NUM_CELLS
DIRECTIONS = ((0, 1), (-1, 0), (0, -1), (1, 0))
"""Right, up, left and down, as rows and columns."""
SAFE_DISTANCE = 5
"""Ghosts begin at least so many rows or columns away from the player."""
NOTHING, IS_WALL, IS_FOOD, IS_PILL, IS_PLAYER = range(5)
"""What is in a cell, in observations and in the state."""
CHOICES = 12
"""Columns of `Tables.random_step`: a multiple of 1, 2 and 3, so that each direction has its equal share."""


PLACES = np.append(ROWS * WIDTH + COLUMNS, 0)
"""[N + 1] where each cell lies in the rows of the whole maze; `NOWHERE` lies in a corner of the wall."""


def _number_cells() -> NDArray[np.int64]:
    cell_at = np.full(WALLS.shape, NOWHERE)
    cell_at[ROWS, COLUMNS] = np.arange(NUM_CELLS)
    return cell_at


CELL_AT = _number_cells()
"""[15, 19] the cell at each place."""


class Tables(NamedTuple):
    """How everything moves. A ghost's pose is 4 * cell + direction."""

    player_step: Tensor
    """[N, 5] the cell that each action leads to."""
    greedy_step: Tensor
    """[2, 4 (N + 1), N] flat: the next pose of a ghost, for (fleeing, pose, the player's cell)."""
    random_step: Tensor
    """[4 (N + 1), CHOICES] flat: next poses of a ghost that chooses at random."""
    first_cells: Tensor
    """[N, M] cells where ghosts may begin, by the player's cell; the first `num_first_cells` of a row."""
    num_first_cells: Tensor
    """[N]."""


@lru_cache
def tables() -> Tables:
    """Return the tables of the maze, on the CPU."""
    neighbour = np.stack([CELL_AT[ROWS + dy, COLUMNS + dx] for dy, dx in DIRECTIONS], axis=1)  # [N, 4]
    here = np.arange(NUM_CELLS)[:, None]
    player_step = np.concatenate([here, np.where(neighbour == NOWHERE, here, neighbour)], axis=1)

    toward = np.stack(  # [N, 4, N]: progress of each direction towards the player
        [dy * (ROWS - ROWS[:, None]) + dx * (COLUMNS - COLUMNS[:, None]) for dy, dx in DIRECTIONS], axis=1
    )
    # A ghost that was eaten stays nowhere.
    greedy = np.full((2, NUM_CELLS + 1, 4, NUM_CELLS), 4 * NOWHERE)
    random = np.full((NUM_CELLS + 1, 4, CHOICES), 4 * NOWHERE)
    for cell in range(NUM_CELLS):
        for direction in range(4):
            options = ghost_options(neighbour[cell], direction)
            poses = 4 * neighbour[cell, options] + options
            progress = toward[cell, options]
            # argmax and argmin take the first of equals, in the order of the directions.
            greedy[0, cell, direction] = poses[progress.argmax(0)]
            greedy[1, cell, direction] = poses[progress.argmin(0)]
            random[cell, direction] = np.resize(poses, CHOICES)

    apart = np.maximum(abs(ROWS - ROWS[:, None]), abs(COLUMNS - COLUMNS[:, None])) >= SAFE_DISTANCE
    first = np.argsort(~apart, axis=1, kind="stable")[:, : apart.sum(1).max()]
    arrays = (player_step, greedy.reshape(-1), random.reshape(-1), first, apart.sum(1))
    return Tables(*(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays))


def ghost_options(neighbours: NDArray[np.int64], direction: int) -> NDArray[np.int64]:
    """Return the directions that a ghost may choose from.

    Args:
        neighbours: [4] the cell in each direction.
        direction: in which the ghost moved last.
    """
    back = (direction + 2) % 4
    free = np.flatnonzero(neighbours != NOWHERE)
    if len(free) > 2:  # a junction
        return free[free != back]
    # A corridor, or a corner: the maze has no dead ends.
    return np.array([direction]) if direction in free else free[free != back][:1]


@lru_cache
def distances() -> Tensor:
    """Return the lengths of shortest paths between all cells, [N, N] int64."""
    step = tables().player_step[:, 1:].tolist()
    result = np.empty((NUM_CELLS, NUM_CELLS), np.int64)
    for start in range(NUM_CELLS):
        found = {start: 0}
        queue = deque([start])
        while queue:
            cell = queue.popleft()
            for following in step[cell]:
                if following not in found:
                    found[following] = found[cell] + 1
                    queue.append(following)
        result[start] = [found[cell] for cell in range(NUM_CELLS)]
    return torch.from_numpy(result)


def view_places(view_size: int) -> Tensor:
    """Return the places in view from each cell, [N, V * V]; that of a wall where the maze ends."""
    radius = view_size // 2
    around = np.pad(PLACES[CELL_AT], radius)
    windows = np.lib.stride_tricks.sliding_window_view(around, (view_size, view_size))
    return torch.from_numpy(windows[ROWS, COLUMNS].reshape(NUM_CELLS, -1))

"""Tables of Mini PacMan's maze agree with the rules, written down once more in plain Python."""

import random
from collections import Counter

import numpy as np
import torch

from rmc_envs.mini_pacman.maze import (
    CELL_AT,
    CHOICES,
    COLUMNS,
    NOWHERE,
    NUM_CELLS,
    PLACES,
    ROWS,
    WALLS,
    distances,
    tables,
    view_places,
)

RIGHT, UP, LEFT, DOWN = range(4)
STEPS = {RIGHT: (0, 1), UP: (-1, 0), LEFT: (0, -1), DOWN: (1, 0)}


def free_directions(row: int, column: int) -> list[int]:
    return [way for way, (dy, dx) in STEPS.items() if not WALLS[row + dy, column + dx]]


def ghost_choices(row: int, column: int, direction: int) -> list[int]:
    """Return the directions that a ghost may take."""
    free, back = free_directions(row, column), (direction + 2) % 4
    if len(free) > 2:
        return [way for way in free if way != back]
    if direction in free:
        return [direction]
    if back == free[0]:
        return [free[1]]
    return [free[0]]


def test_maze_is_that_of_the_paper() -> None:
    assert WALLS.shape == (15, 19)
    assert NUM_CELLS == 138
    assert np.array_equal(WALLS, WALLS[::-1])
    assert np.array_equal(WALLS, WALLS[:, ::-1])
    ways = Counter(len(free_directions(row, column)) for row, column in zip(ROWS, COLUMNS, strict=True))
    assert ways == {2: 114, 3: 16, 4: 8}  # no dead ends


def test_player_moves_right_up_left_and_down_but_not_into_walls() -> None:
    step = tables().player_step
    corner = CELL_AT[1, 1]
    assert step[corner].tolist() == [corner, CELL_AT[1, 2], corner, corner, CELL_AT[2, 1]]
    crossing = CELL_AT[3, 3]
    neighbours = [(3, 3), (3, 4), (2, 3), (3, 2), (4, 3)]
    assert step[crossing].tolist() == [CELL_AT[place] for place in neighbours]


def test_ghosts_chase_and_flee_as_the_rules_say() -> None:
    greedy = tables().greedy_step.view(2, NUM_CELLS + 1, 4, NUM_CELLS)
    draw = random.Random(0)
    for _ in range(4000):
        ghost, player, direction = draw.randrange(NUM_CELLS), draw.randrange(NUM_CELLS), draw.randrange(4)
        row, column = int(ROWS[ghost]), int(COLUMNS[ghost])
        ahead = (int(ROWS[player]) - row, int(COLUMNS[player]) - column)
        choices = ghost_choices(row, column, direction)
        progress = [ahead[0] * STEPS[way][0] + ahead[1] * STEPS[way][1] for way in choices]
        for fleeing, best in enumerate((max(progress), min(progress))):
            way = choices[progress.index(best)]
            dy, dx = STEPS[way]
            assert greedy[fleeing, ghost, direction, player] == 4 * CELL_AT[row + dy, column + dx] + way


def test_random_moves_take_each_allowed_direction_equally_often() -> None:
    moves = tables().random_step.view(NUM_CELLS + 1, 4, CHOICES)
    for ghost in range(NUM_CELLS):
        for direction in range(4):
            choices = ghost_choices(int(ROWS[ghost]), int(COLUMNS[ghost]), direction)
            found = Counter((moves[ghost, direction] % 4).tolist())
            assert found == dict.fromkeys(choices, CHOICES // len(choices))


def test_eaten_ghosts_stay_nowhere() -> None:
    assert (tables().greedy_step.view(2, NUM_CELLS + 1, 4, NUM_CELLS)[:, NOWHERE] == 4 * NOWHERE).all()
    assert (tables().random_step.view(NUM_CELLS + 1, 4, CHOICES)[NOWHERE] == 4 * NOWHERE).all()


def test_ghosts_begin_at_least_five_rows_or_columns_away() -> None:
    first, count = tables().first_cells, tables().num_first_cells
    for player in range(NUM_CELLS):
        cells = first[player, : count[player]].numpy()
        apart = np.maximum(abs(ROWS[cells] - ROWS[player]), abs(COLUMNS[cells] - COLUMNS[player]))
        assert apart.min() == 5
        everywhere = np.maximum(abs(ROWS - ROWS[player]), abs(COLUMNS - COLUMNS[player]))
        assert len(set(cells)) == (everywhere >= 5).sum()


def test_distances_are_those_of_shortest_paths() -> None:
    d, step = distances(), tables().player_step
    assert torch.equal(d, d.t())
    assert d[CELL_AT[1, 1], CELL_AT[1, 3]] == 2
    assert d[CELL_AT[1, 1], CELL_AT[1, 5]] == 8  # down to row 3 and up again
    # A path's first step leads to a cell that is one step nearer.
    blocked = step[:, 1:] == torch.arange(NUM_CELLS).unsqueeze(1)
    nearest = d[step[:, 1:]].masked_fill(blocked.unsqueeze(2), 99).amin(1)
    assert torch.equal(nearest + 1, d + 2 * torch.eye(NUM_CELLS, dtype=torch.int64))


def test_views_show_the_places_around_a_cell() -> None:
    places = view_places(5)[CELL_AT[1, 1]].view(5, 5)
    assert (places[:1] == 0).all()
    assert (places[:, :1] == 0).all()
    assert places[2, 2] == PLACES[CELL_AT[1, 1]] == 19 + 1
    assert places[2, 4] == 19 + 3

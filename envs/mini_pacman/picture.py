"""Pictures of Mini PacMan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..drawing import BLUE, INK, ORANGE, PAPER, SKY, VERMILLION, YELLOW, Board
from .maze import IS_FOOD, IS_PILL, WALLS

WALL = "#5b6472"


def draw(
    items: NDArray[np.int16],
    player: tuple[int, int],
    ghosts: list[tuple[int, int]],
    view: NDArray[np.bool_],
    power: int,
    header: str,
    tile_size: int,
) -> NDArray[np.uint8]:
    """Draw a maze: ghosts are triangles, or rings with the steps that are left while they can be eaten.

    Args:
        items: [15, 19] what lies in each cell.
        player: row and column.
        ghosts: rows and columns.
        view: [15, 19] what the agent sees.
        power: steps that a pill still lasts.
        header: a line above the maze.
        tile_size: pixels per side of a cell.
    """
    board = Board(*items.shape, tile_size=tile_size, lines=None)
    for (row, column), item in np.ndenumerate(items):
        if WALLS[row, column]:
            board.fill(row, column, WALL)
        elif item == IS_FOOD:
            board.shape(row, column, "circle", BLUE, 0.4)
        elif item == IS_PILL:
            board.shape(row, column, "diamond", INK, 0.16)
            board.shape(row, column, "diamond", ORANGE, 0.24)
    board.shape(*player, "circle", INK, 0.06)
    board.shape(*player, "circle", YELLOW, 0.12)
    for place in ghosts:
        if power:
            board.shape(*place, "circle", PAPER, 0.06)
            board.shape(*place, "ring", SKY, 0.06)
            board.text(*place, str(power))
        else:
            board.shape(*place, "triangle", VERMILLION, 0.08)
    board.dim(~view)
    if not view.all():
        rows, columns = np.nonzero(view)
        top, left = int(rows.min()), int(columns.min())
        board.outline(top, left, BLUE, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
    return board.image(header, SKY if power else "#e6e6e6")

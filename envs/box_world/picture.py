"""Pictures of BoxWorld: keys are discs, locks are squares, and a letter stands for each color."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from ..drawing import BLUE, GREY, INK, PAPER, VERMILLION, YELLOW, Board
from .levels import DEAD_KEY, EMPTY, GEM, KEY, LOCK, NUM_COLORS, WALL

LETTERS = "ABCDEFGHIJKLMNOPQRST"


def _color(number: int) -> str:
    """Return a light color for a number from 0 to 19."""
    hue, dark = number // 2 / (NUM_COLORS / 2), number % 2
    red, green, blue = colorsys.hls_to_rgb(hue, 0.62 if dark else 0.82, 0.75)
    return "#" + "".join(f"{round(255 * x):02x}" for x in (red, green, blue))


COLORS = tuple(map(_color, range(NUM_COLORS)))


def draw(
    grid: NDArray[np.uint8],
    agent: tuple[int, int],
    view: NDArray[np.bool_],
    key: int,
    score: int,
    steps: str,
    tile_size: int,
) -> NDArray[np.uint8]:
    """Draw a room.

    Args:
        grid: [14, 14] codes.
        agent: row and column.
        view: [14, 14] what the agent sees.
        key: color of the key held, from 1; 0 for none.
        score: sum of the rewards.
        steps: such as "12 of 120".
        tile_size: pixels per side of a cell.
    """
    board = Board(*grid.shape, tile_size=tile_size)
    for (row, column), code in np.ndenumerate(grid):
        _draw_cell(board, row, column, int(code))
    for row, column in zip(*np.nonzero((grid > LOCK) & (grid <= DEAD_KEY)), strict=True):
        board.outline(int(row), int(column) - 1, INK, width=2, thickness=max(tile_size // 12, 1))
    board.shape(*agent, "circle", VERMILLION, 0.08)
    board.shape(*agent, "circle", PAPER, 0.32)
    board.dim(~view)
    if not view.all():
        rows, columns = np.nonzero(view)
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
        board.outline(top, left, BLUE, height, width)
    held = f"key {LETTERS[key - 1]}" if key else "no key"
    return board.image(f"{held}     score {score}     step {steps}", COLORS[key - 1] if key else "#e6e6e6")


def _draw_cell(board: Board, row: int, column: int, code: int) -> None:
    if code == EMPTY:
        return
    if code == WALL:
        board.fill(row, column, GREY)
    elif code == GEM:
        board.shape(row, column, "diamond", INK, 0.08)
        board.shape(row, column, "diamond", YELLOW, 0.18)
    elif LOCK < code <= DEAD_KEY:
        board.fill(row, column, COLORS[code - LOCK - 1])
        board.text(row, column, LETTERS[code - LOCK - 1])
    else:
        color = code - (KEY if code <= LOCK else DEAD_KEY) - 1
        board.shape(row, column, "circle", INK, 0.06)
        board.shape(row, column, "circle", COLORS[color], 0.12)
        board.text(row, column, LETTERS[color])

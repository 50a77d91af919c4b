"""Pictures of Color-Cubes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..drawing import INK, PALETTE, PAPER, Board

COLORS = PALETTE[:-1]


def draw(
    size: int,
    cubes: list[int],
    at: int,
    target: int,
    seen: Literal["colors", "places"] | None,
    header: str,
    tile_size: int,
) -> NDArray[np.uint8]:
    """Return a picture [height, width, 3].

    Args:
        size: cells per side.
        cubes: cell of each cube.
        at: the agent's cell.
        target: the cube to find.
        seen: what the agent sees of the cubes now; None if nothing but its own cell.
        header: written above, after the target.
        tile_size: pixels per side of a cell.
    """
    board = Board(size, size, tile_size)
    for number, cell in enumerate(cubes):
        board.fill(*divmod(cell, size), COLORS[number % len(COLORS)], inset=0.1)
        board.text(*divmod(cell, size), str(number + 1), INK)
    dimmed = np.full((size, size), seen != "colors")
    dimmed[divmod(at, size)] = False
    board.dim(dimmed)
    if seen == "places":
        for cell in cubes:
            board.outline(*divmod(cell, size), INK, thickness=1)
    board.shape(*divmod(at, size), "ring", INK, inset=0.06)
    board.fill(*divmod(at, size), PAPER, inset=0.42)
    return board.image(f"find {target + 1} · {header}", COLORS[target % len(COLORS)])

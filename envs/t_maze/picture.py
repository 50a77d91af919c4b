"""Pictures of a corridor with a cue and a junction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..drawing import BLUE, GREEN, GREY, ORANGE, PAPER, Board

MAX_COLUMNS = 15
"""Number of columns that are drawn of a longer corridor."""


@dataclass(frozen=True)
class Corridor:
    """What a picture shows. Sides are -1 up, 1 down and 0 none."""

    junction: int
    """Column of the junction."""
    x: int
    """The agent's column."""
    y: int
    """The agent's arm."""
    goal: int
    """The arm that is right."""
    cue: int
    """The cue that is shown now."""
    columns: int = 0
    """Columns of the picture at least, so that pictures of shorter corridors have the same size."""
    sides: tuple[str, str] = ("up", "down")
    """What the cue calls the upper and the lower arm."""


def draw(scene: Corridor, header: str, tile_size: int) -> NDArray[np.uint8]:
    """Return a picture [height, width, 3]: what the agent does not see is dimmed."""
    total = max(scene.junction + 1, scene.columns)
    columns = min(total, MAX_COLUMNS)
    first = min(max(scene.x - columns // 2, 0), total - columns)
    board = Board(5, columns + 2, tile_size, background=GREY, lines=None)

    def column(x: int) -> int:
        return x - first + 1

    for x in range(max(first, 0), min(first + columns, scene.junction + 1)):
        board.fill(2, column(x), PAPER, inset=0.02)
    if first <= scene.junction < first + columns:
        for y in (-1, 1):
            board.fill(2 + y, column(scene.junction), PAPER, inset=0.02)
        board.shape(2 + scene.goal, column(scene.junction), "ring", GREEN)
        board.shape(2 - scene.goal, column(scene.junction), "cross", ORANGE)
    unseen = np.ones((5, columns + 2), bool)
    unseen[2 + scene.y, column(scene.x)] = False
    if scene.x == scene.junction:
        unseen[1:4, column(scene.x)] = False
    board.dim(unseen)
    board.arrow(2 + scene.y, column(scene.x), 0 if scene.y == 0 else 2 - scene.y, BLUE)
    upper, lower = scene.sides
    sight = {-1: f"the cue says {upper}", 0: "no cue in view", 1: f"the cue says {lower}"}[scene.cue]
    return board.image(f"{sight} · {header}")

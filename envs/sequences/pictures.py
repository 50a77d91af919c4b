"""Pictures of the tasks that show a sequence. Import it only to draw: it imports Pillow and Matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..drawing import BLUE, GREEN, INK, ORANGE, PALETTE, SKY, Board

SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter(number: int) -> str:
    """Return a letter for a number, or the number where letters are used up."""
    return SYMBOLS[number] if number < len(SYMBOLS) else str(number)


def draw_recall(symbol: int, time: int, delay: int, tile_size: int) -> NDArray[np.uint8]:
    """Return a picture of Recall: one cell for each step, of which the agent has seen the first ones."""
    columns = min(delay + 2, 26)
    board = Board(1, columns, tile_size)
    last = delay + 1
    here = min(round(min(time, last) * (columns - 1) / last), columns - 1)
    board.fill(0, 0, PALETTE[symbol % 7], inset=0.06)
    board.text(0, 0, letter(symbol))
    board.text(0, columns - 1, "?")
    board.dim(np.arange(columns)[None] != here)
    board.outline(0, here, BLUE)
    header = (
        "remember" if time == 0 else "name the symbol" if time == last else "wait" if time < last else "end"
    )
    return board.image(header if columns > 5 else "")


def draw_pairs(
    pairs: Sequence[tuple[int, int, bool]], queries: Sequence[tuple[int, int]], time: int, tile_size: int
) -> NDArray[np.uint8]:
    """Return a picture of key-value recall: the pairs above, the queries with their answers below.

    Args:
        pairs: key, value and whether the pair means nothing, in the order in which they are shown.
        queries: key and right value.
        time: index of what the agent sees.
        tile_size: pixels per side of a cell.
    """
    columns = max(len(pairs), len(queries), 6)
    board = Board(4, columns, tile_size)
    fade = np.ones((4, columns), bool)
    for place, (key, value, ignored) in enumerate(pairs):
        board.text(0, place, letter(key))
        board.text(1, place, str(value), ORANGE if not ignored else INK)
        if ignored:
            board.shape(1, place, "cross", INK)
    for place, (key, value) in enumerate(queries):
        board.text(2, place, letter(key))
        board.text(3, place, str(value), GREEN)
    asking = time >= len(pairs)
    here = min(time - len(pairs), len(queries) - 1) if asking else time
    top = 2 if asking else 0
    fade[top : top + 1 if asking else top + 2, here] = False
    board.dim(fade)
    board.outline(top, here, BLUE, height=1 if asking else 2)
    return board.image("name the value of each key" if asking else "remember the pairs")


def draw_distances(
    labels: Sequence[int], distances: Sequence[float], time: int, rank: int, reference: int, tile_size: int
) -> NDArray[np.uint8]:
    """Return a picture of Nth Farthest: the objects, and bars for how far each is from the reference.

    Args:
        labels: of the objects in the order in which they are shown.
        distances: of the objects from the reference.
        time: index of the object that the agent sees.
        rank: n, counted from 0.
        reference: label of the reference, m.
        tile_size: pixels per side of a cell.
    """
    height, columns = 8, len(labels)
    board = Board(height + 1, columns, tile_size, lines=None)
    fade = np.ones((height + 1, columns), bool)
    farthest_first = sorted(range(columns), key=lambda i: -distances[i])
    answer, scale = farthest_first[rank], max(distances) or 1.0
    for place, (label, distance) in enumerate(zip(labels, distances, strict=True)):
        for level in range(round(distance / scale * height)):
            board.fill(height - 1 - level, place, GREEN if place == answer else SKY, inset=0.08)
        board.text(height, place, str(label), ORANGE if label == reference else INK)
    here = min(time, columns - 1)
    fade[:, here] = False
    board.dim(fade)
    board.outline(height, here, BLUE)
    which = "farthest" if rank == 0 else f"{ordinal(rank + 1)} farthest"
    return board.image(f"the {which} from {reference}")


def ordinal(number: int) -> str:
    """Return a number as 1st, 2nd, 3rd, 4th and so on."""
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number // 10 % 10 == 1 else endings.get(number % 10, 'th')}"

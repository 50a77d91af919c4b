"""Pictures of cards, carts and pendulums. Import it only to draw: it imports Pillow and Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..drawing import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PAPER, SKY, VERMILLION, Board, font
from .kinds import Kind, symbol

PER_ROW = 13
"""Cards in a row."""
MAX_CARDS = 4 * PER_ROW
"""Cards of a picture; of more, it shows the group that holds the card in view."""
SUPERSAMPLING = 3


def draw_card(board: Board, place: int, kind: Kind, card: int | None) -> None:
    """Draw a card at a place, counted row by row; None is a card that lies face down."""
    row, column = divmod(place, PER_ROW)
    if card is None:
        board.fill(row, column, GREY, inset=0.06)
        return
    red = (kind == "suits" and card % 2 == 1) or (kind == "colors" and card == 1)
    board.text(row, column, symbol(kind, card), VERMILLION if red else INK)


def draw_hand(
    cards: Sequence[int],
    time: int,
    kind: Kind,
    header: str,
    asked: int | None,
    tile_size: int,
    shown: bool = True,
) -> NDArray[np.uint8]:
    """Return a picture of the cards that have been dealt; past ones are faded.

    Args:
        cards: kinds of all cards in the order in which they are dealt.
        time: index of the card that was dealt last.
        kind: the property that counts.
        header: printed above the cards.
        asked: index of the card that the right answer names; it is framed. None for no card.
        tile_size: pixels per side of a cell.
        shown: whether the agent sees the card that was dealt last.
    """
    time = min(time, len(cards) - 1)
    focus = time if shown or asked is None else asked
    begin = focus // MAX_CARDS * MAX_CARDS
    group = cards[begin : begin + MAX_CARDS]
    board = Board(math.ceil(len(group) / PER_ROW), PER_ROW, tile_size)
    fade = np.zeros((board.rows, board.columns), bool)
    for place, card in enumerate(group):
        draw_card(board, place, kind, card if begin + place <= time else None)
        fade[divmod(place, PER_ROW)] = begin + place != time or not shown
    board.dim(fade)
    if shown:
        board.outline(*divmod(time - begin, PER_ROW), BLUE)
    if asked is not None and begin <= asked < begin + MAX_CARDS:
        board.outline(*divmod(asked - begin, PER_ROW), GREEN)
    return board.image(header)


def draw_cart(x: float, angle: float, max_x: float, header: str, tile_size: int) -> NDArray[np.uint8]:
    """Return a picture of a cart with a pole.

    Args:
        x: position of the cart.
        angle: of the pole, in radians, clockwise from upright.
        max_x: largest distance from the centre.
        header: printed above the picture.
        tile_size: the picture is 13 tiles wide.
    """
    image, paint, unit = _canvas(13, 7, tile_size)
    ground, middle = 5.6 * unit, 6.5 * unit
    scale = 5.5 * unit / max_x
    paint.line((0, ground, image.width, ground), GREY, unit // 16)
    for side in (-1, 1):
        end = middle + side * 5.5 * unit
        paint.line((end, ground - unit / 4, end, ground), VERMILLION, unit // 8)
    left = middle + x * scale
    paint.rectangle((left - 0.9 * unit, ground - 0.8 * unit, left + 0.9 * unit, ground - 0.1 * unit), INK)
    pivot = (left, ground - 0.8 * unit)
    tip = (pivot[0] + 4 * unit * math.sin(angle), pivot[1] - 4 * unit * math.cos(angle))
    paint.line((*pivot, *tip), ORANGE, unit // 3)
    paint.ellipse(_circle(*pivot, unit / 5), BLUE)
    return _finish(image, header, tile_size)


def draw_pendulum(angle: float, torque: float, header: str, tile_size: int) -> NDArray[np.uint8]:
    """Return a picture of a pendulum.

    Args:
        angle: in radians, counter-clockwise from upright.
        torque: the last one, from -1 to 1 of the largest; drawn as an arc.
        header: printed above the picture.
        tile_size: the picture is 9 tiles wide.
    """
    image, paint, unit = _canvas(9, 9, tile_size)
    x = y = 4.5 * unit
    tip = (x - 3.6 * unit * math.sin(angle), y - 3.6 * unit * math.cos(angle))
    paint.ellipse(_circle(x, y, 3.6 * unit), outline=FAINT, width=unit // 10)
    paint.line((x, y, *tip), ORANGE, unit // 2)
    paint.ellipse(_circle(*tip, unit / 2), ORANGE)
    if torque:
        turn = 150 * torque
        paint.arc(
            _circle(x, y, 1.2 * unit),
            -90 - max(turn, 0),
            -90 - min(turn, 0),
            SKY if torque > 0 else VERMILLION,
            unit // 4,
        )
    paint.ellipse(_circle(x, y, unit / 4), INK)
    return _finish(image, header, tile_size)


def _circle(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    """Return the box of a circle."""
    return x - radius, y - radius, x + radius, y + radius


def _canvas(columns: int, rows: int, tile_size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """Return an image, its brush, and the pixels of a tile in it; it is reduced later for smooth lines."""
    unit = max(tile_size, 8) * SUPERSAMPLING
    image = Image.new("RGB", (columns * unit, rows * unit), PAPER)
    return image, ImageDraw.Draw(image), unit


def _finish(image: Image.Image, header: str, tile_size: int) -> NDArray[np.uint8]:
    image = image.reduce(SUPERSAMPLING)
    ImageDraw.Draw(image).text((6, 4), header, INK, font(max(tile_size // 2, 8), True))
    return np.array(image)

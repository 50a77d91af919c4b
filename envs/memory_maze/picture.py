"""Pictures of a maze, drawn with MiniGrid's tiles. Import it only to draw: it imports minigrid and Pillow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from minigrid.core.constants import COLORS
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Wall
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..drawing import FAINT, GREY, INK, PAPER, Board, font
from .view import BALL, OBJECT_COLORS

DARK = "#202020"
OUTSIDE_THE_VIEW = 0.55
"""Brightness of cells that the agent does not see, except those with a ball."""


class Picture(NamedTuple):
    """What a picture shows."""

    walls: NDArray[np.bool_]
    """[n, n] by row and column."""
    objects: list[list[int]]
    """[K, 2] column and row of each object."""
    agent: list[int]
    """Column, row and direction."""
    seen: NDArray[np.bool_]
    """[n, n] cells in view."""


class Banner(NamedTuple):
    """What the line above a picture says."""

    prompt: int
    score: int
    step: int


def draw(picture: Picture, banner: Banner, tile_size: int) -> NDArray[np.uint8]:
    """Draw the whole maze in a frame of the prompt's color, below a line with the prompt and the score.

    Each ball has a number, so that they can be told apart without seeing colors. Cells outside the agent's
    view are darker.

    Returns:
        [height, width, 3].
    """
    maze = Image.fromarray(_tiles(picture, tile_size))
    paint = ImageDraw.Draw(maze)
    column, row = picture.objects[banner.prompt]
    corners = (column * tile_size, row * tile_size, (column + 1) * tile_size, (row + 1) * tile_size)
    paint.rectangle(corners, outline=PAPER, width=max(tile_size // 12, 1))
    for k, (column, row) in enumerate(picture.objects):
        if [column, row] != picture.agent[:2]:
            _number(paint, (column + 0.5) * tile_size, (row + 0.5) * tile_size, k, tile_size)
    return _framed(maze, banner, tile_size)


def draw_view(image: NDArray[np.uint8], banner: Banner, tile_size: int) -> NDArray[np.uint8]:
    """Draw what the agent sees, looking up, from MiniGrid's symbolic image [V, V, 3].

    Returns:
        [height, width, 3].
    """
    V = len(image)
    grid, seen = Grid.decode(image)
    view = Image.fromarray(grid.render(tile_size, (V // 2, V - 1), 3, highlight_mask=seen))
    paint = ImageDraw.Draw(view)
    for column, row in np.argwhere(image[..., 0] == BALL).tolist():
        color = int(image[column, row, 1])
        _number(paint, (column + 0.5) * tile_size, (row + 0.5) * tile_size, color, tile_size)
    return _framed(view, banner, tile_size)


def draw_decoded(
    picture: Picture, banner: Banner, decoded: NDArray[np.float64], tile_size: int
) -> NDArray[np.uint8]:
    """Draw the maze, and beside it the maze as a map with the places at which a probe finds the objects.

    On the map, small squares mark the true places.

    Args:
        picture: the maze.
        banner: what the line above it says.
        decoded: [K, 2] column and row, of any size; NaN for none.
        tile_size: pixels per side of a cell.

    Returns:
        [height, width, 3].
    """
    left = draw(picture, banner, tile_size)
    n, frame, bar = len(picture.walls), max(tile_size // 4, 2), max(tile_size, 20)
    whole = Image.new("RGB", (left.shape[1] + n * tile_size + 2 * frame, left.shape[0]), PAPER)
    whole.paste(Image.fromarray(left), (0, 0))
    sheet = Board(n, n, tile_size, lines=None)
    for row, column in np.argwhere(picture.walls).tolist():
        sheet.fill(row, column, FAINT)
    column, row, direction = picture.agent
    sheet.arrow(row, column, direction, GREY)
    map_ = Image.fromarray(sheet.image())
    paint = ImageDraw.Draw(map_)
    for k, (true, found) in enumerate(zip(picture.objects, decoded.tolist(), strict=True)):
        x, y = ((value + 0.5) * tile_size for value in true)
        half = tile_size / 8
        paint.rectangle((x - half, y - half, x + half, y + half), fill=_color(k), outline=INK)
        if not np.isnan(found).any():
            x, y = ((min(max(value, 0), n - 1) + 0.5) * tile_size for value in found)
            half = 0.36 * tile_size
            paint.ellipse((x - half, y - half, x + half, y + half), fill=_color(k), outline=INK, width=2)
            _number(paint, x, y, k, tile_size)
    whole.paste(map_, (left.shape[1] + frame, bar + frame))
    paint = ImageDraw.Draw(whole)
    place, text = (left.shape[1] + frame, bar / 2), font(int(bar * 0.4), bold=True)
    paint.text(place, "decoded from the memory (squares: true places)", INK, text, anchor="lm")
    return np.array(whole)


def _framed(inside: Image.Image, banner: Banner, tile_size: int) -> NDArray[np.uint8]:
    """Put a frame of the prompt's color around a picture, and the banner above it."""
    frame, bar = max(tile_size // 4, 2), max(tile_size, 20)
    color = _color(banner.prompt)
    whole = Image.new("RGB", (inside.width + 2 * frame, inside.height + 2 * frame + bar), color)
    whole.paste(inside, (frame, bar + frame))
    paint = ImageDraw.Draw(whole)
    paint.rectangle((0, 0, whole.width, bar - 1), fill=DARK)
    middle, radius = bar / 2, 0.36 * bar
    left = frame + middle
    paint.ellipse((left - radius, middle - radius, left + radius, middle + radius), fill=color)
    _number(paint, left, middle, banner.prompt, bar)
    numbers = f"reached {banner.score}  ·  step {banner.step}"
    text = font(int(bar * 0.5), bold=True)
    if left + bar + text.getlength(numbers) <= whole.width - frame:
        paint.text((whole.width - frame - 4, middle), numbers, PAPER, text, anchor="rm")
    request = f"go to {OBJECT_COLORS[banner.prompt]}"
    room = whole.width - frame - 4 - text.getlength(numbers) - (left + 0.6 * bar)
    if text.getlength(request) + bar / 2 <= room:
        paint.text((left + 0.6 * bar, middle), request, PAPER, text, anchor="lm")
    return np.array(whole)


def _tiles(picture: Picture, tile_size: int) -> NDArray[np.uint8]:
    """Draw MiniGrid's tiles, [height, width, 3]."""
    n = len(picture.walls)
    grid = Grid(n, n)
    for row, column in np.argwhere(picture.walls).tolist():
        grid.set(column, row, Wall())
    for k, (column, row) in enumerate(picture.objects):
        grid.set(column, row, Ball(OBJECT_COLORS[k]))
    column, row, direction = picture.agent
    # MiniGrid's masks are by column and row.
    image = grid.render(tile_size, (column, row), direction, highlight_mask=picture.seen.T)
    bright = np.where(picture.seen, 1.0, OUTSIDE_THE_VIEW)
    for column, row in picture.objects:
        bright[row, column] = 1.0
    return (image * np.kron(bright, np.ones((tile_size, tile_size)))[..., None]).astype(np.uint8)


def _number(paint: ImageDraw.ImageDraw, x: float, y: float, k: int, size: int) -> None:
    """Write the number of an object."""
    ink = INK if OBJECT_COLORS[k] in ("yellow", "green", "grey") else PAPER
    paint.text((x, y), str(k + 1), ink, font(max(int(size * 0.42), 6), bold=True), anchor="mm")


def _color(k: int) -> tuple[int, int, int]:
    red, green, blue = COLORS[OBJECT_COLORS[k]].tolist()
    return red, green, blue

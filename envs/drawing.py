"""Pictures of boards: colored cells, shapes and short texts, for the `render` of a task.

Import it only to draw: it imports Pillow and Matplotlib.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, GREY, FAINT = "#1a1a1a", "#ffffff", "#8c8c8c", "#e6e6e6"
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, INK)
"""Okabe and Ito's colors, which can be told apart without full color vision."""

Shape = Literal["circle", "square", "diamond", "triangle", "cross", "ring"]
DIMMED = 0.62
"""Share of paper in a cell that is dimmed."""


class Board:
    """A board of square cells. Cells are given by row and column, counted from the upper left corner.

    Args:
        rows: number of rows.
        columns: number of columns.
        tile_size: pixels per side of a cell.
        background: color of empty cells.
        lines: color of the lines between cells; None for no lines.
    """

    def __init__(
        self, rows: int, columns: int, tile_size: int = 32, background: str = PAPER, lines: str | None = FAINT
    ) -> None:
        self.rows, self.columns, self.tile_size = rows, columns, tile_size
        self._image = Image.new("RGB", (columns * tile_size, rows * tile_size), background)
        self._paint = ImageDraw.Draw(self._image)
        if lines is not None:
            for row in range(rows):
                for column in range(columns):
                    self._paint.rectangle(self._corners(row, column), outline=lines)

    def fill(self, row: int, column: int, color: str, inset: float = 0.0) -> None:
        """Fill a cell, but for a margin of `inset` of its side."""
        self._paint.rectangle(self._corners(row, column, inset), color)

    def shape(self, row: int, column: int, shape: Shape, color: str, inset: float = 0.18) -> None:
        """Draw a shape in a cell, inside a margin of `inset` of its side."""
        left, top, right, bottom = self._corners(row, column, inset)
        x, y = (left + right) / 2, (top + bottom) / 2
        thick = max(self.tile_size // 8, 1)
        if shape == "circle":
            self._paint.ellipse((left, top, right, bottom), color)
        elif shape == "ring":
            self._paint.ellipse((left, top, right, bottom), outline=color, width=thick)
        elif shape == "square":
            self._paint.rectangle((left, top, right, bottom), color)
        elif shape == "diamond":
            self._paint.polygon([(x, top), (right, y), (x, bottom), (left, y)], color)
        elif shape == "triangle":
            self._paint.polygon([(x, top), (right, bottom), (left, bottom)], color)
        else:
            self._paint.line((left, top, right, bottom), color, thick)
            self._paint.line((left, bottom, right, top), color, thick)

    def arrow(self, row: int, column: int, direction: int, color: str = VERMILLION) -> None:
        """Draw an agent as a triangle that points right, down, left or up (0 to 3)."""
        left, top, right, bottom = self._corners(row, column, 0.15)
        corners = [(left, top), (right, (top + bottom) / 2), (left, bottom)]
        x, y = (left + right) / 2, (top + bottom) / 2
        for _ in range(direction):  # a quarter turn clockwise
            corners = [(x - (b - y), y + (a - x)) for a, b in corners]
        self._paint.polygon(corners, color)

    def text(self, row: int, column: int, text: str, color: str = INK, bold: bool = True) -> None:
        """Write a short text in the middle of a cell, as large as fits."""
        left, top, right, bottom = self._corners(row, column)
        size = next(
            (
                s
                for s in range(int(self.tile_size * 0.7), 5, -1)
                if font(s, bold).getlength(text) <= right - left
            ),
            5,
        )
        self._paint.text(((left + right) / 2, (top + bottom) / 2), text, color, font(size, bold), anchor="mm")

    def outline(
        self,
        row: int,
        column: int,
        color: str,
        height: int = 1,
        width: int = 1,
        thickness: int | None = None,
    ) -> None:
        """Draw the outline of a rectangle of cells, given by its upper left cell."""
        left, top, _, _ = self._corners(row, column)
        right, bottom = left + width * self.tile_size - 1, top + height * self.tile_size - 1
        thickness = max(self.tile_size // 10, 2) if thickness is None else thickness
        self._paint.rectangle((left, top, right, bottom), outline=color, width=thickness)

    def dim(self, cells: NDArray[np.bool_]) -> None:
        """Fade cells, such as those that the agent does not see, towards the paper.

        Args:
            cells: [rows, columns] bool.
        """
        mask = np.kron(np.asarray(cells, bool), np.ones((self.tile_size, self.tile_size), bool))
        faded = Image.blend(self._image, Image.new("RGB", self._image.size, PAPER), DIMMED)
        self._image.paste(faded, mask=Image.fromarray(mask))

    def image(self, header: str = "", color: str = FAINT) -> NDArray[np.uint8]:
        """Return the picture [height, width, 3].

        Args:
            header: a line above the board, such as what is asked for or held; none if empty.
            color: behind the header.
        """
        if not header:
            return np.array(self._image)
        bar = max(self.tile_size, 20)
        whole = Image.new("RGB", (self._image.width, self._image.height + bar), color)
        whole.paste(self._image, (0, bar))
        room = whole.width - 12
        size = next((s for s in range(int(bar * 0.6), 6, -1) if font(s, True).getlength(header) <= room), 6)
        ink = INK if _is_light(color) else PAPER
        ImageDraw.Draw(whole).text((6, bar / 2), header, ink, font(size, True), anchor="lm")
        return np.array(whole)

    def _corners(self, row: int, column: int, inset: float = 0.0) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of a cell, in pixels."""
        side, margin = self.tile_size, inset * self.tile_size
        left, top = column * side, row * side
        return left + margin, top + margin, left + side - 1 - margin, top + side - 1 - margin


def _is_light(color: str) -> bool:
    """Return whether dark text can be read on a color."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which Matplotlib bundles: the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)

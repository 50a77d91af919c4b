"""Boards: cells, shapes, texts, dimmed cells and headers are where they were drawn."""

from __future__ import annotations

import numpy as np
import pytest

from rmc_envs.drawing import BLUE, FAINT, GREEN, PALETTE, PAPER, Board, Shape


def rgb(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def test_filled_cell_has_its_color_and_no_other_cell_changes() -> None:
    board = Board(3, 4, tile_size=10, lines=None)
    board.fill(1, 2, BLUE)
    picture = board.image()
    assert picture.shape == (30, 40, 3)
    assert (picture[10:20, 20:30] == rgb(BLUE)).all()
    picture[10:20, 20:30] = rgb(PAPER)
    assert (picture == rgb(PAPER)).all()


@pytest.mark.parametrize("shape", ["circle", "square", "diamond", "triangle", "cross", "ring"])
def test_shape_stays_in_its_cell(shape: Shape) -> None:
    board = Board(3, 3, tile_size=20, lines=None)
    board.shape(1, 1, shape, BLUE)
    drawn = (board.image() != rgb(PAPER)).any(2)
    assert 30 < drawn.sum() == drawn[20:40, 20:40].sum() < 400


def test_arrows_are_quarter_turns_of_each_other() -> None:
    pictures = []
    for direction in range(4):
        board = Board(1, 1, tile_size=41, lines=None)
        board.arrow(0, 0, direction)
        pictures.append((board.image() != rgb(PAPER)).any(2))
    columns = np.arange(41)
    centres = [(picture.sum(0) * columns).sum() / picture.sum() - 20 for picture in pictures]
    rows = [(picture.sum(1) * columns).sum() / picture.sum() - 20 for picture in pictures]
    # The centre of mass lies towards the base of the triangle, away from where the agent looks.
    assert centres[0] < -2 < 2 < centres[2]
    assert rows[1] < -2 < 2 < rows[3]


def test_long_text_is_as_small_as_its_cell_needs() -> None:
    board = Board(1, 3, tile_size=30, lines=None)
    board.text(0, 1, "1234")
    drawn = (board.image() != rgb(PAPER)).any(2)
    assert drawn.any()
    assert not drawn[:, :30].any()
    assert not drawn[:, 60:].any()


def test_dimmed_cells_fade_and_others_stay() -> None:
    board = Board(1, 2, tile_size=8, lines=None)
    for column in range(2):
        board.fill(0, column, PALETTE[7])
    board.dim(np.array([[True, False]]))
    picture = board.image().astype(int)
    assert (picture[:, :8] > 130).all()
    assert (picture[:, 8:] == rgb(PALETTE[7])).all()


def test_header_is_above_the_board() -> None:
    board = Board(2, 6, tile_size=20, lines=None)
    board.outline(0, 0, GREEN, height=2, width=6)
    plain, headed = board.image(), board.image("key: 3", color=FAINT)
    assert headed.shape == (60, 120, 3)
    assert (headed[20:] == plain).all()
    assert (headed[:20] == rgb(FAINT)).all(2).any()
    assert (headed[:20] != rgb(FAINT)).any()

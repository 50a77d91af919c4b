"""Mazes are connected and have the rooms that they should have; objects and agents start in rooms."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from rmc_envs.memory_maze.mazes import TRIES, Mazes, draw_mazes, most_rooms, plan
from rmc_envs.memory_maze.worlds import draw_objects, draw_starts

SIZES = [(7, 2), (9, 3), (9, 4), (11, 4), (13, 5), (15, 6), (21, 6)]
COUNT = 400


@cache
def drawn(size: int, rooms: int, count: int = COUNT) -> Mazes:
    return draw_mazes(count, plan(size, rooms), torch.Generator().manual_seed(size), torch.device("cpu"))


def flooded(free: Tensor, start: Tensor) -> Tensor:
    """Return the cells [B, n, n] that can be reached from a start."""
    reached = start & free
    while True:
        wider = reached.clone()
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider[:, :, 1:] |= reached[:, :, :-1]
        wider[:, :, :-1] |= reached[:, :, 1:]
        wider &= free
        if wider.equal(reached):
            return reached
        reached = wider


def room_cells(mazes: Mazes) -> Tensor:
    """Return the cells of each room, [B, R, n, n]."""
    n = mazes.walls.shape[1]
    row, column = torch.arange(n)[:, None], torch.arange(n)
    top, left, height, width = (x[..., None, None] for x in mazes.rooms.unbind(2))
    inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    return inside & mazes.is_room[..., None, None]


@pytest.mark.parametrize(("size", "rooms"), SIZES)
def test_every_free_cell_can_be_reached_and_the_border_is_closed(size: int, rooms: int) -> None:
    free = ~drawn(size, rooms).walls
    assert free.shape == (COUNT, size + 2, size + 2)
    first = torch.zeros_like(free).flatten(1)
    first[torch.arange(COUNT), free.flatten(1).byte().argmax(1)] = True
    assert flooded(free, first.view_as(free)).equal(free)
    inside = torch.zeros(size + 2, size + 2, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    assert not free[:, ~inside].any()


@pytest.mark.parametrize(("size", "rooms"), SIZES)
def test_rooms_are_free_apart_and_numerous_enough(size: int, rooms: int) -> None:
    mazes = drawn(size, rooms)
    cells = room_cells(mazes)
    counts = mazes.is_room.sum(1)
    assert counts.min() >= rooms
    assert counts.max() <= max(rooms, 9 if size >= 15 else 6)
    assert not (cells.any(1) & mazes.walls).any()
    assert cells.sum(1).max() == 1
    sides = mazes.rooms[mazes.is_room][:, 2:].sort(1).values
    shapes = {tuple(shape) for shape in sides.unique(dim=0).tolist()}
    assert shapes == ({(3, 3)} if size >= 15 else {(3, 3), (3, 5)})


@pytest.mark.parametrize(("size", "rooms"), SIZES)
def test_corridors_have_no_dead_ends(size: int, rooms: int) -> None:
    mazes = drawn(size, rooms)
    free = (~mazes.walls).long()
    ways = torch.zeros_like(free)
    ways[:, 1:-1, 1:-1] = free[:, 2:, 1:-1] + free[:, :-2, 1:-1] + free[:, 1:-1, 2:] + free[:, 1:-1, :-2]
    assert ways[free.bool()].min() >= 2


def test_mazes_resemble_those_of_labmaze() -> None:
    # Shares of free cells and numbers of loops of 1500 mazes of labmaze 1.0.6, whose U-shaped corridors are
    # straightened, which these are not.
    for size, rooms, share, loops in ((9, 3, 0.734, 3.5), (11, 4, 0.714, 5.9), (15, 6, 0.643, 11.5)):
        free = ~drawn(size, rooms).walls
        assert free.sum() / COUNT / size**2 == pytest.approx(share, abs=0.025)
        edges = (free[:, 1:] & free[:, :-1]).sum() + (free[:, :, 1:] & free[:, :, :-1]).sum()
        squares = (free[:, 1:, 1:] & free[:, 1:, :-1] & free[:, :-1, 1:] & free[:, :-1, :-1]).sum()
        assert (edges - free.sum() - squares) / COUNT + 1 == pytest.approx(loops, abs=1.6)


def test_mazes_differ() -> None:
    assert len(drawn(9, 3).walls.flatten(1).unique(dim=0)) > 0.97 * COUNT


def test_draws_with_too_few_rooms_give_way_to_a_full_maze() -> None:
    # Of all draws of size 9, 30 % have three rooms or fewer; all tries of a maze fail about once in 120.
    mazes = drawn(9, 4, 1500)
    assert TRIES == 4
    assert mazes.is_room.sum(1).min() == 4
    assert most_rooms(9) == 4


@pytest.mark.parametrize(("size", "rooms"), SIZES)
def test_objects_lie_in_different_rooms_and_agents_start_in_a_room_beside_them(size: int, rooms: int) -> None:
    mazes, generator = drawn(size, rooms), torch.Generator().manual_seed(1)
    objects = draw_objects(mazes, rooms, generator)
    starts = draw_starts(mazes, objects, generator)
    cells, index = room_cells(mazes), torch.arange(COUNT)
    column, row = objects.unbind(2)
    in_room = cells[index[:, None], :, row, column]  # [B, K, R]
    assert (in_room.sum(2) == 1).all()
    assert (in_room.sum(1) <= 1).all()
    column, row, direction = starts.unbind(1)
    assert (cells[index, :, row, column].sum(1) == 1).all()
    assert not (objects == starts[:, None, :2]).all(2).any()
    assert direction.unique().tolist() == [0, 1, 2, 3]


def test_places_in_a_room_are_uniform() -> None:
    count = 9000
    one = drawn(9, 3)
    repeated = Mazes(*(x[:1].expand(count, *x.shape[1:]) for x in one))
    generator = torch.Generator().manual_seed(2)
    objects = draw_objects(repeated, 3, generator)
    starts = draw_starts(repeated, objects, generator)
    rooms = room_cells(one)[0][one.is_room[0]]  # [R, n, n]
    for places, expected in ((objects.flatten(0, 1), 3 * count), (starts[:, :2], count)):
        hits = torch.zeros(11, 11).index_put_(
            (places[:, 1], places[:, 0]), torch.ones(len(places)), accumulate=True
        )
        for room in rooms:
            mean = expected / len(rooms) / int(room.sum())
            assert (hits[room] - mean).abs().max() < 5 * mean**0.5

"""Random mazes of rooms and corridors, drawn for a whole batch at once.

A maze is laid out on a lattice of nodes, the cells with an odd row and column. Rooms cover at least two by
two nodes, corridors fill the rest, and each pair of neighbouring regions is connected. The method is that of
labmaze's `RandomMaze` with `simplify=True` (https://github.com/google-deepmind/labmaze), except that U-shaped
corridors are not straightened.

Axes: B mazes, S nodes per side, N = S * S nodes, Q rectangles that may be rooms, R rooms at most, n cells per
side with the border.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rmc_agents.tree import upload

TRIES = 4
"""Number of times that rooms are drawn until there are enough."""
EXTRA_DOORS = 0.05
"""Probability of each further connection between two regions that are connected already."""
FROM_LARGE = 15
"""Size from which mazes have up to nine rooms of 3 x 3 cells, instead of six of up to 5 x 3."""


class Mazes(NamedTuple):
    """Walls and rooms of B mazes. Coordinates count from 0 at the upper left corner of the border."""

    walls: Tensor
    """[B, n, n] bool, by row and column."""
    rooms: Tensor
    """[B, R, 4] int64 top row, left column, height and width of each room, in cells."""
    is_room: Tensor
    """[B, R] bool: whether this room exists."""


@dataclass(frozen=True)
class Plan:
    """What all mazes of a size share.

    Args:
        size: cells per side inside the border, odd.
        min_rooms: number of rooms that each maze has at least.
    """

    size: int
    min_rooms: int

    @property
    def nodes(self) -> int:
        """S."""
        return (self.size + 1) // 2

    @property
    def max_rooms(self) -> int:
        """R."""
        return max(9 if self.size >= FROM_LARGE else 6, self.min_rooms)

    @cached_property
    def rectangles(self) -> NDArray[np.int64]:
        """[Q, 4] top, left, height and width in nodes."""
        shapes = [(2, 2)] if self.size >= FROM_LARGE else [(2, 2), (2, 3), (3, 2)]
        found = [
            (top, left, height, width)
            for height, width in shapes
            for top in range(self.nodes - height + 1)
            for left in range(self.nodes - width + 1)
        ]
        return np.array(found)

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """[Q] how likely a rectangle is proposed: a square as likely as both oblong shapes together."""
        squares = self.rectangles[:, 2] == self.rectangles[:, 3]
        return np.where(squares, 0.5 / squares.sum(), 0.5 / max((~squares).sum(), 1)).astype(np.float32)

    @cached_property
    def covers(self) -> NDArray[np.bool_]:
        """[Q, N] whether a rectangle covers a node."""
        row, column = (index.reshape(1, -1) for index in np.indices((self.nodes, self.nodes)))
        top, left, height, width = (part[:, None] for part in self.rectangles.T)
        return (row >= top) & (row < top + height) & (column >= left) & (column < left + width)

    @cached_property
    def fits(self) -> NDArray[np.bool_]:
        """[Q, Q] whether two rectangles share no node."""
        covers = self.covers.astype(np.int64)
        return covers @ covers.T == 0

    @cached_property
    def packed(self) -> NDArray[np.int64]:
        """Indices of the rectangles of as many rooms as fit, for mazes whose draws had too few rooms."""
        top, left, height, width = self.rectangles.T
        packed = (top % 2 == 0) & (left % 2 == 0) & (height == 2) & (width == 2)
        return np.flatnonzero(packed)[: self.max_rooms]

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """[N + 1, 4] the node to the right, below, to the left and above; N where there is none."""
        S = self.nodes
        index = np.pad(np.arange(S * S).reshape(S, S), 1, constant_values=S * S)
        around = (index[1:-1, 2:], index[2:, 1:-1], index[1:-1, :-2], index[:-2, 1:-1])
        return np.concatenate([np.stack(around, axis=-1).reshape(-1, 4), np.full((1, 4), S * S)])


@lru_cache(maxsize=64)
def plan(size: int, min_rooms: int) -> Plan:
    """Return what all mazes of a size share."""
    return Plan(size, min_rooms)


def most_rooms(size: int) -> int:
    """Return the number of rooms that fit into every maze of a size."""
    return ((size + 1) // 4) ** 2


def draw_mazes(count: int, plan: Plan, generator: torch.Generator | None, device: torch.device) -> Mazes:
    """Draw mazes in which every free cell can be reached from every other.

    Args:
        count: B.
        plan: size and least number of rooms.
        generator: of the draws; on the device.
        device: where the mazes are drawn, without a wait for the host.
    """
    S = plan.nodes

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device)

    rectangles, room_of = _draw_rooms(count, plan, generator, device)
    passages, region_of = _dig_corridors(plan, room_of, uniform(S * S + 1, 4))
    right, down = passages[..., 0].view(-1, S, S), passages[..., 1].view(-1, S, S)
    right[:, :, :-1] |= passages[..., 2].view(-1, S, S)[:, :, 1:]
    down[:, :-1] |= passages[..., 3].view(-1, S, S)[:, 1:]
    right, down = right[:, :, :-1], down[:, :-1]

    doors = _place_doors(region_of.view(-1, S, S), uniform(2 * S * (S - 1)), uniform(2 * S * (S - 1)))
    right, down = right | doors[0], down | doors[1]
    room_of = room_of.view(-1, S, S)
    right, down = _without_dead_ends(right, down, room_of >= 0)
    table = upload(plan.rectangles, device)
    rooms = table[rectangles.clamp(min=0)] * 2
    rooms = rooms + torch.tensor([1, 1, -1, -1], device=device)
    return Mazes(_walls(right, down, room_of), rooms, rectangles >= 0)


def _draw_rooms(
    count: int, plan: Plan, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw rectangles one after the other, each among those that fit beside the ones before.

    Returns:
        the rectangle of each room, [B, R], -1 where there is none; and the room of each node, [B, N], -1 for
        a corridor.
    """
    R, Q = plan.max_rooms, len(plan.rectangles)
    fits = upload(plan.fits, device)
    # The order of arrival of a race with these rates is that of draws without replacement.
    rates = upload(plan.weights, device)
    numbers = torch.rand(count * TRIES, Q, generator=generator, device=device)
    arrival = -(1 - numbers).log() / rates
    chosen = []
    for _ in range(R):
        first, which = arrival.min(1)
        chosen.append(torch.where(first.isfinite(), which, -1))
        arrival = arrival.masked_fill(~fits[which], torch.inf)
    tries = torch.stack(chosen, 1).view(count, TRIES, R)
    enough = (tries >= 0).sum(2) >= plan.min_rooms  # [B, TRIES]
    best = enough.to(torch.uint8).argmax(1)
    picked = tries.gather(1, best[:, None, None].expand(-1, 1, R)).squeeze(1)
    packed = torch.full((R,), -1, device=device)
    packed[: len(plan.packed)] = upload(plan.packed, device)
    rectangles = torch.where(enough.any(1, keepdim=True), picked, packed)

    covers = upload(plan.covers, device)
    room_of = torch.full((count, plan.nodes**2), -1, device=device)
    for room, rectangle in enumerate(rectangles.unbind(1)):
        inside = covers[rectangle.clamp(min=0)] & (rectangle >= 0)[:, None]
        room_of = room_of.masked_fill(inside, room)
    return rectangles, room_of


def _dig_corridors(plan: Plan, room_of: Tensor, priority: Tensor) -> tuple[Tensor, Tensor]:
    """Dig a spanning tree through each connected part of the space between the rooms, depth first.

    Args:
        plan: size of the maze.
        room_of: [B, N] room of each node, -1 for the space between them.
        priority: [B, N + 1, 4] random numbers: the order in which each node tries its neighbours.

    Returns:
        the passages out of each node, [B, N, 4] bool; and the region of each node, [B, N] int64: a number
        below N of its tree, or N and more of its room.
    """
    B, N, device = len(room_of), plan.nodes**2, room_of.device
    neighbours = upload(plan.neighbours, device)
    rows = torch.arange(B, device=device)
    unvisited = pad(room_of < 0, (0, 1))  # node N stands for "none", and counts as visited
    region = pad(room_of + N, (0, 1))
    parent = torch.full((B, N + 1), N, device=device)
    passages = torch.zeros(B, N + 1, 4, dtype=torch.bool, device=device)
    here = torch.full((B,), N, device=device)
    root = here
    for _ in range(2 * N):  # each node is entered once and left once
        around = neighbours[here]
        best, side = torch.where(unvisited.gather(1, around), priority[rows, here], -1).max(1)
        forward, outside = best >= 0, here == N
        first = unvisited.to(torch.uint8).argmax(1)
        start = torch.where(unvisited[rows, first], first, N)
        ahead = around[rows, side]
        there = torch.where(forward, ahead, torch.where(outside, start, parent[rows, here]))
        root = torch.where(outside, start, root)
        passages[rows, here, side] |= forward
        parent[rows, there] = torch.where(forward, here, parent[rows, there])
        region[rows, there] = root
        unvisited[rows, there] = False
        here = there
    return passages[:, :N], region[:, :N]


def _place_doors(region: Tensor, order: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
    """Connect each pair of regions that touch at one random place, and rarely at others too.

    Args:
        region: [B, S, S] number of each node's region.
        order: [B, E] random numbers for the places between two nodes: S (S - 1) horizontal, then vertical.
        extra: [B, E] random numbers.

    Returns:
        doors to the right, [B, S, S - 1], and below, [B, S - 1, S].
    """
    B, S, _ = region.shape
    one = torch.cat([region[:, :, :-1].flatten(1), region[:, :-1].flatten(1)], dim=1)
    other = torch.cat([region[:, :, 1:].flatten(1), region[:, 1:].flatten(1)], dim=1)
    pair = torch.minimum(one, other) * (2 * S * S) + torch.maximum(one, other)
    sorted_, places = (pair + order.double()).sort(dim=1)
    is_first = torch.ones_like(places, dtype=torch.bool)
    is_first[:, 1:] = sorted_[:, 1:].floor() != sorted_[:, :-1].floor()
    chosen = torch.zeros_like(is_first).scatter(1, places, is_first)
    doors = (one != other) & (chosen | (extra < EXTRA_DOORS))
    right, down = doors.split(S * (S - 1), dim=1)
    return right.view(B, S, S - 1), down.view(B, S - 1, S)


def _without_dead_ends(right: Tensor, down: Tensor, is_room: Tensor) -> tuple[Tensor, Tensor]:
    """Fill corridors that lead nowhere: nodes outside rooms with fewer than two passages, again and again."""
    for _ in range(is_room.shape[1] ** 2):
        passages = pad(right.byte(), (0, 1)) + pad(right.byte(), (1, 0))
        passages += pad(down.byte(), (0, 0, 0, 1)) + pad(down.byte(), (0, 0, 1, 0))
        kept = is_room | (passages >= 2)
        right = right & kept[:, :, :-1] & kept[:, :, 1:]
        down = down & kept[:, :-1] & kept[:, 1:]
    return right, down


def _walls(right: Tensor, down: Tensor, room_of: Tensor) -> Tensor:
    """Return the walls [B, n, n] of mazes with these passages between nodes, and rooms of whole cells."""
    B, S, _ = room_of.shape
    is_room = room_of >= 0
    right = right | (is_room[:, :, 1:] & (room_of[:, :, :-1] == room_of[:, :, 1:]))
    down = down | (is_room[:, 1:] & (room_of[:, :-1] == room_of[:, 1:]))
    free = torch.zeros(B, 2 * S + 1, 2 * S + 1, dtype=torch.bool, device=room_of.device)
    free[:, 1::2, 2:-1:2] = right
    free[:, 2:-1:2, 1::2] = down
    free[:, 1::2, 1::2] = (
        is_room | pad(right, (0, 1)) | pad(right, (1, 0)) | pad(down, (0, 0, 0, 1)) | pad(down, (0, 0, 1, 0))
    )
    # The middle of four nodes of one room.
    same = room_of[:, :-1, :-1] == room_of[:, 1:, 1:]
    free[:, 2:-1:2, 2:-1:2] = same & is_room[:, 1:, 1:] & (room_of[:, :-1, 1:] == room_of[:, 1:, :-1])
    return ~free

"""Worlds: mazes, the places of objects in them, and the starts of episodes, in rooms as in Memory Maze.

Axes: B mazes, R rooms at most, K objects, n cells per side of a maze with its border.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from rmc_agents.tree import upload

from .mazes import Mazes, draw_mazes, plan

Redraw = Literal["maze", "objects", "nothing"]


class World(NamedTuple):
    """What stays the same during an episode."""

    walls: Tensor
    """[B, n, n] bool, by row and column, with the border."""
    objects: Tensor
    """[B, K, 2] int64 column and row of each object."""


@final
class Worlds:
    """A source of worlds.

    Args:
        count: B.
        size: cells per side inside the border.
        num_objects: K.
        redraw: what differs between worlds.
        maze_seed: seed of what does not differ, which is the same on every device.
        device: any torch device.
    """

    def __init__(
        self,
        count: int,
        size: int,
        num_objects: int,
        redraw: Redraw,
        maze_seed: int,
        device: torch.device,
    ) -> None:
        self.count, self.num_objects, self.redraw, self.device = count, num_objects, redraw, device
        self._plan = plan(size, num_objects)
        self._fixed: tuple[Mazes, Tensor] | None = None
        if redraw != "maze":
            generator = torch.Generator().manual_seed(maze_seed)
            mazes = draw_mazes(1, self._plan, generator, torch.device("cpu"))
            objects = draw_objects(mazes, num_objects, generator)
            self._fixed = Mazes(*map(self._repeated, mazes)), self._repeated(objects)

    def _repeated(self, one: Tensor) -> Tensor:
        return upload(one, self.device).expand(self.count, *one.shape[1:])

    def draw(self, generator: torch.Generator | None) -> tuple[World, Tensor]:
        """Draw B worlds, and where their agents start, [B, 3] column, row and direction."""
        if self._fixed is None:
            mazes = draw_mazes(self.count, self._plan, generator, self.device)
            objects = draw_objects(mazes, self.num_objects, generator)
        else:
            mazes, objects = self._fixed
            if self.redraw == "objects":
                objects = draw_objects(mazes, self.num_objects, generator)
        return World(mazes.walls, objects), draw_starts(mazes, objects, generator)


def draw_objects(mazes: Mazes, num_objects: int, generator: torch.Generator | None) -> Tensor:
    """Draw a cell for each object, in different rooms: [B, K, 2] column and row."""
    B, device = len(mazes.rooms), mazes.rooms.device
    order = _random(mazes.is_room.shape, generator, device).masked_fill(~mazes.is_room, -1.0)
    rooms = _rows(mazes.rooms, order.argsort(dim=1, descending=True)[:, :num_objects])  # [B, K, 4]
    shares = _random((B, num_objects, 2), generator, device)
    row, column = (rooms[..., :2] + (shares * rooms[..., 2:]).long()).unbind(2)
    return torch.stack([column, row], dim=2)


def draw_starts(mazes: Mazes, objects: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw where the agent starts, [B, 3] column, row and direction: a cell without an object in any room."""
    B, device = len(mazes.rooms), mazes.rooms.device
    order = _random(mazes.is_room.shape, generator, device).masked_fill(~mazes.is_room, -1.0)
    room = _rows(mazes.rooms, order.argmax(1, keepdim=True))  # [B, 1, 4]
    top, left, height, width = room.unbind(2)
    column, row = objects[..., 0] - left, objects[..., 1] - top  # [B, K]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    area = height * width
    taken = torch.where(inside, row * width + column, area).amin(1, keepdim=True)  # one at most
    free = area - inside.sum(1, keepdim=True)
    cell = (_random((B, 1), generator, device) * free).long()
    cell = cell + (cell >= taken)
    direction = torch.randint(4, (B, 1), generator=generator, device=device)
    return torch.cat([left + cell % width, top + cell // width, direction], dim=1)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return rows [B, m, 4] of values [B, R, 4] by index [B, m]."""
    return values.gather(1, index.unsqueeze(2).expand(-1, -1, values.shape[2]))


def _random(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=device)

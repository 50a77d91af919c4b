"""The agent's view of a maze as MiniGrid computes it, by look-ups: a row of cells is a number of V bits.

`Lines` holds the free cells of a maze as bits, once per direction, so that each row of a view is one number.
Which cells of a row are seen depends only on which of them are free and on which are seen from the row nearer
to the agent; all combinations are in one table.

Axes: B environments, V cells per side of the view, W cells per side of the padded grid, C = W * W cells,
P = 4 * C poses (the number of a pose is direction * C + cell).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.tree import upload

UNSEEN, EMPTY, WALL, BALL = 0, 1, 2, 6
"""MiniGrid's codes of objects."""
GREY = 5
"""MiniGrid's code of the color of walls."""
OBJECT_COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
"""MiniGrid's colors, in the order of their codes."""
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""[4, 2] one cell ahead, as column and row, by direction: right, down, left, up."""


def packed(kind: int, color: int = 0) -> int:
    """Return the three codes of a cell as the bytes of one number, the object's code first."""
    return kind | color << 8


@lru_cache(maxsize=8)
def row_tables(view_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compute which cells of a row are seen, and from which cells of the next row the search continues.

    This is `minigrid.core.grid.Grid.process_vis`, for one row, and for all rows at once.

    Args:
        view_size: V.

    Returns:
        two tables, [4^V], whose index has the cells that are seen at first in its upper V bits, and the free
        cells in its lower V bits. The first holds the cells that are seen in the end, the second those that
        are seen at first in the next row, shifted by V bits.
    """
    V = view_size
    index = np.arange(4**V)
    seen, free = index >> V, index & (2**V - 1)
    following = np.zeros_like(index)
    for cells, step in ((range(V - 1), 1), (range(V - 1, 0, -1), -1)):
        for i in cells:
            passes = (seen & free) >> i & 1
            seen = seen | passes << (i + step)
            following |= passes << (i + step) | passes << i
    return seen, following << V


class Lines(NamedTuple):
    """Mazes, prepared for views."""

    cells: Tensor
    """[B, C] int32 codes of each cell, packed."""
    bits: Tensor
    """[B, 4 * W] int64: the free cells of each column or row as bits, seen in each of the four directions."""


@final
class Viewer:
    """Views of square mazes of one size.

    Args:
        size: cells per side of the maze, with its border.
        view_size: V, odd.
        see_through_walls: walls do not block the view.
        device: any torch device.
    """

    def __init__(self, size: int, view_size: int, see_through_walls: bool, device: torch.device) -> None:
        self.view_size, self.see_through_walls, self.device = view_size, see_through_walls, device
        self.margin = view_size - 2  # a view never ends outside this margin of walls
        self.width = size + 2 * self.margin
        V, W = view_size, self.width
        direction, row, column = np.indices((4, W, W)).reshape(3, -1)
        self.cells_of_view = upload(self._offsets(), device)  # [4, V * V]
        self.own = (V // 2) * V + V - 1
        """Index of the agent's cell in a view that is flattened."""

        # In direction 0 and 2 a row of the view is a column of the maze; in 1 and 2 it is seen mirrored.
        along = np.where(direction % 2 == 0, column, row)
        across = np.where(direction % 2 == 0, row, column)
        mirrored = (direction == 1) | (direction == 2)
        ahead = np.arange(V - 1, -1, -1)  # of each row of the view, the farthest first
        sign = np.where(direction < 2, 1, -1)
        lines = (along[:, None] + sign[:, None] * ahead).clip(0, W - 1)
        self.lines_of_pose = upload(direction[:, None] * W + lines, device)  # [P, V]
        shift = np.where(mirrored, W - 1 - across, across) - V // 2
        self.shift_of_pose = upload(shift.clip(0)[:, None], device)  # [P, 1]
        self.direction_of_pose = upload(direction, device)  # [P]
        self.cell_of_pose = upload(row * W + column, device)  # [P]
        forward, sideways = STEPS[direction], STEPS[(direction + 1) % 4]
        place = np.stack([column, row], axis=1)
        origin = np.stack([(forward * place).sum(1), (sideways * place).sum(1)], axis=1)
        self.frame_of_pose = upload(np.concatenate([forward, sideways, origin], axis=1), device)  # [P, 6]
        self.powers = upload(2 ** np.arange(W), device)
        self.columns = upload(np.arange(V)[:, None], device)
        self.seen, self.following = (upload(table, device) for table in row_tables(view_size))

    def _offsets(self) -> NDArray[np.int64]:
        """Return the cells of a view relative to the agent's cell, [4, V * V]."""
        V = self.view_size
        i, j = np.indices((V, V)).reshape(2, -1)
        ahead, right = V - 1 - j, i - V // 2
        forward, sideways = STEPS, np.roll(STEPS, -1, axis=0)
        dx = forward[:, :1] * ahead + sideways[:, :1] * right
        dy = forward[:, 1:] * ahead + sideways[:, 1:] * right
        return dy * self.width + dx

    def prepare(self, cells: Tensor) -> Lines:
        """Prepare mazes [B, W, W] of packed codes, with their margin."""
        free = cells != packed(WALL, GREY)
        columns = free.transpose(1, 2)
        directions = (columns, free.flip(2), columns.flip(2), free)
        bits = torch.stack([(x * self.powers).sum(2) for x in directions], dim=1)
        return Lines(cells.flatten(1), bits.flatten(1))

    def seen_rows(self, lines: Lines, pose: Tensor) -> Tensor:
        """Return which cells of each row of the view are seen, as bits, [B, V] int64."""
        V = self.view_size
        full = 2**V - 1
        if self.see_through_walls:
            return torch.full((len(pose), V), full, device=self.device)
        free = lines.bits.gather(1, self.lines_of_pose[pose]) >> self.shift_of_pose[pose] & full
        entry = torch.full_like(pose, 1 << (V // 2 + V))
        entries = []
        for row in free.unbind(1)[::-1]:
            entry = entry | row
            entries.append(entry)
            entry = self.following.index_select(0, entry)
        return self.seen[torch.stack(entries[::-1], dim=1)]

    def image(self, lines: Lines, pose: Tensor, seen_rows: Tensor) -> Tensor:
        """Return MiniGrid's symbolic image of each view, [B, V, V, 3] uint8."""
        V = self.view_size
        where = self.cells_of_view[self.direction_of_pose[pose]] + self.cell_of_pose[pose].unsqueeze(1)
        seen = (seen_rows.unsqueeze(1) >> self.columns & 1).to(torch.int32)
        codes = lines.cells.gather(1, where) * seen.flatten(1)
        codes[:, self.own] = packed(EMPTY)  # an object under the agent is hidden
        return codes.view(torch.uint8).view(-1, V, V, 4)[..., :3].contiguous()

    def seen_cells(self, lines: Lines, pose: Tensor) -> Tensor:
        """Return which cells of the padded grid are seen, [B, W, W] bool."""
        where = self.cells_of_view[self.direction_of_pose[pose]] + self.cell_of_pose[pose].unsqueeze(1)
        seen = (self.seen_rows(lines, pose).unsqueeze(1) >> self.columns & 1).bool().flatten(1)
        cells = torch.zeros(len(pose), self.width**2, dtype=torch.bool, device=self.device)
        return cells.scatter(1, where, seen).view(-1, self.width, self.width)

    def relative(self, pose: Tensor, places: Tensor) -> Tensor:
        """Return how far places are ahead of the agent and to its right, in cells.

        Args:
            pose: [B].
            places: [B, K, 2] column and row in the padded grid.

        Returns:
            [B, K, 2] int64.
        """
        frame = self.frame_of_pose[pose].unsqueeze(1)  # [B, 1, 6]
        column, row = places[..., :1], places[..., 1:]
        return column * frame[..., 0:4:2] + row * frame[..., 1:4:2] - frame[..., 4:]

    def in_view(self, seen_rows: Tensor, relative: Tensor) -> Tensor:
        """Return whether places relative to the agent [B, K, 2] are seen, [B, K] bool."""
        last = self.view_size - 1
        ahead, right = relative.unbind(2)
        row, column = last - ahead, right + self.view_size // 2
        inside = (ahead >= 0) & (row >= 0) & (column >= 0) & (column <= last)
        bits = seen_rows.gather(1, row.clamp(0, last)) >> column.clamp(0, last) & 1
        return inside & (bits == 1)

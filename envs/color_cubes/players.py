"""Players of Color-Cubes. Axes: B environments, G cells per side, N cubes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player
from .color_cubes import DOWN, LEFT, RIGHT, UP


def step_towards(at: Tensor, goal: Tensor, size: int) -> Tensor:
    """Return the moves [B] of shortest paths from cells to other ones: first the row, then the column."""
    down, right = goal // size - at // size, goal % size - at % size
    return torch.where(down != 0, torch.where(down > 0, DOWN, UP), torch.where(right > 0, RIGHT, LEFT))


def sweep(size: int) -> Tensor:
    """Return a move from each cell [G^2] that leads through all cells in a circle, if G is even.

    If it is odd, the circle leaves out the lower left corner.
    """
    moves = torch.full((size, size), RIGHT)
    # Rows from the top to the bottom, in turn to the right and to the left, without the first column.
    moves[1::2] = LEFT
    moves[0:-1:2, -1] = DOWN
    moves[1:-1:2, 1] = DOWN
    moves[1:, 0] = UP
    if size % 2 == 0:
        moves[0, 0] = RIGHT
        return moves.flatten()
    # The last two rows are crossed column by column, from the right to the left.
    for step, column in enumerate(range(size - 1, 0, -1)):
        first, second = (size - 2, size - 1) if step % 2 == 0 else (size - 1, size - 2)
        moves[first, column] = DOWN if step % 2 == 0 else UP
        moves[second, column] = LEFT
    moves[size - 1, 0] = UP
    return moves.flatten()


class ColorCubesMemoryless(Player):
    """Walks towards the target if it is in view, and sweeps the grid if not."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.sweep = sweep(task.size)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        size = self.task.size
        cells, (row, column, target, _) = obs[:, : size * size], obs[:, size * size :].unbind(1)
        at = row * size + column
        is_target = cells == target.unsqueeze(1) + 1
        towards = step_towards(at, is_target.long().argmax(1), size)
        return torch.where(is_target.any(1), towards, self.sweep[at])


class ColorCubesReference(Player):
    """Remembers all places, walks to the target, or to the nearest cube that may be the target."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.known = torch.full((self.num_envs, task.num_cubes), -1)  # cell of each color; -1 if not known
        self.open = torch.zeros(self.num_envs, task.size**2, dtype=torch.bool)  # cubes of unknown color
        cells = torch.arange(task.size**2)
        rows, columns = cells // task.size, cells % task.size
        self.distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        size, N = self.task.size, self.task.num_cubes
        cells, (row, column, target, here) = obs[:, : size * size], obs[:, size * size :].unbind(1)
        at = row * size + column
        self.known[starts], self.open[starts] = -1, False
        for color in range(1, N + 1):
            shown = cells == color
            self.known[:, color - 1] = torch.where(
                shown.any(1), shown.long().argmax(1), self.known[:, color - 1]
            )
        # A cube that moves goes to a cell that was free: who is where one was before has stayed.
        places = cells == N + 1
        stays = places.gather(1, self.known.clamp(min=0)) & (self.known >= 0)
        viewed = places.any(1, keepdim=True)
        self.known = torch.where(stays | ~viewed, self.known, -1)
        taken = torch.zeros_like(self.open).scatter(1, self.known.clamp(min=0), stays)
        self.open = torch.where(viewed, places & ~taken, self.open)

        self.open[self.rows, at] = False
        meets = here > 0
        self.known[self.rows[meets], here[meets] - 1] = at[meets]
        goal = self.known[self.rows, target]
        nearest = self.distance[at].masked_fill(~self.open, size * size).argmin(1)
        return step_towards(at, torch.where(goal >= 0, goal, nearest), size)

"""Players of Memory Maze: with perfect knowledge, with a perfect memory, and without a memory.

Axes: B environments, K objects, V cells per side of the view, D cells per side of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player
from .paths import FAR, FORWARD, poses_before, shortest, to_bits
from .task import MemoryMaze
from .view import BALL, STEPS, UNSEEN, WALL

WANDERING = torch.tensor(
    [
        [0.5, 0.5, 0.0],
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.5, 0.5, 0.0],
        [0.0, 0.0, 1.0],
        [0.04, 0.0, 0.96],
        [0.0, 0.04, 0.96],
        [0.1, 0.35, 0.55],
    ]
)
"""[8, 3] probability of each action where the prompted object is not in view. The row is 4 if the cell ahead
is free, plus 2 if the one to the right is, plus 1 if the one to the left is. Found by a search for the most
targets in 9 x 9 with view size 5."""


class PerfectKnowledge(Player):
    """Walks the shortest path to each target. It reads the state of the task: an upper bound."""

    task: MemoryMaze

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        walls, objects = self.task.world
        target = objects[self.rows, obs["prompt"]]
        goals = torch.zeros(len(walls), walls.shape[1], dtype=torch.int64)
        goals[self.rows, target[:, 1]] = 1 << target[:, 0]
        everywhere = goals.unsqueeze(1).expand(-1, 4, -1)
        return shortest(to_bits(~walls), everywhere, self.task.places()).action


class PerfectMemory(Player):
    """Remembers every cell and object that it has seen, and its way.

    It walks the shortest known path to the prompted object. Until it has seen that object, it walks to the
    nearest place with an unknown cell ahead.
    """

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.side = 2 * task.size + 1  # the start is in the middle, so that no cell can lie outside
        B, D = self.num_envs, self.side
        self.known = torch.zeros(B, D * D + 1, dtype=torch.bool)  # the last cell stands for all others
        self.free = torch.zeros(B, D * D + 1, dtype=torch.bool)
        self.objects = torch.full((B, task.num_objects), -1)
        self.place = torch.full((B, 2), task.size)  # column and row on the map
        self.moves = torch.zeros(B, 2, dtype=torch.int64)  # of the latest action

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        self.known[starts] = False
        self.free[starts] = False
        self.objects[starts] = -1
        self.place = torch.where(starts[:, None], self.task.size, self.place + self.moves)
        self._remember(obs)

        D, target = self.side, self.objects[self.rows, obs["prompt"]]
        free = to_bits(self.free[:, :-1].view(-1, D, D))
        unknown = to_bits(~self.known[:, :-1].view(-1, D, D))
        there = torch.zeros_like(free)
        there[self.rows, target.clamp(min=0) // D] = 1 << target.clamp(min=0) % D
        goals = torch.where((target >= 0)[:, None, None], there.unsqueeze(1), poses_before(free, unknown))
        places = torch.cat([self.place, obs["direction"].unsqueeze(1)], dim=1)
        action = shortest(free, goals, places).action
        ahead = obs["image"][:, self.task.view_size // 2, -2, 0] != WALL
        walks = (action == FORWARD) & ahead
        self.moves = torch.from_numpy(STEPS)[obs["direction"]] * walks.unsqueeze(1)
        return action

    def _remember(self, obs: dict[str, Tensor]) -> None:
        """Enter the view into the map."""
        V, D = self.task.view_size, self.side
        kind, color = (obs["image"][..., channel].flatten(1) for channel in (0, 1))  # [B, V * V]
        i, j = (index.flatten() for index in torch.meshgrid(torch.arange(V), torch.arange(V), indexing="ij"))
        steps = torch.from_numpy(STEPS)
        forward, right = steps[obs["direction"]], steps[(obs["direction"] + 1) % 4]  # [B, 2]
        offsets = forward.unsqueeze(1) * (V - 1 - j)[:, None] + right.unsqueeze(1) * (i - V // 2)[:, None]
        column, row = (self.place.unsqueeze(1) + offsets).unbind(2)
        inside = (column >= 0) & (column < D) & (row >= 0) & (row < D) & (kind != UNSEEN)
        cells = torch.where(inside, row * D + column, D * D)
        rows = self.rows.unsqueeze(1)
        self.known[rows, cells] = True
        self.free[self.rows.unsqueeze(1).expand_as(cells)[kind > WALL], cells[kind > WALL]] = True
        empty = inside & (kind != WALL)
        self.free[rows.expand_as(cells)[empty], cells[empty]] = True
        for k in range(self.task.num_objects):
            ball = inside & (kind == BALL) & (color == k)
            found = torch.where(ball, cells, -1).amax(1)
            self.objects[:, k] = torch.where(found >= 0, found, self.objects[:, k])


class Memoryless(Player):
    """Walks to the prompted object if it is in view, and else wanders by which cells around it are free."""

    wandering = WANDERING

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        V, image = self.task.view_size, obs["image"].transpose(1, 2)  # by row and column
        kind, color = image[..., 0], image[..., 1]
        free = to_bits((kind != WALL) & (kind != UNSEEN))
        target = to_bits((kind == BALL) & (color == obs["prompt"][:, None, None]))
        places = torch.tensor([V // 2, V - 1, 3]).expand(self.num_envs, 3)
        way = shortest(free, target.unsqueeze(1).expand(-1, 4, -1), places)
        beside = [kind[:, -2, V // 2], kind[:, -1, V // 2 + 1], kind[:, -1, V // 2 - 1]]
        ahead, right, left = ((cell != WALL).long() for cell in beside)
        chances = self.wandering[4 * ahead + 2 * right + left]
        wander = (self.uniform(self.num_envs, 1) > chances.cumsum(1)).sum(1).clamp(max=FORWARD)
        return torch.where(way.steps < FAR, way.action, wander)

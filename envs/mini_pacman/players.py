"""Players of Mini PacMan, in its regular mode.

Axes: B environments, N = 138 cells of the maze, V cells on a side of the view.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player
from .maze import (
    CELL_AT,
    IS_FOOD,
    IS_PILL,
    IS_PLAYER,
    NOTHING,
    NOWHERE,
    NUM_CELLS,
    distances,
    tables,
    view_places,
)
from .mini_pacman import MAX_GHOSTS

FAR = 100
"""Longer than all paths, and an int8."""
MARGIN = 0.2
"""Added to the speed of ghosts, as a share of the steps in which they move."""
NEAR = 6
"""Distance to a ghost below which a pill is wanted."""


class MiniPacManMemoryless(Player):
    """Goes to the nearest food in view, away from ghosts, and chases ghosts that can be eaten.

    It knows the maze and its own cell, which it reads from the task. With no food in view it walks at random.
    In full view it sees all food.
    """

    remembers = False
    horizon = 12
    """Steps ahead for which the player looks for a way that no ghost can cut off."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.steps, self.distances = tables().player_step, distances().to(torch.int8)
        cell_at = torch.from_numpy(CELL_AT.reshape(-1))
        size = task.view_size
        # [N or 1, V * V] the cells in view
        self.in_view = cell_at.unsqueeze(0) if size is None else cell_at[view_places(size)]
        self.items = torch.zeros(self.num_envs, NUM_CELLS + 1, dtype=torch.int64)
        self.level = torch.zeros(self.num_envs, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        player, level = self.task.whereabouts()
        seen = self.in_view[player] if len(self.in_view) > 1 else self.in_view.expand(self.num_envs, -1)
        image = obs.long().flatten(1, 2)
        fresh = (starts | (level != self.level)).unsqueeze(1)
        self.level = level
        if self.remembers:
            self.items = torch.where(fresh, IS_FOOD, self.items)  # what was not seen yet holds food
        else:
            self.items = torch.zeros_like(self.items)
        item = image[:, :, 0]
        self.items = self.items.scatter(1, seen, torch.where(item == IS_PLAYER, NOTHING, item))
        ghosts = torch.zeros_like(self.items).scatter(1, seen, image[:, :, 1])
        ghosts[:, NOWHERE] = 0

        following = self.steps[player]  # [B, 5]
        power = ghosts.amax(1) - 1
        speed = (0.4 + 0.1 * level + MARGIN).clamp(max=1)
        arrival = self.arrival(ghosts == 1)  # [B, N]
        is_food, is_pill = self.items == IS_FOOD, self.items == IS_PILL
        # Pills are for a time when a ghost is near, or when nothing else is left.
        wants_pill = (arrival.gather(1, player.unsqueeze(1)) <= NEAR) | ~is_food.any(1, keepdim=True)
        cost = self.to_nearest(following, is_food | (is_pill & wants_pill)).float()
        edible = self.to_nearest(following, ghosts > 1).float()
        cost = torch.where(2 * edible <= power.unsqueeze(1), edible / 2 - 10, cost)
        cost = cost - FAR * self.survival(following, arrival, speed, is_pill[:, :NUM_CELLS])
        cost[:, 0] += 0.5  # rather move
        return (cost + self.uniform(*cost.shape) / 4).argmin(1)

    def to_nearest(self, cells: Tensor, wanted: Tensor) -> Tensor:
        """Return the distances from cells [B, n] to the nearest of the wanted ones [B, N + 1]."""
        missing = torch.where(wanted[:, :NUM_CELLS], 0, FAR).to(torch.int8)
        return torch.maximum(self.distances[cells], missing.unsqueeze(1)).amin(2)

    def arrival(self, ghosts: Tensor) -> Tensor:
        """Return the distance of the nearest ghost [B, N + 1] to each cell, [B, N]."""
        exists, cells = ghosts.byte().topk(MAX_GHOSTS, dim=1)
        cells = cells.clamp(max=NUM_CELLS - 1)
        return torch.where(exists.bool().unsqueeze(2), self.distances[cells], FAR).amin(1)

    def survival(self, cells: Tensor, arrival: Tensor, speed: Tensor, is_pill: Tensor) -> Tensor:
        """Return for how many steps the player can evade all ghosts after moves to cells [B, 5].

        The result is at most `horizon`. Ghosts are taken to go wherever they could; a pill that is reached in
        time is safe.
        """
        steps = torch.zeros_like(arrival, dtype=torch.int64)
        neighbours = self.steps.reshape(-1)
        for time in range(self.horizon, 0, -1):
            onward = steps.index_select(1, neighbours).view(self.num_envs, NUM_CELLS, 5).amax(2)
            free = arrival > (time * speed).ceil().unsqueeze(1)
            steps = torch.where(free, torch.where(is_pill, self.horizon - time + 1, onward + 1), 0)
        return steps.gather(1, cells)


class MiniPacManReference(MiniPacManMemoryless):
    """Plays as the memoryless player, and remembers where food is left; not where ghosts were."""

    remembers = True


class MiniPacManShortSighted(MiniPacManMemoryless):
    """Plays as the memoryless player, but looks only two steps ahead."""

    horizon = 2

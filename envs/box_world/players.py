"""Players of BoxWorld.

Axes: B environments, S cells on a side of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player
from .levels import SIDE
from .planning import FAR, IS_AGENT, IS_EMPTY, IS_GEM, IS_WALL, UNKNOWN, Map


class Planner(Player):
    """Base of players that keep a map and walk on shortest paths."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        view = task.view_size
        # The agent starts in the middle of its map, and sees `view // 2` cells beyond where it can walk.
        self.side = SIDE + 2 if view is None else 2 * (SIDE - 1 + view // 2) + 1
        near = torch.arange(view or 0) - (view or 0) // 2
        self.view = (near.view(-1, 1) * self.side + near).view(-1)
        self.steps = torch.tensor([-self.side, self.side, -1, 1])  # up, down, left, right
        self.map = self.unknown = Map.unknown(self.num_envs, self.side)
        self.position = torch.full((self.num_envs,), self.side**2 // 2)

    def look(self, obs: dict[str, Tensor], starts: Tensor) -> None:
        """Enter an observation into the map."""
        image = obs["image"].long().flatten(1, 2)
        if self.task.view_size is None:
            self.position = (image[:, :, 0] == IS_AGENT).long().argmax(1)
            self.map = Map(image[:, :, 0] * (image[:, :, 0] != IS_AGENT), image[:, :, 1])
            return
        self.position = torch.where(starts, self.side**2 // 2, self.position)
        seen = self.position.unsqueeze(1) + self.view
        before = (
            torch.where(starts.unsqueeze(1), *pair) for pair in zip(self.unknown, self.map, strict=True)
        )
        self.map = Map(*(known.scatter(1, seen, image[:, :, i]) for i, known in enumerate(before)))

    def neighbours(self) -> Tensor:
        """Return the cells around the agent, [B, 4]."""
        return self.position.unsqueeze(1) + self.steps

    def go(self, actions: Tensor) -> Tensor:
        """Return actions, which lead to cells that can be walked on, and enter the move into the map."""
        self.position = self.position + self.steps[actions]
        return actions

    def wander(self) -> Tensor:
        """Return random actions [B] that lead to empty cells."""
        return self.random_of(self.map.kinds.gather(1, self.neighbours()) == IS_EMPTY)


class BoxWorldReference(Planner):
    """Remembers all that it saw, and opens a box only if it knows that the box leads to the gem.

    It explores the nearest unknown cell until then. In full view it knows everything at once.
    """

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        self.look(obs, starts)
        best = self.map.best_actions(self.neighbours(), obs["key"])
        return self.go(torch.where(best.any(1), self.random_of(best), self.wander()))


class BoxWorldMemoryless(Planner):
    """Takes and opens whatever is in view and fits, the box with the gem first. Otherwise it circles.

    Where it sees a wall, it mostly follows it clockwise, and elsewhere it wanders. In full view it opens the
    nearest box that fits, without a thought about what is inside.
    """

    FOLLOWS = 0.8
    """Probability of a step along the wall."""

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        self.look(obs, torch.ones_like(starts))
        # Nothing is known beyond the view, and no path leads there.
        inside = Map(torch.where(self.map.kinds == UNKNOWN, IS_WALL, self.map.kinds), self.map.colors)
        key = obs["key"]
        locks = inside.fitting_locks(key)
        gems = locks & (inside.kinds.roll(1, 1) == IS_GEM)
        locks = torch.where(gems.any(1, keepdim=True), gems, locks)
        targets = torch.where((key == 0).unsqueeze(1), self.map.things_to_take(), locks)
        distance = inside.distances(targets, self.neighbours())
        nearest, action = (distance + self.uniform(*distance.shape) / 2).min(1)  # random among equals
        return self.go(torch.where(nearest < FAR, action, self.circle()))

    def circle(self) -> Tensor:
        """Return actions [B] along a wall in view, or random ones."""
        wander = self.wander()
        if self.task.view_size is None:
            return wander
        radius = self.task.view_size // 2
        ends = self.position.unsqueeze(1) + radius * self.steps
        up, down, left, right = (self.map.kinds.gather(1, ends) == IS_WALL).unbind(1)
        along = torch.where(right & ~down, 1, torch.where(down & ~left, 2, torch.where(left & ~up, 0, 3)))
        free = (
            self.map.kinds.gather(1, (self.position + self.steps[along]).unsqueeze(1)).squeeze(1) == IS_EMPTY
        )
        follows = (up | down | left | right) & free & (self.uniform(self.num_envs) < self.FOLLOWS)
        return torch.where(follows, along, wander)

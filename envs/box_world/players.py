"""Players of BoxWorld.

Axes: B environments, S cells on a side of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player
from .box_world import IS_AGENT, IS_EMPTY, IS_GEM, IS_KEY, IS_LOCK, IS_WALL
from .levels import NUM_COLORS, SIDE

UNKNOWN = -1
FAR = 120
"""Longer than all paths, and an int8."""
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Up, down, left and right, as rows and columns."""


class Planner(Player):
    """Base of players that keep a map and walk on shortest paths."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        view = task.view_size
        # The agent starts in the middle of its map, and sees `view // 2` cells beyond where it can walk.
        self.side = SIDE + 2 if view is None else 2 * (SIDE - 1 + view // 2) + 1
        near = torch.arange(view or 0) - (view or 0) // 2
        self.view = (near.view(-1, 1) * self.side + near).view(-1)
        self.steps = torch.tensor([dy * self.side + dx for dy, dx in MOVES])
        self.kinds = torch.full((self.num_envs, self.side**2), UNKNOWN)
        self.colors = torch.zeros_like(self.kinds)
        self.position = torch.full((self.num_envs,), self.side**2 // 2)

    def look(self, obs: dict[str, Tensor], starts: Tensor) -> None:
        """Enter an observation into the map."""
        image = obs["image"].long().flatten(1, 2)
        if self.task.view_size is None:
            self.position = (image[:, :, 0] == IS_AGENT).long().argmax(1)
            self.kinds, self.colors = image[:, :, 0] * (image[:, :, 0] != IS_AGENT), image[:, :, 1]
            return
        self.position = torch.where(starts, self.side**2 // 2, self.position)
        self.kinds = torch.where(starts.unsqueeze(1), UNKNOWN, self.kinds)
        seen = self.position.unsqueeze(1) + self.view
        self.kinds, self.colors = (
            known.scatter(1, seen, image[:, :, i]) for i, known in enumerate((self.kinds, self.colors))
        )

    def walk(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions [B] towards the nearest of `targets` [B, S * S], and whether there is a path."""
        passable = (self.kinds == IS_EMPTY) | (self.kinds == UNKNOWN)
        distance = flood(targets.view(-1, self.side, self.side), passable.view(-1, self.side, self.side))
        around = distance.flatten(1).gather(1, self.neighbours())
        nearest, action = (around + self.uniform(*around.shape) / 2).min(1)  # random among equals
        return action, nearest < FAR

    def neighbours(self) -> Tensor:
        """Return the cells around the agent, [B, 4]."""
        return self.position.unsqueeze(1) + self.steps

    def go(self, actions: Tensor) -> Tensor:
        """Return actions, which lead to cells that can be walked on, and enter the move into the map."""
        self.position = self.position + self.steps[actions]
        return actions

    def wander(self) -> Tensor:
        """Return random actions [B] that lead to empty cells."""
        return self.random_of(self.kinds.gather(1, self.neighbours()) == IS_EMPTY)

    def things_to_take(self) -> Tensor:
        """Return where keys and gems lie loose, [B, S * S]."""
        beside = self.kinds.roll(-1, 1)
        is_thing = (self.kinds == IS_KEY) | (self.kinds == IS_GEM)
        return is_thing & (beside != IS_LOCK) & (beside != UNKNOWN)

    def fitting_locks(self, key: Tensor) -> Tensor:
        """Return where locks are that the key held [B] opens, [B, S * S]."""
        return (self.kinds == IS_LOCK) & (self.colors == key.unsqueeze(1))

    def good_locks(self) -> Tensor:
        """Return the locks whose boxes are known to lead to the gem, [B, S * S]."""
        kind, color = self.kinds.roll(1, 1), self.colors.roll(1, 1)  # the contents
        lock = self.kinds == IS_LOCK
        useful = torch.zeros(self.num_envs, NUM_COLORS + 1, dtype=torch.int64)
        good = lock & (kind == IS_GEM)
        while True:
            before = good
            useful = useful.scatter_reduce(1, self.colors * good, good.long(), "amax")
            useful[:, 0] = 0
            good = good | (lock & (kind == IS_KEY) & (useful.gather(1, color) > 0))
            if bool((good == before).all()):
                return good


def flood(targets: Tensor, passable: Tensor) -> Tensor:
    """Return the lengths of shortest paths to the nearest target, [B, S, S] int8; FAR without a path."""
    distance = torch.where(targets, 0, FAR).to(torch.int8)
    blocked = torch.where(passable, 0, FAR).to(torch.int8)
    while True:
        padded = torch.nn.functional.pad(distance, (1, 1, 1, 1), value=FAR)
        rows = torch.minimum(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1])
        columns = torch.minimum(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        nearer = torch.maximum(torch.minimum(rows, columns) + 1, blocked)
        following = torch.minimum(distance, nearer)
        if torch.equal(following, distance):
            return distance
        distance = following


class BoxWorldReference(Planner):
    """Remembers all that it saw, and opens a box only if it knows that the box leads to the gem.

    It explores the nearest unknown cell until then. In full view it knows everything at once.
    """

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        self.look(obs, starts)
        key = obs["key"]
        locks = self.fitting_locks(key) & self.good_locks()
        targets = torch.where((key == 0).unsqueeze(1), self.things_to_take(), locks)
        action, found = self.walk(targets)
        explore, possible = self.walk(self.kinds == UNKNOWN)
        action = torch.where(found, action, torch.where(possible, explore, self.wander()))
        return self.go(action)


class BoxWorldMemoryless(Planner):
    """Takes and opens whatever is in view and fits, the box with the gem first. Otherwise it circles.

    Where it sees a wall, it mostly follows it clockwise, and elsewhere it wanders. In full view it opens the
    nearest box that fits, without a thought about what is inside.
    """

    FOLLOWS = 0.8
    """Probability of a step along the wall."""

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        self.look(obs, torch.ones_like(starts))
        key = obs["key"]
        locks = self.fitting_locks(key)
        gems = locks & (self.kinds.roll(1, 1) == IS_GEM)
        locks = torch.where(gems.any(1, keepdim=True), gems, locks)
        targets = torch.where((key == 0).unsqueeze(1), self.things_to_take(), locks)
        passable = self.kinds
        self.kinds = torch.where(self.kinds == UNKNOWN, IS_WALL, self.kinds)
        action, found = self.walk(targets)
        self.kinds = passable
        return self.go(torch.where(found, action, self.circle()))

    def circle(self) -> Tensor:
        """Return actions [B] along a wall in view, or random ones."""
        wander = self.wander()
        if self.task.view_size is None:
            return wander
        radius = self.task.view_size // 2
        ends = self.position.unsqueeze(1) + radius * self.steps
        up, down, left, right = (self.kinds.gather(1, ends) == IS_WALL).unbind(1)
        along = torch.where(right & ~down, 1, torch.where(down & ~left, 2, torch.where(left & ~up, 0, 3)))
        free = self.kinds.gather(1, (self.position + self.steps[along]).unsqueeze(1)).squeeze(1) == IS_EMPTY
        follows = (up | down | left | right) & free & (self.uniform(self.num_envs) < self.FOLLOWS)
        return torch.where(follows, along, wander)

"""What a perfect memory of BoxWorld would do: walk to the right thing on a shortest path, or explore.

Axes: B environments, S cells on a side of a map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .levels import NUM_COLORS

IS_EMPTY, IS_WALL, IS_GEM, IS_KEY, IS_LOCK, IS_AGENT = range(6)
"""Kinds of cells in observations."""
UNKNOWN = -1
FAR = 120
"""Longer than all paths, and an int8."""


class Map(NamedTuple):
    """What is known of the cells, row by row."""

    kinds: Tensor
    """[B, S * S] int64, UNKNOWN where the agent has not looked."""
    colors: Tensor
    """[B, S * S] int64, 0 where there is none."""

    @classmethod
    def unknown(cls, num_envs: int, side: int) -> Map:
        """Return the map of an agent that has not looked anywhere."""
        zeros = torch.zeros(num_envs, side**2, dtype=torch.int64)
        return cls(zeros + UNKNOWN, zeros)

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
        useful = torch.zeros(len(lock), NUM_COLORS + 1, dtype=torch.int64, device=lock.device)
        good = lock & (kind == IS_GEM)
        for _ in range(NUM_COLORS):  # each round adds a color, or none is left
            before = good
            useful = useful.scatter_reduce(1, self.colors * good, good.long(), "amax")
            useful[:, 0] = 0
            good = good | (lock & (kind == IS_KEY) & (useful.gather(1, color) > 0))
            if good.device.type == "cpu" and torch.equal(good, before):
                break
        return good

    def distances(self, targets: Tensor, around: Tensor) -> Tensor:
        """Return the lengths of shortest paths from cells [B, n] to the nearest of `targets` [B, S * S].

        Cells that are not known count as empty.
        """
        passable = (self.kinds == IS_EMPTY) | (self.kinds == UNKNOWN)
        side = int(self.kinds.shape[1] ** 0.5)
        distance = flood(targets.view(-1, side, side), passable.view(-1, side, side))
        return distance.flatten(1).gather(1, around)

    def goals(self, key: Tensor) -> Tensor:
        """Return where an agent that holds a key [B] (0: none) wants to go, [B, S * S].

        To the lock that leads to the gem and that its key opens; without a key, to things that lie loose. If
        it knows of no such cell, to all that are unknown.
        """
        locks = self.fitting_locks(key) & self.good_locks()
        goals = torch.where((key == 0).unsqueeze(1), self.things_to_take(), locks)
        return torch.where(goals.any(1, keepdim=True), goals, self.kinds == UNKNOWN)

    def best_actions(self, around: Tensor, key: Tensor) -> Tensor:
        """Return which actions lead to the nearest goal, [B, 4] bool; none where no goal can be reached.

        Args:
            around: [B, 4] the cells to which the actions lead.
            key: [B] color of the key held; 0 for none.
        """
        distance = self.distances(self.goals(key), around)
        nearest = distance.min(1, keepdim=True).values
        return (distance == nearest) & (nearest < FAR)


def flood(targets: Tensor, passable: Tensor) -> Tensor:
    """Return the lengths of shortest paths to the nearest target, [B, S, S] int8; FAR without a path."""
    distance = torch.where(targets, 0, FAR).to(torch.int8)
    blocked = torch.where(passable, 0, FAR).to(torch.int8)
    for _ in range(FAR):
        padded = torch.nn.functional.pad(distance, (1, 1, 1, 1), value=FAR)
        rows = torch.minimum(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1])
        columns = torch.minimum(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        nearer = torch.maximum(torch.minimum(rows, columns) + 1, blocked)
        following = torch.minimum(distance, nearer)
        if distance.device.type == "cpu" and torch.equal(following, distance):
            break
        distance = following
    return distance

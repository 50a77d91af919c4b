"""Players of the tasks that show a sequence.

Axes: B environments, K keys, V values, T objects, D dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player


class RecallReference(Player):
    """Remembers the symbol."""

    symbol: Tensor | None = None

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        shown = obs[:, :-1].argmax(1)
        self.symbol = shown if self.symbol is None else torch.where(starts, shown, self.symbol)
        return self.symbol


class KeyValueReference(Player):
    """Remembers the last value of each key."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.values = torch.zeros(self.num_envs, task.num_keys, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        K, V = self.task.num_keys, self.task.num_values
        key, value = obs[:, :K].argmax(1), obs[:, K : K + V].argmax(1)
        is_pair = (obs[:, K + V] == 0) & (obs[:, K + V + 1] == 0)
        known = self.values[self.rows, key]
        self.values[self.rows, key] = torch.where(is_pair, value, known)
        return known


class NthFarthestMemoryless(Player):
    """Names m if n asks for the reference itself, and guesses among the other labels if not."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        T = self.task.num_objects
        asked = obs[:, -2 * T :]
        rank, reference = asked[:, :T].argmax(1), asked[:, T:].argmax(1)
        another = (reference + 1 + torch.randint(T - 1, (self.num_envs,), generator=self.generator)) % T
        return torch.where(rank == T - 1, reference, another)


class NthFarthestReference(Player):
    """Remembers all vectors by label, and compares their distances from that of m."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.vectors = torch.zeros(self.num_envs, task.num_objects, task.num_dims)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        T, D = self.task.num_objects, self.task.num_dims
        label, rank, reference = (obs[:, D + i * T : D + (i + 1) * T].argmax(1) for i in range(3))
        self.vectors[self.rows, label] = obs[:, :D]
        differences = self.vectors - self.vectors[self.rows, reference].unsqueeze(1)
        farthest_first = differences.square().sum(2).argsort(dim=1, descending=True)
        return farthest_first[self.rows, rank]

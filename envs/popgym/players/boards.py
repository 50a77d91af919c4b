"""Players of Battleship, MineSweeper and MultiarmedBandit. Axes: B environments, C cells or arms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...players import Player


class Sweep(Player):
    """Tries one cell after the other in a fixed order, so that none is tried twice; for both board tasks."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        size = self.task.board_size
        return torch.stack([self.step // size % size, self.step % size], dim=1)


class BattleshipReference(Player):
    """Shoots at the cell that the most placements of ships cover.

    Placements that cover a miss count nothing, and each hit that one covers multiplies its weight by 100. So
    it hunts where ships have room, and shoots along open hits.
    """

    WEIGHT = 100.0

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        # The player knows the lengths of the ships, and where a ship may lie.
        self.ships = torch.cat(task._placements).float()  # [P, C]
        cells = task.board_size**2
        self.hit, self.missed = (torch.zeros(self.num_envs, cells, dtype=torch.bool) for _ in range(2))
        self.last = torch.zeros(self.num_envs, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        for known, now in ((self.hit, obs == 1), (self.missed, obs == 0)):
            known[self.rows, self.last] |= now & ~starts
            known[starts] = False
        free = self.missed.float() @ self.ships.t() == 0  # [B, P]
        weight = torch.where(free, self.WEIGHT ** (self.hit.float() @ self.ships.t()), 0.0)
        score = weight @ self.ships + 1e-3 * self.uniform(*self.hit.shape)
        self.last = torch.where(self.hit | self.missed, -1.0, score).argmax(1)
        size = self.task.board_size
        return torch.stack([self.last // size, self.last % size], dim=1)


class MineSweeperReference(Player):
    """Opens the square that is least likely to hold a mine, by an estimate from all numbers seen.

    The estimate is the product distribution of largest entropy whose expected numbers of mines are those that
    were seen, found by iterative scaling. It is 0 where a number of 0 proves a square to be safe.
    """

    ROUNDS = 30

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        size = task.board_size
        row, column = torch.arange(size**2) // size, torch.arange(size**2) % size
        near = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
        self.near = near.float()  # [C, C] squares that count for a number
        self.number = torch.zeros(self.num_envs, size**2)
        self.opened = torch.zeros(self.num_envs, size**2, dtype=torch.bool)
        self.last = torch.zeros(self.num_envs, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.opened[self.rows, self.last] |= ~starts
        self.number[self.rows, self.last] = obs.float()
        self.opened[starts] = False
        chance = self.estimate()
        risk = torch.where(self.opened, 2.0, chance + 1e-4 * self.uniform(*chance.shape))
        self.last = risk.argmin(1)
        size = self.task.board_size
        return torch.stack([self.last // size, self.last % size], dim=1)

    def estimate(self) -> Tensor:
        """Return the estimated probability [B, C] of a mine on each square."""
        closed = (~self.opened).float()
        odds = closed * self.task.num_mines / closed.sum(1, keepdim=True)
        for _ in range(self.ROUNDS):
            for square in range(odds.shape[1]):
                seen = self.opened[:, square]
                if not bool(seen.any()):
                    continue
                here = self.near[square] * closed
                odds = scaled(odds, here, self.number[:, square], seen)
            everywhere = torch.full_like(self.number[:, 0], float(self.task.num_mines))
            odds = scaled(odds, closed, everywhere, torch.ones_like(self.opened[:, 0]))
        return odds


def scaled(chance: Tensor, here: Tensor, total: Tensor, where: Tensor) -> Tensor:
    """Multiply the odds of squares by one factor, so that their chances come closer to a total.

    Args:
        chance: [B, C] probabilities.
        here: [B, C] 1 for the squares that count.
        total: [B] the sum that they should have.
        where: [B] bool, the rows to change.
    """
    expected, count = (chance * here).sum(1), here.sum(1)
    factor = (total / expected.clamp(min=1e-9)) * (count - expected).clamp(min=1e-9)
    factor = (factor / (count - total).clamp(min=1e-9)).clamp(0.0, 1e6).unsqueeze(1)
    odds = chance / (1 - chance).clamp(min=1e-9) * factor
    return torch.where(where.unsqueeze(1) & (here > 0), odds / (1 + odds), chance)


class BanditReference(Player):
    """Thompson sampling: draws each arm's chance from what is known of it, and pulls the best one."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.paid, self.failed = (torch.ones(self.num_envs, task.num_arms) for _ in range(2))
        self.last = torch.zeros(self.num_envs, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.paid[self.rows, self.last] += (obs == 1) & ~starts
        self.failed[self.rows, self.last] += (obs == 0) & ~starts
        self.paid[starts], self.failed[starts] = 1.0, 1.0
        # A Beta sample is a ratio of Gamma samples.
        gamma = [torch.ops.aten._standard_gamma(x, self.generator) for x in (self.paid, self.failed)]
        self.last = (gamma[0] / (gamma[0] + gamma[1])).argmax(1)
        return self.last

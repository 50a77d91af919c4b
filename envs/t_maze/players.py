"""Players of the T-mazes. Axes: B environments."""

from __future__ import annotations

import torch
from torch import Tensor

from ..players import Player
from .endless import FORWARD, LEFT
from .passive_active import DOWN, UP
from .passive_active import LEFT as WEST
from .passive_active import RIGHT as EAST


class TMazeMemoryless(Player):
    """Walks to the junction and turns up."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return torch.where(obs[:, 0] == 1, UP, EAST)


class TMazeReference(Player):
    """Fetches the cue, remembers it, and turns at the junction."""

    cue: Tensor | None = None

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        in_corridor = obs[:, 0] == 0
        seen = torch.where(in_corridor, obs[:, 1], 0.0)
        before = torch.zeros_like(seen) if self.cue is None else self.cue.masked_fill(starts, 0.0)
        self.cue = torch.where(seen != 0, seen, before)
        turn = torch.where(self.cue > 0, UP, DOWN)
        walk = torch.where(self.cue == 0, WEST, EAST)
        # In the arm it stays: a second step up or down meets the wall.
        return torch.where(in_corridor, walk, turn)


class EndlessTMazeMemoryless(Player):
    """Walks to the junction and turns left."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return torch.where(obs[:, 3] == 1, LEFT, FORWARD)


class EndlessTMazeReference(Player):
    """Remembers the cue, and turns at the junction; if it is not shown, tries the turn in every cell."""

    cue: Tensor | None = None
    turned: Tensor | None = None

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        has_cue = obs[:, 1:3].sum(1) == 1
        seen = obs[:, 2].long()
        self.cue = seen if self.cue is None else torch.where(has_cue, seen, self.cue)
        if self.task.shows_junction:
            turns = obs[:, 3] == 1
        elif self.task.shows_position and not self.task.uniform:
            turns = obs[:, 0] == 1
        else:
            before = torch.zeros_like(starts) if self.turned is None else self.turned
            turns = ~has_cue & ~before
        self.turned = turns
        return torch.where(turns, self.cue + LEFT, FORWARD)

"""Moves of the ghosts of Mini PacMan.

Axes: B environments, G ghosts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .maze import CHOICES, NOWHERE, NUM_CELLS, Tables

RANDOM_MOVES = 0.05
"""Share of a ghost's choices at junctions that are random."""


class Turn(NamedTuple):
    """What the ghosts did in a step."""

    ghosts: Tensor
    """[B, G] their poses, 4 * cell + direction."""
    eaten: Tensor
    """[B] bool: the player has eaten one."""
    dead: Tensor
    """[B] bool: one has caught the player."""


def move_ghosts(
    ghosts: Tensor,
    player: Tensor,
    power: Tensor,
    level: Tensor,
    running: Tensor,
    chances: Tensor,
    tables: Tables,
) -> Turn:
    """Move ghosts after the player has moved.

    Args:
        ghosts: [B, G] poses.
        player: [B] the player's cell.
        power: [B] steps for which the player is powered.
        level: [B], from 1.
        running: [B] bool, false where the level has just ended, so that nobody meets anybody.
        chances: [B, G] random numbers from 0 to 1.
        tables: of the maze.
    """
    powered, player = (power > 0).unsqueeze(1), player.unsqueeze(1)
    speed = (0.4 + 0.1 * level).unsqueeze(1) / (1 + powered.float())
    # One number says whether a ghost moves, whether at random, and then where to.
    chance = chances / speed.clamp(max=1)
    row = (powered * (4 * NUM_CELLS + 4) + ghosts) * NUM_CELLS + player
    greedy = tables.greedy_step.index_select(0, row.view(-1)).view_as(ghosts)
    choice = (chance * (CHOICES / RANDOM_MOVES)).long().clamp(max=CHOICES - 1)
    random = tables.random_step.index_select(0, (ghosts * CHOICES + choice).view(-1)).view_as(ghosts)
    moved = torch.where((chance < RANDOM_MOVES) & ~powered, random, greedy)
    # A ghost that the player walked into does not move away.
    moved = torch.where((chance < 1) & (ghosts // 4 != player), moved, ghosts)
    met = (moved // 4 == player) & running.unsqueeze(1)
    # The first ghost that is eaten ends the turn of those behind it.
    count = met.long().cumsum(1)
    eaten = met & powered & (count == 1)
    waits = powered & (count > 0)
    ghosts = torch.where(eaten, 4 * NOWHERE, torch.where(waits, ghosts, moved))
    return Turn(ghosts, eaten.any(1), (met & ~powered).any(1))

"""What a memory could know of a level, from the boxes that have been in view.

Axes: B environments, M boxes, S boxes of the longest solution, W cells on a side of the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets

from .levels import DEAD_KEY, GEM, KEY, LOCK, NUM_COLORS

NUM_TARGETS = 2 * (NUM_COLORS + 1) + 2 * NUM_COLORS
SCALE = 6.0
"""Rows and columns that make 1 in the targets."""


def in_view(boxes: Tensor, position: Tensor, width: int, radius: int) -> Tensor:
    """Return whether both cells of boxes are in view, [B, M] bool.

    Args:
        boxes: [B, M] their left cells.
        position: [B] the agent's cell.
        width: W.
        radius: cells that are seen to each side.
    """
    rows = boxes // width - (position // width).unsqueeze(1)
    columns = boxes % width - (position % width).unsqueeze(1)
    return (rows.abs() <= radius) & (columns >= -radius) & (columns < radius)


def known_places(
    grid: Tensor, boxes: Tensor, seen: Tensor, position: Tensor, width: int, max_solution: int
) -> AuxiliaryTargets:
    """Return where the agent would find things that were in view: rows and columns to go, divided by 6.

    The targets are, for the gem and for the keys of all colors, the place of the gem or key; then, for all
    colors, the place of the lock of that color that leads to the gem. The latter has a weight only if all
    boxes from there to the gem have been seen.

    Args:
        grid: [B, W * W] codes.
        boxes: [B, 1 + M] cell of the loose key, and left cells of the boxes, those of the solution first.
        seen: [B, 1 + M] whether they have been in view.
        position: [B] the agent's cell.
        width: W.
        max_solution: S.
    """
    rows = (boxes // width - (position // width).unsqueeze(1)) / SCALE
    columns = (boxes % width - (position % width).unsqueeze(1)) / SCALE
    places = torch.stack([rows, columns], dim=2)

    contents = grid.gather(1, boxes).long()
    colors = torch.where(contents > DEAD_KEY, contents - DEAD_KEY, contents - KEY).clamp(min=0)
    keys = _by_color(places, colors, seen & (contents >= GEM))

    of_solution = slice(1, 1 + max_solution)
    locks = grid.gather(1, boxes[:, of_solution] + 1).long() - LOCK
    is_missing = boxes[:, of_solution] == 0
    known = (seen[:, of_solution] | is_missing).long().flip(1).cumprod(1).flip(1).bool()
    beside = torch.stack([rows[:, of_solution], columns[:, of_solution] + 1 / SCALE], dim=2)
    leading = _by_color(beside, locks.clamp(min=0), known & (locks > 0) & ~is_missing)
    values, weights = zip(keys, (leading[0][:, 1:], leading[1][:, 1:]), strict=True)
    return AuxiliaryTargets(
        torch.cat([x.flatten(1) for x in values], dim=1), torch.cat([x.flatten(1) for x in weights], dim=1)
    )


def _by_color(places: Tensor, colors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return places and weights of things [B, M] by color, [B, 1 + NUM_COLORS, 2] each."""
    weights = known.unsqueeze(2).expand_as(places).float()
    index = colors.unsqueeze(2).expand_as(places)
    empty = torch.zeros(len(colors), NUM_COLORS + 1, 2, device=places.device)
    return empty.scatter_add(1, index, places * weights), empty.scatter_add(1, index, weights)

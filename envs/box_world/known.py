"""What a memory could know of a level, from the cells that have been in view.

Axes: B environments, M boxes, S boxes of the longest solution, W cells on a side of the grid.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rmc_agents.environment import AuxiliaryTargets

from .levels import DEAD_KEY, GEM, KEY, LOCK, NUM_COLORS

Targets = Literal["places", "chain"]
NUM_PLACES = 2 * (NUM_COLORS + 1) + 2 * NUM_COLORS
"""Targets of `known_places`."""
SCALE = 6.0
"""Rows and columns that make 1 in the targets."""
COLOR_WEIGHT = 0.5
"""Weight of each number of a one-hot color, where that of a row or column is 1."""


def count_targets(targets: Targets, max_solution: int) -> int:
    """Return the number of auxiliary targets "places" or "chain"."""
    return NUM_PLACES if targets == "places" else 5 + (NUM_COLORS + 2) * max_solution


class Known(NamedTuple):
    """A level, and what of it was seen."""

    grid: Tensor
    """[B, W * W] codes."""
    boxes: Tensor
    """[B, 1 + M] cell of the loose key, and left cells of the boxes, those of the solution first."""
    seen: Tensor
    """[B, 1 + M] whether they have been in view."""
    position: Tensor
    """[B] the agent's cell."""
    start: Tensor
    """[B] the cell in which its episode began."""
    width: int
    """W."""
    max_solution: int
    """S."""

    def places(self) -> Tensor:
        """Return rows and columns to go to the boxes' left cells, [B, 1 + M, 2], in units of the targets."""
        rows = self.boxes // self.width - (self.position // self.width).unsqueeze(1)
        columns = self.boxes % self.width - (self.position % self.width).unsqueeze(1)
        return torch.stack([rows, columns], dim=2) / SCALE

    def solution(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the boxes of the solution, given `places`.

        Returns:
            [B, S] the colors of their locks, which may be open; [B, S, 2] rows and columns to go to them;
            [B, S] whether the level has so many boxes; [B, S] whether a box is closed, and it and all that
            follow were seen.
        """
        boxes, seen = (x[:, 1 : 1 + self.max_solution] for x in (self.boxes, self.seen))
        colors = self.grid.gather(1, boxes + 1).long() - LOCK
        exists = boxes > 0
        leads = (seen | ~exists).long().flip(1).cumprod(1).flip(1).bool()
        rows, columns = places[:, 1 : 1 + self.max_solution].unbind(2)
        beside = torch.stack([rows, columns + 1 / SCALE], dim=2)
        return colors.clamp(min=0), beside, exists, leads & (colors > 0) & exists


def known_places(known: Known) -> AuxiliaryTargets:
    """Return where the agent would find things that were in view: rows and columns to go, divided by 6.

    The targets are, for the gem and for the keys of all colors, the place of the gem or key; then, for all
    colors, the place of the lock of that color that leads to the gem. The latter has a weight only if all
    boxes from there to the gem have been seen.
    """
    contents = known.grid.gather(1, known.boxes).long()
    colors = torch.where(contents > DEAD_KEY, contents - DEAD_KEY, contents - KEY).clamp(min=0)
    places = known.places()
    keys = _by_color(places, colors, known.seen & (contents >= GEM))
    locks, beside, _, leads = known.solution(places)
    leading = _by_color(beside, locks, leads)
    values, weights = zip(keys, (leading[0][:, 1:], leading[1][:, 1:]), strict=True)
    return AuxiliaryTargets(
        torch.cat([x.flatten(1) for x in values], dim=1), torch.cat([x.flatten(1) for x in weights], dim=1)
    )


def known_chain(known: Known, key: Tensor) -> AuxiliaryTargets:
    """Return what there is to go to, and what leads to the gem, from the gem backwards.

    The targets are rows and columns from the start of the episode; rows and columns to the next goal (the
    lock that the key held opens and that leads to the gem, or else what lies loose), and 1 or -1 as one is
    known or not; then, for each box of the solution from the last to the first, the color of its lock,
    one-hot, and rows and columns to it. Of a box they have a weight only if it is closed, and it and all
    boxes that follow were seen.

    Args:
        known: the level.
        key: [B] color of the key held; 0 for none.
    """
    places = known.places()
    locks, beside, exists, leads = known.solution(places)
    contents = known.grid.gather(1, known.boxes).long()
    right = known.grid.gather(1, known.boxes + 1).long()
    is_loose = known.seen & (contents >= GEM) & ((right <= LOCK) | (right > DEAD_KEY)) & (known.boxes > 0)
    opens = leads & (locks == key.unsqueeze(1))
    holds = (key > 0).unsqueeze(1)
    is_goal = torch.cat([is_loose & ~holds, opens & holds], dim=1)  # one cell at most
    goal = (torch.cat([places, beside], dim=1) * is_goal.unsqueeze(2)).sum(1)
    has_goal = is_goal.any(1, keepdim=True).float()
    (row, column), (first_row, first_column) = (
        (cell // known.width, cell % known.width) for cell in (known.position, known.start)
    )
    gone = torch.stack([row - first_row, column - first_column], dim=1) / SCALE
    values = [gone, goal, 2 * has_goal - 1]
    weights = [torch.ones_like(gone), has_goal.expand(-1, 2), torch.ones_like(has_goal)]

    # Boxes that a level has come first, so the last of them is at its number of boxes minus 1.
    last = exists.sum(1, keepdim=True) - 1
    order = last - torch.arange(known.max_solution, device=key.device)
    index = order.clamp(min=0)
    leads = (leads.gather(1, index) & (order >= 0)).unsqueeze(2).float()
    hot = one_hot(locks.gather(1, index), NUM_COLORS + 1)[:, :, 1:].float()
    place = beside.gather(1, index.unsqueeze(2).expand(-1, -1, 2))
    values.append(torch.cat([hot, place], dim=2).flatten(1))
    weight = torch.cat([torch.full_like(hot, COLOR_WEIGHT), torch.ones_like(place)], dim=2) * leads
    weights.append(weight.flatten(1))
    return AuxiliaryTargets(torch.cat(values, dim=1), torch.cat(weights, dim=1))


def _by_color(places: Tensor, colors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return places and weights of things [B, M] by color, [B, 1 + NUM_COLORS, 2] each."""
    weights = known.unsqueeze(2).expand_as(places).float()
    index = colors.unsqueeze(2).expand_as(places)
    empty = torch.zeros(len(colors), NUM_COLORS + 1, 2, device=places.device)
    return empty.scatter_add(1, index, places * weights), empty.scatter_add(1, index, weights)

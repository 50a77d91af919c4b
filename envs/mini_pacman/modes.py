"""The five games of Mini PacMan: their rewards, and what ends their levels (Weber et al. 2017)."""

from __future__ import annotations

from typing import Literal, NamedTuple

Mode = Literal["regular", "avoid", "hunt", "ambush", "rush"]


class Rules(NamedTuple):
    """The rewards of a mode, and what ends its levels."""

    step: float
    food: float
    pill: float
    ghost: float
    death: float
    level_ends: Literal["food", "pills", "ghosts"]
    level_steps: int | None = None


RULES: dict[Mode, Rules] = {
    "regular": Rules(0, 1, 2, 5, 0, "food"),
    "avoid": Rules(0.1, -0.1, -5, -10, -20, "food", 128),
    "hunt": Rules(0, 0, 1, 10, -20, "ghosts"),
    "ambush": Rules(0, -0.1, 0, 10, -20, "ghosts"),
    "rush": Rules(0, -0.1, 10, 0, 0, "pills"),
}

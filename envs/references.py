"""What scores mean: the mean returns of random actions, of play without a memory, and of reference play."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .players import Player, RandomPlayer
from .popgym.levels import FAMILIES, LEVELS, popgym_id
from .popgym.players.by_family import PLAYERS as OF_POPGYM
from .sequences import players as sequences

STORED = "references.json"
"""File beside this one that holds the scores; `python -m rmc_envs.measure` writes it."""

PLAYERS: dict[str, tuple[type[Player], type[Player]]] = {
    **{family.popgym_id(level): OF_POPGYM[family.FAMILY] for level in LEVELS for family in FAMILIES},
    "rmc/Recall-v0": (RandomPlayer, sequences.RecallReference),
    "rmc/KeyValue-v0": (RandomPlayer, sequences.KeyValueReference),
    "rmc/NthFarthest-v0": (sequences.NthFarthestMemoryless, sequences.NthFarthestReference),
}
"""By id: the player without a memory, and that of the reference."""


class References(NamedTuple):
    """Mean returns in one task."""

    random: float
    """Of uniformly random actions."""
    memoryless: float
    """Of the best play known that uses no more than the observation and the number of the step."""
    reference: float
    """Of a perfect memory, where the task is no more than that, and else of the best play that is known."""

    def normalized(self, score: float) -> float:
        """Return where a score lies between the best play without a memory, 0, and the reference, 1."""
        return (score - self.memoryless) / (self.reference - self.memoryless)


def references(env_id: str) -> References | None:
    """Return what scores mean in a task with the options of its id; None for a task without players.

    Args:
        env_id: such as `rmc/KeyValue-v0`, `popgym-RepeatPreviousEasy-v0` or `rmc/RepeatPreviousEasy-v0`.
    """
    stored = _stored().get(popgym_id(env_id))
    return None if stored is None else References(*(stored[name] for name in References._fields))


@cache
def _stored() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name(STORED)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

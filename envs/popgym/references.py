"""What scores mean: the mean returns of random actions, of play without a memory, and of reference play."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .levels import popgym_id
from .players import boards, cards, cart_pole, pendulum
from .players.base import Player, RandomPlayer

STORED = "references.json"
"""File beside this one that holds the scores; `python -m rmc_envs.popgym.measure` writes it."""


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


PLAYERS: dict[str, tuple[type[Player], type[Player]]] = {
    "RepeatFirst": (cards.RepeatFirstMemoryless, cards.RepeatFirstReference),
    "RepeatPrevious": (cards.RepeatPreviousMemoryless, cards.RepeatPreviousReference),
    "Autoencode": (cards.AutoencodeMemoryless, cards.AutoencodeReference),
    "CountRecall": (cards.CountRecallMemoryless, cards.CountRecallReference),
    "HigherLower": (cards.HigherLowerMemoryless, cards.HigherLowerReference),
    "Concentration": (cards.ConcentrationMemoryless, cards.ConcentrationReference),
    "Battleship": (boards.Sweep, boards.BattleshipReference),
    "MineSweeper": (RandomPlayer, boards.MineSweeperReference),
    "MultiarmedBandit": (RandomPlayer, boards.BanditReference),
    "PositionOnlyCartPole": (cart_pole.CartPoleMemoryless, cart_pole.CartPoleReference),
    "VelocityOnlyCartPole": (cart_pole.CartPoleMemoryless, cart_pole.VelocityOnlyReference),
    "NoisyPositionOnlyCartPole": (cart_pole.CartPoleMemoryless, cart_pole.CartPoleReference),
    "PositionOnlyPendulum": (pendulum.PendulumMemoryless, pendulum.PendulumReference),
    "NoisyPositionOnlyPendulum": (pendulum.PendulumMemoryless, pendulum.NoisyPendulumReference),
}
"""By family: the players without a memory, and those of the reference."""


def references(env_id: str) -> References | None:
    """Return what scores mean in a level of POPGym's tasks; None for any other id.

    Args:
        env_id: such as `popgym-RepeatPreviousEasy-v0` or `rmc/RepeatPreviousEasy-v0`.
    """
    stored = _stored().get(popgym_id(env_id))
    return None if stored is None else References(*(stored[name] for name in References._fields))


@cache
def _stored() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name(STORED)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

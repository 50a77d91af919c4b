"""The players of each family of POPGym's tasks."""

from __future__ import annotations

from ...players import Player, RandomPlayer
from . import boards, cards, cart_pole, pendulum

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
"""By family: the player without a memory, and that of the reference."""

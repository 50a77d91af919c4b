"""Concentration equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cards import ConcentrationMemoryless, ConcentrationReference
from tests.support.popgym_twins import Feed, MakePlayer, State, cards_with, compare

PLAYERS = [RandomPlayer, ConcentrationMemoryless, ConcentrationReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    feed.give(cards_with(state["kinds"][i], "colors" if own.facedown_card == 2 else "ranks"))
    return own.reset()[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-Concentration{level}-v0", start, player, episodes=4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-Concentration{level}-v0", start, player, episodes=120, num_envs=24)

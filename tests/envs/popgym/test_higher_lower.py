"""HigherLower equals POPGym's environment."""

from __future__ import annotations

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cards import HigherLowerMemoryless, HigherLowerReference
from tests.support.popgym_twins import MakePlayer, compare, start_dealing

PLAYERS = [RandomPlayer, HigherLowerMemoryless, HigherLowerReference]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-HigherLower{level}-v0", start_dealing("ranks"), player, episodes=4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-HigherLower{level}-v0", start_dealing("ranks"), player, episodes=120, num_envs=24)

"""RepeatFirst equals POPGym's environment."""

from __future__ import annotations

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cards import RepeatFirstMemoryless, RepeatFirstReference
from tests.support.popgym_twins import MakePlayer, compare, start_dealing

PLAYERS = [RandomPlayer, RepeatFirstMemoryless, RepeatFirstReference]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-RepeatFirst{level}-v0", start_dealing("suits"), player, episodes=4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-RepeatFirst{level}-v0", start_dealing("suits"), player, episodes=120, num_envs=24)


@pytest.mark.parametrize("level", LEVELS)
def test_perfect_memory_scores_one(level: str) -> None:
    returns = compare(
        f"popgym-RepeatFirst{level}-v0", start_dealing("suits"), RepeatFirstReference, episodes=2, num_envs=2
    )
    assert returns == pytest.approx([1.0, 1.0])

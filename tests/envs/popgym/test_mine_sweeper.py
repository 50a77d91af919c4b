"""MineSweeper equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.boards import MineSweeperReference, Sweep
from tests.support.popgym_twins import Feed, MakePlayer, State, compare


class QuickReference(MineSweeperReference):
    ROUNDS = 2


PLAYERS = [RandomPlayer, Sweep, QuickReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    feed.give(state["mines"][i].flatten().nonzero().flatten())
    return own.reset()[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-MineSweeper{level}-v0", start, player, episodes=10)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-MineSweeper{level}-v0", start, player, episodes=240, num_envs=24)

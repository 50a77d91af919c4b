"""PositionOnlyCartPole equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import pytest

from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.base import RandomPlayer
from rmc_envs.popgym.players.cart_pole import CartPoleMemoryless, CartPoleReference
from tests.support.popgym_twins import Feed, MakePlayer, State, cart, compare

PLAYERS = [RandomPlayer, CartPoleMemoryless, CartPoleReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    feed.give(cart(state, i))
    return own.reset()[0]


@pytest.mark.parametrize("level", ["Easy"])
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-PositionOnlyCartPole{level}-v0", start, player, episodes=8, physics=cart)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-PositionOnlyCartPole{level}-v0", start, player, episodes=120, physics=cart, num_envs=24)

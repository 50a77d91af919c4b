"""PositionOnlyCartPole equals POPGym's environment."""

from __future__ import annotations

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cart_pole import CartPoleMemoryless, CartPoleReference
from tests.support.popgym_twins import MakePlayer, cart, compare, start_moving

PLAYERS = [RandomPlayer, CartPoleMemoryless, CartPoleReference]
START = start_moving(cart)


@pytest.mark.parametrize("level", ["Easy"])
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-PositionOnlyCartPole{level}-v0", START, player, episodes=8, physics=cart)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-PositionOnlyCartPole{level}-v0", START, player, episodes=120, physics=cart, num_envs=24)

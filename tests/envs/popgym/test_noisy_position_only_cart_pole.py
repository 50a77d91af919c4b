"""NoisyPositionOnlyCartPole equals POPGym's environment, with the same noise."""

from __future__ import annotations

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cart_pole import CartPoleMemoryless, CartPoleReference
from tests.support.popgym_twins import MakePlayer, cart, compare_noisy

PLAYERS = [RandomPlayer, CartPoleMemoryless, CartPoleReference]
SIGMA = {"Easy": 0.1, "Medium": 0.2, "Hard": 0.3}


def play(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
    env_id = f"popgym-NoisyPositionOnlyCartPole{level}-v0"
    compare_noisy(env_id, SIGMA[level], cart, player, monkeypatch, *sizes)


@pytest.mark.parametrize("level", ["Easy"])
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    play(level, player, monkeypatch, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    play(level, player, monkeypatch, 120, 24)

"""PositionOnlyPendulum equals POPGym's environment."""

from __future__ import annotations

import pytest

from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.pendulum import PendulumMemoryless, PendulumReference
from tests.support.popgym_twins import BoldPlayer, MakePlayer, compare, pendulum, start_moving

PLAYERS = [BoldPlayer, PendulumMemoryless, PendulumReference]
START = start_moving(pendulum)


@pytest.mark.parametrize("level", ["Easy"])
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-PositionOnlyPendulum{level}-v0", START, player, episodes=4, physics=pendulum)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(
        f"popgym-PositionOnlyPendulum{level}-v0", START, player, episodes=120, physics=pendulum, num_envs=24
    )

"""VelocityOnlyCartPole equals POPGym's environment."""

from __future__ import annotations

import pytest
import torch

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cart_pole import CartPoleMemoryless, VelocityOnlyReference
from rmc_envs.popgym.velocity_only_cart_pole import VelocityOnlyCartPole
from tests.support.popgym_twins import MakePlayer, cart, compare, start_moving

PLAYERS = [RandomPlayer, CartPoleMemoryless, VelocityOnlyReference]
START = start_moving(cart)


@pytest.mark.parametrize("level", ["Easy"])
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-VelocityOnlyCartpole{level}-v0", START, player, episodes=8, physics=cart)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-VelocityOnlyCartpole{level}-v0", START, player, episodes=120, physics=cart, num_envs=24)


def test_first_velocities_are_an_option() -> None:
    task = VelocityOnlyCartPole(50, first_velocities=True)
    other = VelocityOnlyCartPole(50)
    cart = task.reset(seed=0), task.state_dict()["cart"]
    torch.testing.assert_close(cart[0], cart[1][[1, 3]].t().float())
    torch.testing.assert_close(other.reset(seed=0), cart[1][[0, 2]].t().float())
    actions = torch.zeros(50, dtype=torch.int64)
    assert torch.equal(task.step(actions).obs, other.step(actions).obs)

"""Battleship equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.battleship import Battleship
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.boards import BattleshipReference, Sweep
from tests.support.popgym_twins import Feed, MakePlayer, State, compare

PLAYERS = [RandomPlayer, Sweep, BattleshipReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    own.np_random = np.random.default_rng(0)
    first = own.reset()[0]
    own.board = state["targets"][i].numpy().astype(np.int8)
    return first


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-Battleship{level}-v0", start, player, episodes=6)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-Battleship{level}-v0", start, player, episodes=120, num_envs=24)


@pytest.mark.parametrize(
    "options",
    [
        {"board_size": 1},
        {"ship_sizes": [11]},
        {"ship_sizes": []},
        {"ship_sizes": [2.0]},
        {"board_size": 2, "ship_sizes": [2, 1, 1]},  # no cell is left that a shot could miss
        {"ship_sizes": 3},
        {"board_size": 6, "ship_sizes": [1] * 6 + [6]},  # six single cells may block all rows and columns
    ],
)
def test_ships_without_certain_room_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{list(options)[-1]}=.*expected"):
        Battleship(**options)


def test_ships_have_their_lengths_and_do_not_overlap() -> None:
    task = Battleship(500, board_size=5, ship_sizes=[3, 2])
    task.reset(seed=0)
    board = task.state_dict()["targets"]
    assert (board.flatten(1).sum(1) == 5).all()
    # Every cell of the board is used, and some ships touch.
    assert board.any(0).all()


def test_ships_are_placed_as_often_at_each_cell_as_in_popgym() -> None:
    task = Battleship(20_000)
    task.reset(seed=0)
    ours = task.state_dict()["targets"].double().mean(0).numpy()
    own: Any = gymnasium.make("popgym-BattleshipMedium-v0", disable_env_checker=True).unwrapped
    own.reset(seed=0)
    boards = np.zeros((3000, *ours.shape))
    for board in boards:
        own.reset()
        board[:] = own.board
    theirs = boards.mean(0)
    variance = ours * (1 - ours) * (1 / 3000 + 1 / 20_000)
    z = (ours - theirs) / variance**0.5
    assert (z**2).mean() < 1.5
    # Counts of neighbouring pairs, which depend on how ships lie beside each other.
    pairs = (boards[:, 1:] * boards[:, :-1]).sum((1, 2))
    board = task.state_dict()["targets"].double().numpy()
    our_pairs = (board[:, 1:] * board[:, :-1]).sum((1, 2))
    error = (pairs.var() / 3000 + our_pairs.var() / 20_000) ** 0.5
    assert abs(pairs.mean() - our_pairs.mean()) < 4 * error

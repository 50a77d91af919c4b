"""MultiarmedBandit equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.boards import BanditReference
from tests.support.popgym_twins import Feed, MakePlayer, Recorder, State, compare

PLAYERS = [RandomPlayer, BanditReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    feed.give(state["chances"][i])
    return own.reset()[0]


def luck(drawn: list[Tensor], i: int) -> list[Any]:
    return [drawn[0][i]]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, "rand")
    compare(f"popgym-MultiarmedBandit{level}-v0", start, player, episodes=4, noise=luck, recorder=recorder)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, "rand")
    compare(
        f"popgym-MultiarmedBandit{level}-v0",
        start,
        player,
        episodes=400,
        num_envs=40,
        noise=luck,
        recorder=recorder,
    )

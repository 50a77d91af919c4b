"""NoisyPositionOnlyPendulum equals POPGym's environment, with the same noise."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.pendulum import NoisyPendulumReference, PendulumMemoryless
from tests.support.popgym_twins import BoldPlayer, Feed, MakePlayer, Recorder, State, compare, pendulum

PLAYERS = [BoldPlayer, PendulumMemoryless, NoisyPendulumReference]
SIGMA = {"Easy": 0.1, "Medium": 0.2, "Hard": 0.3}


def play(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
    sigma, recorder = SIGMA[level], Recorder(monkeypatch, "randn")

    def start(own: Any, feed: Feed, state: State, i: int) -> Any:
        feed.give(
            pendulum(state, i),
            state["drawn"][-1][state["rows"].index(i)] * sigma,
        )
        return own.reset()[0]

    def noise(drawn: list[Tensor], i: int) -> list[Any]:
        return [drawn[0][i] * sigma]

    compare(
        f"popgym-NoisyPositionOnlyPendulum{level}-v0",
        start,
        player,
        *sizes,
        noise=noise,
        recorder=recorder,
        physics=pendulum,
    )


@pytest.mark.parametrize("level", ["Easy"])
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    play(level, player, monkeypatch, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    play(level, player, monkeypatch, 120, 24)

"""CountRecall equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import pytest

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cards import CountRecallMemoryless, CountRecallReference
from tests.support.popgym_twins import Feed, MakePlayer, State, cards_with, compare

PLAYERS = [RandomPlayer, CountRecallMemoryless, CountRecallReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    kind = {2: "colors", 4: "suits", 13: "ranks"}[own.num_distinct_cards]
    for deck in state["shown"][:, i].unbind(1):  # POPGym deals from the end
        feed.give(cards_with(deck, kind)[::-1])  # type: ignore[arg-type]
    return own.reset()[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-CountRecall{level}-v0", start, player, episodes=4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-CountRecall{level}-v0", start, player, episodes=120, num_envs=24)


@pytest.mark.parametrize("level", LEVELS)
def test_counters_score_one(level: str) -> None:
    returns = compare(f"popgym-CountRecall{level}-v0", start, CountRecallReference, episodes=2, num_envs=2)
    assert returns == pytest.approx([1.0, 1.0])

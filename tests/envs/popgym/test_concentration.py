"""Concentration equals POPGym's environment."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.concentration import Concentration
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cards import ConcentrationMemoryless, ConcentrationReference
from tests.support.popgym_twins import Feed, MakePlayer, State, cards_with, compare

PLAYERS = [RandomPlayer, ConcentrationMemoryless, ConcentrationReference]


def start(own: Any, feed: Feed, state: State, i: int) -> Any:
    feed.give(cards_with(state["kinds"][i], "colors" if own.facedown_card == 2 else "ranks"))
    return own.reset()[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-Concentration{level}-v0", start, player, episodes=4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-Concentration{level}-v0", start, player, episodes=120, num_envs=24)


def test_auxiliary_targets_are_the_kinds_of_all_cards_that_were_seen_in_the_episode() -> None:
    env = Concentration(64, kind="ranks")
    env.reset(0)
    known = torch.zeros(64, 52, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        targets = env.auxiliary_targets()
        values, weights = (x.view(64, 52, 13) for x in (targets.values, targets.weights))
        assert torch.equal(weights, known.unsqueeze(2).expand(-1, -1, 13).float())
        assert torch.equal(values.argmax(2), env.state_dict()["kinds"])
        assert bool((values.sum(2) == 1).all())
        step = env.step(torch.randint(52, (64,), generator=generator))
        known = (known | (step.final_obs != 13)) & ~step.done.unsqueeze(1)
    again = Concentration(64, kind="ranks")
    again.load_state_dict(env.state_dict())
    assert torch.equal(again.auxiliary_targets().weights, env.auxiliary_targets().weights)

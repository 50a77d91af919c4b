"""RepeatPrevious equals POPGym's environment."""

from __future__ import annotations

import pytest
import torch

from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.levels import LEVELS
from rmc_envs.popgym.players.cards import RepeatPreviousMemoryless, RepeatPreviousReference
from rmc_envs.popgym.repeat_previous import RepeatPrevious
from tests.support.popgym_twins import MakePlayer, compare, start_dealing

PLAYERS = [RandomPlayer, RepeatPreviousMemoryless, RepeatPreviousReference]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-RepeatPrevious{level}-v0", start_dealing("suits"), player, episodes=4)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("player", PLAYERS)
def test_many_episodes_equal_popgym(level: str, player: MakePlayer) -> None:
    compare(f"popgym-RepeatPrevious{level}-v0", start_dealing("suits"), player, episodes=120, num_envs=24)


@pytest.mark.parametrize("level", LEVELS)
def test_perfect_memory_scores_one(level: str) -> None:
    returns = compare(
        f"popgym-RepeatPrevious{level}-v0",
        start_dealing("suits"),
        RepeatPreviousReference,
        episodes=2,
        num_envs=2,
    )
    assert returns == pytest.approx([1.0, 1.0])


def test_lag_and_decks_are_options() -> None:
    task = RepeatPrevious(3, num_decks=2, k=1)
    obs = task.reset(seed=0)
    total = torch.zeros(3)
    for _ in range(103):
        step = task.step(obs)  # with k = 1, the card in view
        obs, total = step.obs, total + step.reward
    assert step.terminated.all()
    torch.testing.assert_close(total, torch.ones(3))
    assert task.tasks == ("rmc/RepeatPrevious-v0",)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 52}, {"num_decks": 0}, {"k": 2.0}])
def test_invalid_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*expected"):
        RepeatPrevious(**options)

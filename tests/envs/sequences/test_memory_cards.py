"""MemoryCards: the partner of the card in view removes both, and nothing else is ever shown."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_envs import MemoryCards
from rmc_envs.players import RandomPlayer, play
from rmc_envs.sequences.memory_players import MemoryCardsMemoryless, MemoryCardsReference


def faces(obs: torch.Tensor, num_pairs: int) -> torch.Tensor:
    return (obs > 0) & (obs <= num_pairs)


def test_right_answer_removes_the_pair_and_a_wrong_one_hides_the_card() -> None:
    env = MemoryCards(32, num_pairs=3)
    obs = env.reset(seed=0)
    kinds = env.state_dict()["kinds"]
    rows = torch.arange(32)
    assert torch.equal(kinds.sort(1).values, torch.tensor([[1, 1, 2, 2, 3, 3]]).expand(32, -1))
    assert (faces(obs, 3).sum(1) == 1).all()
    card = obs.argmax(1)
    partner = ((kinds == kinds[rows, card][:, None]) & (obs == 0)).long().argmax(1)
    is_right = rows < 16
    step = env.step(torch.where(is_right, partner, card))  # naming the card itself is a mistake
    assert step.reward.tolist() == [0.0] * 16 + [-1.0] * 16
    removed = step.obs == 4
    assert removed[:16].sum(1).tolist() == [2] * 16
    assert removed[rows[:16], card[:16]].all()
    assert removed[rows[:16], partner[:16]].all()
    assert not removed[16:].any()
    shown = faces(step.obs, 3)
    assert (shown.sum(1) == 1).all()
    assert torch.equal(step.obs[shown], kinds[shown])


def test_solver_needs_one_step_per_pair() -> None:
    env = MemoryCards(8, num_pairs=4)
    obs = env.reset(seed=1)
    kinds = env.state_dict()["kinds"]
    for left in range(4, 0, -1):
        shown = faces(obs, 4)
        kind = obs[shown]
        step = env.step(((kinds == kind[:, None]) & ~shown).long().argmax(1))
        assert step.reward.tolist() == [0.0] * 8
        assert step.terminated.tolist() == [left == 1] * 8
        obs = step.obs
    assert torch.equal(step.final_obs, torch.full((8, 8), 5))
    assert step.success.all()
    assert (faces(obs, 4).sum(1) == 1).all()


def test_naming_a_removed_place_is_a_mistake_and_the_limit_truncates() -> None:
    env = MemoryCards(1, num_pairs=2, max_steps=3)
    obs = env.reset(seed=2)
    kinds = env.state_dict()["kinds"]
    card = int(faces(obs, 2)[0].long().argmax())
    partner = next(p for p in range(4) if p != card and kinds[0, p] == kinds[0, card])
    env.step(torch.tensor([partner]))
    for time in (2, 3):
        step = env.step(torch.tensor([partner]))
        assert step.reward.item() == -1
        assert step.truncated.item() == (time == 3)
    assert not step.terminated.item()
    assert (step.final_obs == 3).sum() == 2
    assert (step.obs == 3).sum() == 0


def test_next_card_is_uniform_over_those_left() -> None:
    env = MemoryCards(6000, num_pairs=2)
    obs = env.reset(seed=3)
    counts = torch.bincount(faces(obs, 2).long().argmax(1), minlength=4)
    again = env.step(faces(obs, 2).long().argmax(1)).obs
    later = torch.bincount(faces(again, 2).long().argmax(1), minlength=4)
    for found in (counts, later):
        assert ((found - 1500) ** 2 / 1500).sum() < 3 + 4 * 6**0.5


def test_remembering_makes_fewer_mistakes() -> None:
    env = MemoryCards(200, num_pairs=5)
    means = [play(env, player(env), 200, seed=4).mean().item() for player in PLAYERS]
    assert means[0] < -30
    assert -25 < means[1] < -16
    assert -7 < means[2] < -4


PLAYERS = (RandomPlayer, MemoryCardsMemoryless, MemoryCardsReference)


def test_pictures_show_all_cards_and_the_end() -> None:
    env = MemoryCards(1, num_pairs=1)
    obs = env.reset(seed=5)
    first = env.render(tile_size=16)
    env.step(torch.tensor([int(obs[0].argmin())]))
    assert (env.render(final=True, tile_size=16) != first).any()


@pytest.mark.parametrize("options", [{"num_pairs": 0}, {"num_pairs": 501}, {"max_steps": 0}])
def test_invalid_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*expected"):
        MemoryCards(**options)

"""Shuffled decks hold every card once, in a uniform order."""

from __future__ import annotations

import pytest
import torch

from rmc_envs.popgym.cards import DECK, kinds_of, shuffle
from rmc_envs.popgym.kinds import NUM_KINDS, Kind

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", NUM_KINDS)
@pytest.mark.parametrize("num_decks", [1, 3])
def test_deck_holds_equally_many_cards_of_each_kind(kind: Kind, num_decks: int) -> None:
    kinds = shuffle(20, num_decks, kind, torch.Generator().manual_seed(0), CPU)
    expected = torch.full((20, NUM_KINDS[kind]), DECK * num_decks // NUM_KINDS[kind])
    assert torch.equal(torch.nn.functional.one_hot(kinds).sum(1), expected)
    assert kinds.dtype == torch.int64


def test_kinds_are_those_of_popgyms_cards() -> None:
    cards = torch.tensor([0, 1, 5, 51, 52, 103])
    assert kinds_of(cards, "suits").tolist() == [0, 1, 1, 3, 0, 3]
    assert kinds_of(cards, "ranks").tolist() == [0, 0, 1, 12, 0, 12]
    assert kinds_of(cards, "colors").tolist() == [0, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("kind", NUM_KINDS)
def test_kinds_are_uniform_at_each_place_and_in_each_pair_of_places(kind: Kind) -> None:
    """Chi-square statistics of single places, and of neighbouring places, where cards are not put back."""
    n, K = 30_000, NUM_KINDS[kind]
    kinds = shuffle(n, 1, kind, torch.Generator().manual_seed(1), CPU)
    counts = torch.nn.functional.one_hot(kinds, K).sum(0).double()  # [52, K]
    statistic = ((counts - n / K) ** 2 / (n / K)).sum(1)
    assert abs(statistic.mean() - (K - 1)) < 5 * (2 * (K - 1) / DECK) ** 0.5
    same = 1 / K * (DECK / K - 1) / (DECK - 1) * K  # P(two cards are of one kind)
    share = (kinds[:, ::2] == kinds[:, 1::2]).double().mean()
    assert abs(share - same) < 5 * (same * (1 - same) / (n * DECK / 2)) ** 0.5

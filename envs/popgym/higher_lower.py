"""HigherLower: the agent guesses whether the next card is higher or lower than the one in view.

Axes: B environments, N cards.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from gymnasium import spaces
from torch import Tensor

from .base import Levels
from .cards import DealtCards
from .kinds import RANKS


@final
class HigherLower(DealtCards):
    """N = 52 `num_decks` cards are dealt, one per step; guess whether the next one is higher or lower.

    ## Observation
    `Discrete(13)`: the rank of the card that is dealt now.

    ## Actions
    `Discrete(2)`: 0 says that the next card is higher, and every other number that it is lower.

    ## Reward and end of an episode
    A right guess is rewarded by 1 / N and a wrong one by -1 / N. A card of the same rank rewards nothing. The
    last card terminates the episode, after N - 1 steps.

    ## Levels
    Easy 1 deck (51 steps), Medium 2 decks (103 steps), Hard 3 decks (155 steps).

    ## What a score means
    Random guesses score 0. Guessing "higher" below rank 6 and "lower" above it, without a memory, scores .50
    at every level. Counting the cards that are left scores .53, .52 and .51, so this task hardly separates
    memories.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. Decks are drawn by another generator.
    """

    FAMILY = "HigherLower"
    KIND = "ranks"
    LEVELS: ClassVar[Levels] = {"Easy": {}, "Medium": {"num_decks": 2}, "Hard": {"num_decks": 3}}

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu", num_decks: int = 1) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_decks: number of decks that are shuffled together, from 1 to 1000.

        Raises:
            ValueError: a number out of range.
        """
        super().__init__(
            {"num_decks": num_decks}, num_envs, device, num_decks, spaces.Discrete(RANKS), spaces.Discrete(2)
        )
        self.length = self.num_cards - 1

    def _reward(self, actions: Tensor) -> Tensor:
        step = (self._dealt[self._time + 1] - self._dealt[self._time]).sign()  # 1: the next card is higher
        guess = torch.where(actions == 0, 1, -1)
        return (step * guess).to(torch.float32) * (1 / self.num_cards)

    def _question(self, time: int) -> tuple[str, int | None]:
        return "higher or lower?", None

    def _words(self, action: int) -> str:
        return "higher" if action == 0 else "lower"

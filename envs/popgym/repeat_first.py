"""RepeatFirst: the agent names the suit of the first card at every step.

Axes: B environments, N cards.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from gymnasium import spaces
from torch import Tensor

from .base import Levels
from .cards import DealtCards
from .kinds import SUITS


@final
class RepeatFirst(DealtCards):
    """N = 52 `num_decks` cards are dealt, one per step, and every action should name the suit of the first.

    ## Observation
    `Discrete(4)`: the suit of the card that is dealt now. Nothing marks the first card.

    ## Actions
    `Discrete(4)`: a suit. A number outside the space is a wrong answer.

    ## Reward and end of an episode
    Each answer is rewarded by 1 / (N - 1) if it is right and by -1 / (N - 1) if it is wrong, so that an
    episode's return lies between -1 and 1. The last card terminates the episode, after N - 1 steps.

    ## Levels
    Easy 1 deck (51 steps), Medium 8 decks (415 steps), Hard 16 decks (831 steps).

    ## What a score means
    A random answer is right in one of four cases: -.5. The card in view says little about the first one, so
    naming its suit scores about -.5, too. A memory of one suit scores 1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. Decks are drawn by another generator.
    """

    FAMILY = "RepeatFirst"
    KIND = "suits"
    LEVELS: ClassVar[Levels] = {"Easy": {}, "Medium": {"num_decks": 8}, "Hard": {"num_decks": 16}}

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu", num_decks: int = 1) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_decks: number of decks that are shuffled together, from 1 to 1000.

        Raises:
            ValueError: a number out of range.
        """
        suit = spaces.Discrete(SUITS)
        super().__init__({"num_decks": num_decks}, num_envs, device, num_decks, suit, suit)
        self.length = self.num_cards - 1

    def _reward(self, actions: Tensor) -> Tensor:
        return self._rewards(actions == self._dealt[0], 1 / self.length, -1 / self.length)

    def _question(self, time: int) -> tuple[str, int | None]:
        return "name the first suit", 0

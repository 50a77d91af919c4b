"""Autoencode: the agent watches cards, and then names their suits from the last to the first.

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

PLAY, WATCH = 0, 1


@final
class Autoencode(DealtCards):
    """N = 52 `num_decks` cards are shown, one per step, and then named in the reverse order.

    ## Observation
    `Dict(0: Discrete(2), 1: Discrete(4))`: the mode, 1 to watch and 0 to play, and a suit. While watching it
    is the suit of the card that is dealt now. The mode is 0 as soon as the last card is in view; in all later
    observations both numbers are 0.

    ## Actions
    `Discrete(4)`: a suit. A number outside the space is a wrong answer. While watching, actions do nothing.
    The first answer names the last card, which is in view; the last answer names the first card.

    ## Reward and end of an episode
    Each answer is rewarded by 1 / N if it is right and by -1 / N if it is wrong, so that an episode's return
    lies between -1 and 1. The last answer terminates the episode, after 2 N - 1 steps.

    ## Levels
    Easy 1 deck (103 steps), Medium 2 decks (207 steps), Hard 3 decks (311 steps).

    ## What a score means
    Random answers score -.5. Without a memory only the answer to the card in view is known. A stack of N
    suits scores 1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. POPGym's observation is a `Tuple` of the same two numbers, and decks are drawn by
    another generator.
    """

    FAMILY = "Autoencode"
    KIND = "suits"
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
        suit = spaces.Discrete(SUITS)
        # The parts of a Tuple are named by their place, as where POPGym's own environment is adapted.
        both = spaces.Dict({"0": spaces.Discrete(2), "1": suit})
        super().__init__({"num_decks": num_decks}, num_envs, device, num_decks, both, suit)
        self.length = 2 * self.num_cards - 1

    def _observe(self) -> dict[str, Tensor]:
        last = self.num_cards - 1
        suit = self._dealt[self._time] if self._time <= last else torch.zeros_like(self.task_of)
        mode = WATCH if self._time < last else PLAY
        return {"0": torch.full_like(self.task_of, mode), "1": suit}

    def _reward(self, actions: Tensor) -> Tensor:
        if self._time < self.num_cards - 1:
            return torch.zeros(self.num_envs, device=self.device)
        asked = self._dealt[self.length - 1 - self._time]
        return self._rewards(actions == asked, 1 / self.num_cards, -1 / self.num_cards)

    def _question(self, time: int) -> tuple[str, int | None]:
        if time < self.num_cards - 1:
            return "watch", None
        return "name all suits, the last one first", self.length - 1 - time

    def _is_seen(self, time: int) -> bool:
        return time < self.num_cards

"""RepeatPrevious: the agent names the suit of the card that was dealt some steps ago.

Axes: B environments, N cards.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from gymnasium import spaces
from torch import Tensor

from ..numbers import require_whole
from .base import Levels
from .cards import DECK, MAX_DECKS, DealtCards
from .kinds import SUITS


@final
class RepeatPrevious(DealtCards):
    """N = 52 `num_decks` cards are dealt, one per step; name the suit of the k-th last card.

    ## Observation
    `Discrete(4)`: the suit of the card that is dealt now.

    ## Actions
    `Discrete(4)`: a suit. A number outside the space is a wrong answer. The card in view counts as the first
    of the last k cards, so the answer is the card that was dealt k - 1 steps before it.

    ## Reward and end of an episode
    From the k-th card on, each answer is rewarded by 1 / (N - k) if it is right and by -1 / (N - k) if it is
    wrong, so that an episode's return lies between -1 and 1; earlier actions do nothing. The last card
    terminates the episode, after N - 1 steps.

    ## Levels
    | level | decks | k | steps between a card and its answer | steps of an episode |
    | --- | --- | --- | --- | --- |
    | Easy | 1 | 4 | 3 | 51 |
    | Medium | 2 | 32 | 31 | 103 |
    | Hard | 3 | 64 | 63 | 155 |

    ## What a score means
    Random answers score -.5, and so does naming the suit in view. A queue of k suits scores 1.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.

    ## Differences from POPGym
    None in the rules. Decks are drawn by another generator.
    """

    FAMILY = "RepeatPrevious"
    KIND = "suits"
    LEVELS: ClassVar[Levels] = {
        "Easy": {},
        "Medium": {"num_decks": 2, "k": 32},
        "Hard": {"num_decks": 3, "k": 64},
    }

    def __init__(
        self, num_envs: int = 1, device: str | torch.device = "cpu", num_decks: int = 1, k: int = 4
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_decks: number of decks that are shuffled together, from 1 to 1000.
            k: place of the card to name, counted back from the one in view, which is 1; up to N - 1.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("num_decks", num_decks, 1, MAX_DECKS)
        require_whole("k", k, 1, DECK * num_decks - 1)
        suit = spaces.Discrete(SUITS)
        super().__init__({"num_decks": num_decks, "k": k}, num_envs, device, num_decks, suit, suit)
        self.k, self.length = k, self.num_cards - 1

    def _reward(self, actions: Tensor) -> Tensor:
        asked = self._time + 1 - self.k
        if asked < 0:
            return torch.zeros(self.num_envs, device=self.device)
        scale = 1 / (self.num_cards - self.k)
        return self._rewards(actions == self._dealt[asked], scale, -scale)

    def _question(self, time: int) -> tuple[str, int | None]:
        asked = time + 1 - self.k
        back = self.k - 1
        return f"name the suit {back} card{'s' if back != 1 else ''} ago", asked if asked >= 0 else None

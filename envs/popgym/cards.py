"""Decks of cards: their kinds, batched shuffles, and tasks that deal the cards of one deck.

A deck has 52 cards: card c has suit c mod 4, rank (c mod 52) // 4 and color c mod 2.
Axes: B environments, N cards.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import FullObs
from rmc_agents.errors import shown

from ..numbers import require_whole
from .base import FixedLength
from .kinds import NUM_KINDS, SUITS, Kind, symbol
from .scene import Scene

DECK = 52
"""Number of cards of a deck."""
KEYS = 16
"""A power of two above the number of kinds."""
MAX_DECKS = 1000
"""Largest number of decks that are shuffled together."""


def kinds_of(cards: Tensor, kind: Kind) -> Tensor:
    """Return the suits, ranks or colors of cards, counted from 0."""
    if kind == "ranks":
        return cards % DECK // SUITS
    return cards % NUM_KINDS[kind]


def shuffle(
    batch_size: int,
    num_decks: int,
    kind: Kind,
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    """Return the kinds [B, N] int64 of the cards of shuffled decks, independent in every row."""
    kinds = kinds_of(torch.arange(DECK * num_decks, device=device), kind)
    # Sorting random numbers whose last bits are the kinds takes two thirds of the time of an argsort.
    numbers = torch.randint(
        2**31 // KEYS, (batch_size, len(kinds)), generator=generator, device=device, dtype=torch.int32
    )
    return (numbers * KEYS + kinds.int()).sort(dim=1).values.remainder(KEYS).long()


def require_kind(name: str, kind: object, allowed: tuple[Kind, ...] = get_args(Kind)) -> None:
    """Raise ValueError unless a value is the name of a property of cards."""
    if kind not in allowed:
        raise ValueError(f"{name}={shown(repr(kind), 60)}: expected one of {', '.join(map(repr, allowed))}")


class DealtCards(FixedLength):
    """A task that deals the N cards of shuffled decks, of which one property counts.

    Args:
        options: see `PopgymTask`.
        num_envs: B.
        device: any torch device, including `"meta"`.
        num_decks: number of decks that are shuffled together, from 1 to 1000.
        observation_space: of one environment.
        action_space: of one environment.

    Raises:
        ValueError: a number out of range.
    """

    KIND: ClassVar[Kind]

    def __init__(
        self,
        options: Mapping[str, Any],
        num_envs: int,
        device: str | torch.device,
        num_decks: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        require_whole("num_decks", num_decks, 1, MAX_DECKS)
        super().__init__(options, num_envs, device, observation_space, action_space)
        self.num_decks, self.num_cards = num_decks, DECK * num_decks
        self._dealt = torch.empty(0, 0)  # [N, B] kinds of the cards in the order in which they are dealt

    @abstractmethod
    def _question(self, time: int) -> tuple[str, int | None]:
        """Return what is asked after `time` steps, and the index of the card to name, if there is one."""

    def _words(self, action: int) -> str:
        """Return an action in words."""
        return symbol(self.KIND, action)

    def _is_seen(self, time: int) -> bool:
        """Return whether the agent sees the card that is dealt after `time` steps."""
        return True

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from .pictures import draw_hand  # slow to import, and only needed here

        time, cards = scene.state["time"], scene.state["dealt"][:, scene.i].tolist()
        question, asked = self._question(time)
        answer = f"   said {self._words(scene.actions[-1])} {scene.last}" if scene.last else ""
        asked = None if time >= self.length else asked
        return draw_hand(cards, time, self.KIND, question + answer, asked, tile_size, self._is_seen(time))

    def _draw(self) -> None:
        kinds = shuffle(self.num_envs, self.num_decks, self.KIND, self._generator, self.device)
        self._dealt = kinds.t().contiguous()

    def _observe(self) -> FullObs:
        return self._dealt[self._time]

    def _save(self) -> dict[str, Any]:
        return {"dealt": self._dealt, "time": self._time}

    def _restore(self, state: dict[str, Any]) -> FullObs:
        self._require_rows(state["dealt"].shape[1])
        self._dealt, self._time = self._take(state, "dealt"), state["time"]
        return self._observe()

"""Concentration: the agent turns over two cards at a time and looks for pairs.

Axes: B environments, N cards.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import AuxiliaryTargets, Transition

from ..numbers import require_whole
from .base import Levels, PopgymTask
from .cards import DECK, MAX_DECKS, require_kind, shuffle
from .kinds import NUM_KINDS, Kind
from .scene import Scene

NO_CARD = -1


@final
class Concentration(PopgymTask):
    """N = 52 `num_decks` cards lie face down. A turn flips two of them; a pair of one kind stays face up.

    ## Observation
    `MultiDiscrete([K + 1] * N)`: for each place the kind of its card, or K if it lies face down. Pairs that
    were found are visible, and so are the cards of the current turn, also in the observation that ends it.

    ## Actions
    `Discrete(N)`: flip the card at a place. A number outside the space is an error on a CPU.

    ## Reward and end of an episode
    With L = ceil(2 N - N / (2 N - 1)):

    - The second card of a turn makes a pair with the first: 2 / N.
    - It does not, or it is the first card again: -2 / L, and both are turned face down.
    - A card of a pair is flipped again: -1 / L, or -2 / L as the second card of a turn, and the turn ends.
    - The first card of a turn: 0.

    The last pair terminates the episode, and step L truncates it.

    ## Auxiliary targets
    What a perfect memory would know: for each place and kind, whether the card there is of this kind, once it
    has been seen in the episode; N * K numbers. They are learned with `aux_coef`; POPGym has none.

    ## Levels
    Easy 1 deck by color (K = 2, L = 104), Medium 2 decks by color (K = 2, L = 208), Hard 1 deck by rank
    (K = 13, L = 104).

    ## What a score means
    Uniformly random flips score -.19, -.18 and -.83, flips among the cards that lie face down .45, .47 and
    -.82, and a perfect memory, which flips a known pair whenever it can, .81, .81 and .70.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from POPGym
    None in the rules. Decks are drawn by another generator.
    """

    FAMILY = "Concentration"
    LEVELS: ClassVar[Levels] = {"Easy": {}, "Medium": {"num_decks": 2}, "Hard": {"kind": "ranks"}}

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_decks: int = 1,
        kind: Kind = "colors",
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_decks: number of decks that are shuffled together, from 1 to 1000.
            kind: what makes a pair: colors or ranks. (There are 13 cards of a suit, so one would be left.)

        Raises:
            ValueError: an argument out of range.
        """
        require_whole("num_decks", num_decks, 1, MAX_DECKS)
        require_kind("kind", kind, ("colors", "ranks"))
        self.num_cards, self.num_kinds = DECK * num_decks, NUM_KINDS[kind]
        super().__init__(
            {"num_decks": num_decks, "kind": kind},
            num_envs,
            device,
            spaces.MultiDiscrete([self.num_kinds + 1] * self.num_cards),
            spaces.Discrete(self.num_cards),
        )
        self.num_decks = num_decks
        self.kind: Kind = kind
        self.aux_size = self.num_cards * self.num_kinds
        n = self.num_cards
        self.max_steps = math.ceil(2 * n - n / (2 * n - 1))
        self._each_kind = torch.arange(self.num_kinds, device=self.device)
        self._kinds = torch.empty(0, 0)  # [B, N]
        self._shown = torch.empty(0, 0)  # [B, N] observations without the cards of the current turn
        self._left = self._time = self._first = (
            self.task_of
        )  # [B] pairs to find; steps; first card of the turn
        self._seen = self._kinds  # [B, N] the observations
        self._known = self._none().unsqueeze(1)  # [B, N] whether a card has been seen

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        kinds = shuffle(count, self.num_decks, self.kind, self._generator, self.device)
        left = torch.full_like(kinds[:, 0], self.num_cards // 2)
        hidden, nothing = torch.full_like(kinds, self.num_kinds), torch.zeros_like(kinds, dtype=torch.bool)
        return kinds, hidden, left, torch.zeros_like(left), torch.full_like(left, NO_CARD), nothing, hidden

    def _begin(self) -> Tensor:
        drawn = self._draw(self.num_envs)
        self._kinds, shown, self._left, self._time, self._first, self._known, self._seen = drawn
        self._shown = shown.clone()  # changed in place
        return self._seen

    def _advance(self, actions: Tensor) -> Transition:
        second = self._first >= 0
        places = torch.stack([actions, torch.where(second, self._first, actions)], dim=1)  # [B, 2]
        kinds, shown = self._kinds.gather(1, places), self._shown.gather(1, places)
        found_before = shown[:, 0] != self.num_kinds
        equal = kinds[:, 0] == kinds[:, 1]
        pair = second & equal & (actions != self._first) & ~found_before
        ends_turn = second | found_before
        penalty = torch.where(second, -2 / self.max_steps, -1 / self.max_steps)
        reward = torch.where(pair, 1 / (self.num_cards // 2), torch.where(ends_turn, penalty, 0.0))

        final_obs = self._shown.scatter(1, places, kinds)
        self._shown.scatter_(1, places, torch.where(pair.unsqueeze(1), kinds, shown))
        self._first = torch.where(ends_turn, NO_CARD, actions)
        self._left = self._left - pair.long()
        self._time = self._time + 1
        terminated, truncated = self._left == 0, self._time >= self.max_steps
        self._known = self._known | (final_obs != self.num_kinds)
        state = (self._kinds, self._shown, self._left, self._time, self._first, self._known)
        self._seen = final_obs  # for a picture of the end
        self._seen = self._restart(state, final_obs, terminated | truncated, self._draw)
        return Transition(self._seen, reward, terminated, truncated, final_obs)

    def auxiliary_targets(self) -> AuxiliaryTargets:
        values = (self._kinds.unsqueeze(2) == self._each_kind).float()  # [B, N, K]
        known = self._known.unsqueeze(2).expand_as(values)
        return AuxiliaryTargets(values.flatten(1), known.flatten(1).float())

    def _save(self) -> dict[str, Any]:
        return {
            "kinds": self._kinds.clone(),
            "shown": self._shown.clone(),
            "left": self._left,
            "time": self._time,
            "first": self._first,
            "known": self._known,
            "seen": self._seen,
        }

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["time"]))
        self._kinds, self._shown = self._take(state, "kinds"), self._take(state, "shown")
        self._left, self._time = self._take(state, "left"), self._take(state, "time")
        self._first, self._seen = self._take(state, "first"), self._take(state, "seen")
        # States of older versions do not say what has been seen.
        self._known = self._take(state, "known") if "known" in state else self._seen != self.num_kinds
        return self._seen

    def _picture(self, scene: Scene, tile_size: int) -> NDArray[np.uint8]:
        from ..drawing import BLUE, GREEN, Board  # slow to import, and only needed here
        from .pictures import PER_ROW, draw_card

        seen, found = (scene.state[name][scene.i].tolist() for name in ("seen", "shown"))
        board = Board(-(-self.num_cards // PER_ROW), PER_ROW, tile_size)
        for place, card in enumerate(seen):
            draw_card(board, place, self.kind, None if card == self.num_kinds else card)
            if found[place] != self.num_kinds:
                board.outline(*divmod(place, PER_ROW), GREEN, thickness=2)
            elif card != self.num_kinds:
                board.outline(*divmod(place, PER_ROW), BLUE)
        left, time = (int(scene.state[name][scene.i]) for name in ("left", "time"))
        return board.image(f"pairs to find: {left}   step {time} of {self.max_steps}   {scene.last}")

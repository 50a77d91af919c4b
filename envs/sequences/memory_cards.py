"""Memory cards: one card is shown at each step, and the agent names the place of its partner.

Axes: B environments, P pairs.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.environment import Transition

from ..numbers import require_whole
from ..seeded import SeededTask, restart

HIDDEN = 0


@final
class MemoryCards(SeededTask):
    """P pairs of cards lie face down. One card is shown; if the agent names its partner, the pair is removed.

    ## Rules
    The place of each card is random. At every step one of the cards that are left, drawn uniformly, is face
    up, alone. The agent names a place. If the partner lies there, both cards are removed; otherwise the card
    is turned face down again. Naming a place does not show what lies there.

    ## Observation
    `MultiDiscrete([P + 2] * 2 P)`: for each place 0 (face down), 1 to P (the kind of the card that is face
    up), or P + 1 (removed).

    ## Actions
    `Discrete(2 P)`: a place. A number outside the space is an error on a CPU.

    ## Reward and end of an episode
    0 for the partner, and -1 for any other place, so that the return is minus the number of mistakes.
    Removing the last pair terminates the episode; step `max_steps` truncates it. `success` means that all
    pairs were removed.

    ## What a score means
    Without a memory the best play is to guess among the cards that are face down. A perfect memory names
    every partner that it has seen, and guesses among the other places. Means over 2000 episodes with P = 5,
    10 and 30 are in the guide.

    ## Published
    DTQN (Esslinger et al. 2022) plays P = 5.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device, `num_envs`
    and the actions before it.

    ## Differences from the original
    None in the rules: those of the code of DTQN's authors, whose comments differ from it (they reward a pair
    by 1). It limits P = 5 to 50 steps, which 10 P continues.

    Source: K. Esslinger et al., "Deep Transformer Q-Networks for Partially Observable Reinforcement
    Learning", 2022.
    """

    reports_success = True
    capturable = True

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_pairs: int = 5,
        max_steps: int | None = None,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, including `"meta"`.
            num_pairs: P, from 1 to 500.
            max_steps: steps of an episode at most; None for 10 P.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("num_pairs", num_pairs, 1, 500)
        if max_steps is None:
            max_steps = 10 * num_pairs
        require_whole("max_steps", max_steps, 1, 1_000_000)
        places = 2 * num_pairs
        observation_space = spaces.MultiDiscrete([num_pairs + 2] * places)
        super().__init__("rmc/MemoryCards-v0", num_envs, device, observation_space, spaces.Discrete(places))
        self.num_pairs, self.max_steps = num_pairs, max_steps
        self._removed = num_pairs + 1
        # [B, 2 P]: kinds, from 1 on; 0 or P + 1 where a card was removed; the observations.
        self._kinds = self._lying = self._obs = torch.empty(0, 0)
        self._card = self._left = self._time = self.task_of  # [B] place of the card; pairs left; steps
        # After the latest step and before its autoreset: observations, kinds, places named, which were right.
        self._last: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def _draw(self, count: int) -> tuple[Tensor, ...]:
        places = 2 * self.num_pairs
        order = torch.rand(count, places, generator=self._generator, device=self.device).argsort(1)
        kinds = order // 2 + 1
        card = torch.randint(places, (count,), generator=self._generator, device=self.device)
        lying = torch.full_like(kinds, HIDDEN)
        obs = lying.scatter(1, card.unsqueeze(1), kinds.gather(1, card.unsqueeze(1)))
        return kinds, lying, torch.full_like(card, self.num_pairs), torch.zeros_like(card), card, obs

    def _begin(self) -> Tensor:
        self._kinds, self._lying, self._left, self._time, self._card, self._obs = self._draw(self.num_envs)
        self._last = None
        return self._obs

    def _advance(self, actions: Tensor) -> Transition:
        places = torch.stack([self._card, actions], dim=1)
        kinds = self._kinds.gather(1, places)
        right = (kinds[:, 0] == kinds[:, 1]) & (self._card != actions)
        lying = self._lying.gather(1, places).masked_fill_(right.unsqueeze(1), self._removed)
        self._lying.scatter_(1, places, lying)
        self._left, self._time = self._left - right.long(), self._time + 1

        # The next card: number `drawn` of those that are left.
        chance = torch.rand(self.num_envs, generator=self._generator, device=self.device)
        drawn = (chance * (2 * self._left)).long().unsqueeze(1)
        counted = (self._lying == HIDDEN).cumsum(1)
        card = torch.searchsorted(counted, drawn, right=True).clamp_(max=2 * self.num_pairs - 1)
        self._card, terminated = card.squeeze(1), self._left == 0
        face = self._kinds.gather(1, card).masked_fill_(terminated.unsqueeze(1), self._removed)
        final_obs = self._lying.scatter(1, card, face)

        truncated = self._time >= self.max_steps
        done = terminated | truncated
        self._last = (final_obs, self._kinds.clone(), actions, right)
        state = (self._kinds, self._lying, self._left, self._time, self._card)
        self._obs = restart(state, final_obs, done, self._draw)
        reward = right.to(torch.float32) - 1
        return Transition(self._obs, reward, terminated, truncated, final_obs, terminated)

    def _save(self) -> dict[str, Any]:
        return {
            "kinds": self._kinds.clone(),
            "lying": self._lying.clone(),
            "left": self._left.clone(),
            "time": self._time.clone(),
            "card": self._card.clone(),
            "obs": self._obs,
            "pictures": None if self._last is None else [x.clone() for x in self._last[2:]],
        }

    def _restore(self, state: dict[str, Any]) -> Tensor:
        self._require_rows(len(state["kinds"]))
        self._kinds, self._lying, self._left, self._time, self._card, self._obs = (
            state[name].to(self.device, copy=True)
            for name in ("kinds", "lying", "left", "time", "card", "obs")
        )
        named = state.get("pictures")  # older states lack it
        if named is not None:
            places, right = (x.to(self.device) for x in named)
            self._last = (self._obs, self._kinds, places, right)
        else:
            self._last = None
        return self._obs

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the cards: those that lie face down are dimmed, and the place named is outlined."""
        from ..drawing import FAINT, GREEN, INK, PALETTE, VERMILLION, Board

        obs, kinds, named = self._obs, self._kinds, None
        if self._last is not None and (final or int(self._time[i]) > 0):
            obs, kinds, places, right = self._last
            named = (int(places[i]), bool(right[i]))
        columns = min(2 * self.num_pairs, 10)
        rows = -(-2 * self.num_pairs // columns)
        board = Board(rows, columns, tile_size, background=FAINT)
        down = np.zeros((rows, columns), bool)
        for place, (face, kind) in enumerate(zip(obs[i].tolist(), kinds[i].tolist(), strict=True)):
            row, column = divmod(place, columns)
            if face == self._removed:
                continue
            board.fill(row, column, PALETTE[(kind - 1) % (len(PALETTE) - 1)], inset=0.08)
            board.text(row, column, str(kind), INK)
            down[row, column] = face == HIDDEN
        board.dim(down)
        if named is not None:
            board.outline(*divmod(named[0], columns), GREEN if named[1] else VERMILLION)
        pairs = (int((obs[i] != self._removed).sum()) + 1) // 2
        return board.image(f"{pairs} pairs left")

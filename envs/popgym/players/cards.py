"""Players of the card tasks. Axes: B environments, N cards, K kinds, T steps."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...players import Player
from ..kinds import RANKS, SUITS


class RepeatFirstMemoryless(Player):
    """Names the suit in view at the first step, and later another one, which is more likely to be right.

    Each card is dealt once, so the suit in view is a little less likely for any other card.
    """

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return torch.where(starts, obs, (obs + 1) % SUITS)


class RepeatFirstReference(Player):
    """Remembers the first suit."""

    first: Tensor | None = None

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.first = obs if self.first is None else torch.where(starts, obs, self.first)
        return self.first


class RepeatPreviousMemoryless(Player):
    """Names another suit than the one in view; with k = 1, the one in view."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return obs if self.task.k == 1 else (obs + 1) % SUITS


class RepeatPreviousReference(Player):
    """Remembers the last k suits."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.queue = torch.zeros(self.num_envs, task.k, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.queue = torch.cat([self.queue[:, 1:], obs.unsqueeze(1)], dim=1)
        return self.queue[:, 0]


class AutoencodeMemoryless(Player):
    """Names the suit in view, which is right for the last card."""

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        return obs["1"]


class AutoencodeReference(Player):
    """Remembers all suits, as a stack."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.stack = torch.zeros(self.num_envs, task.num_cards, dtype=torch.int64)

    def choose(self, obs: dict[str, Tensor], starts: Tensor) -> Tensor:
        # All environments are at the same step.
        step, last = int(self.step[0]), self.task.num_cards - 1
        if step <= last:
            self.stack[:, step] = obs["1"]
        return self.stack[:, min(2 * last - step, last)] if step >= last else obs["1"]


class CountRecallMemoryless(Player):
    """Answers with the most likely count, given the step and the kinds dealt and asked for now."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        step = int(self.step[0])  # all environments are at the same step
        cards, of_kind = self.task.length + 1, int(self.task.action_space.n) - 1
        same = 1 + most_likely_count(cards - 1, of_kind - 1, step)
        other = most_likely_count(cards - 1, of_kind, step)
        return torch.where(obs[:, 0] == obs[:, 1], same, other)


@cache
def most_likely_count(cards: int, of_kind: int, drawn: int) -> int:
    """Return the mode of a hypergeometric distribution: how many drawn cards are of one kind."""
    return math.floor((drawn + 1) * (of_kind + 1) / (cards + 2))


class CountRecallReference(Player):
    """Counts all kinds."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.counts = torch.zeros(self.num_envs, task.num_kinds, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.counts = torch.where(starts.unsqueeze(1), 0, self.counts)
        self.counts[self.rows, obs[:, 0]] += 1
        return self.counts[self.rows, obs[:, 1]]


class HigherLowerMemoryless(Player):
    """Says "higher" below the middle rank, and "lower" from it on."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return (obs >= RANKS // 2).long()


class HigherLowerReference(Player):
    """Counts the cards that are left, and names the more likely side."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.full = task.num_cards // RANKS
        self.left = torch.zeros(self.num_envs, RANKS, dtype=torch.int64)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.left = torch.where(starts.unsqueeze(1), self.full, self.left)
        self.left[self.rows, obs] -= 1
        ranks, here = torch.arange(RANKS), obs.unsqueeze(1)
        higher = (self.left * (ranks > here)).sum(1)
        return (higher < (self.left * (ranks < here)).sum(1)).long()


class ConcentrationMemoryless(Player):
    """Flips any card that lies face down."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return self.random_of(obs == self.task.num_kinds)


class ConcentrationReference(Player):
    """Remembers all cards, and flips a known pair whenever there is one, else a card that it has not seen.

    The second card of a turn is the partner of the first if that is known.
    """

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        self.unknown = task.num_kinds
        self.known = torch.full((self.num_envs, task.num_cards), self.unknown)  # [B, N] kinds
        self.found = torch.zeros(self.num_envs, task.num_cards, dtype=torch.bool)
        self.first = torch.full((self.num_envs,), -1)  # [B] first card of the turn; -1 before it
        self.last = torch.zeros(self.num_envs, dtype=torch.int64)  # [B] the last action

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        new = starts.unsqueeze(1)
        self.found = torch.where(new, False, self.found)
        # After the second card of a turn both are in view; if they are equal, they stay there.
        second = (self.first >= 0) & ~starts
        pair = torch.stack([self.first.clamp(min=0), self.last], dim=1)
        equal = obs.gather(1, pair[:, :1]) == obs.gather(1, pair[:, 1:])
        self.found.scatter_(1, pair, self.found.gather(1, pair) | (equal & second.unsqueeze(1)))
        self.known = torch.where(new, self.unknown, self.known)
        self.known = torch.where(obs != self.unknown, obs, self.known)
        self.first = torch.where(starts | second, -1, self.last)

        down = ~self.found
        seen = down & (self.known != self.unknown)
        in_turn = self.first >= 0
        here = torch.nn.functional.one_hot(self.first.clamp(min=0), self.task.num_cards).bool()
        kind = self.known.gather(1, self.first.clamp(min=0).unsqueeze(1))
        partners = seen & (self.known == kind) & ~here
        kinds = torch.nn.functional.one_hot(self.known, self.unknown + 1) * seen.unsqueeze(2)
        paired = (kinds.sum(1) >= 2)[:, : self.unknown]  # [B, K] kinds of which two places are known
        in_pair = seen & torch.nn.functional.pad(paired, (0, 1)).gather(1, self.known)
        unseen = down & (self.known == self.unknown)
        wanted = torch.where(in_turn.unsqueeze(1), partners, in_pair)
        fallback = torch.where(unseen.any(1, keepdim=True), unseen, down & ~(here & in_turn.unsqueeze(1)))
        allowed = torch.where(wanted.any(1, keepdim=True), wanted, fallback)
        self.last = self.random_of(allowed)
        return self.last

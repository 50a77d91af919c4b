"""Players of MemoryCards and MemoryChain. Axes: B environments, P pairs, N bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..players import Player


class MemoryCardsMemoryless(Player):
    """Names one of the cards that are face down."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return self.random_of(obs == 0)


class MemoryCardsReference(Player):
    """Remembers all cards that it has seen, and all mistakes; guesses if it has not seen the partner."""

    def __init__(self, task: Any, seed: int = 0) -> None:
        super().__init__(task, seed)
        kinds, places = task.num_pairs + 1, 2 * task.num_pairs
        self.known = torch.zeros(self.num_envs, places, dtype=torch.int64)  # kind by place; 0 if not known
        self.tried = torch.zeros(self.num_envs, kinds, places, dtype=torch.bool)

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        self.known[starts], self.tried[starts] = 0, False
        is_face = (obs > 0) & (obs <= self.task.num_pairs)
        card = is_face.long().argmax(1)
        kind = obs[self.rows, card]
        self.known[self.rows, card] = kind
        partner = (self.known == kind.unsqueeze(1)) & ~is_face
        unseen = (obs == 0) & (self.known == 0) & ~self.tried[self.rows, kind]
        named = torch.where(partner.any(1), partner.long().argmax(1), self.random_of(unseen))
        self.tried[self.rows, kind, named] = True
        return named


class MemoryChainMemoryless(Player):
    """Names the bit that is asked for if it is in view, and 0 if not."""

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        return (obs[self.rows, 2 + obs[:, 1].long()] > 0).long()


class MemoryChainReference(Player):
    """Remembers the bits."""

    bits: Tensor | None = None

    def choose(self, obs: Tensor, starts: Tensor) -> Tensor:
        shown = obs[:, 2:]
        self.bits = shown if self.bits is None else torch.where(starts.unsqueeze(1), shown, self.bits)
        return (self.bits[self.rows, obs[:, 1].long()] > 0).long()

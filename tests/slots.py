"""A player of the Memory mazes whose memory is known: one slot holds the cue, and it chooses by that."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tests.scripted import BALL, KEY, Plan, Scripted

SLOTS, WIDTH = 4, 3


class Slots(NamedTuple):
    memory: Tensor
    """[B, N, D]."""


class SlotState(NamedTuple):
    memory: Slots
    phase: Tensor


class SlotPlayer:
    """`Scripted`, which keeps the cue as the sign of the first number of one slot; all others hold noise.

    Args:
        slot: which it is, from 1.
        forgetful: choose the upper object, whatever the cue was.
    """

    def __init__(self, slot: int = 2, forgetful: bool = False) -> None:
        self.slot, self.script = slot - 1, Scripted(forgetful)
        self.generator = torch.Generator().manual_seed(0)

    def initial_state(self, batch_size: int) -> SlotState:
        phase = self.script.initial_state(batch_size).phase
        return SlotState(Slots(torch.zeros(batch_size, SLOTS, WIDTH)), phase)

    def act(
        self, obs: dict[str, Tensor], starts: Tensor, reward: Tensor, state: SlotState
    ) -> tuple[Tensor, SlotState]:
        sign = torch.where(starts, 0.0, state.memory.memory[:, self.slot, 0])
        cue = torch.where(sign > 0, BALL, torch.where(sign < 0, KEY, 0))
        action, plan = self.script.act(obs, starts, reward, Plan(state.phase, cue))
        memory = torch.randn(len(starts), SLOTS, WIDTH, generator=self.generator)
        memory[:, self.slot, 0] = 2.0 * (plan.cue == BALL) - 1.0 * (plan.cue > 0)  # 0 before it is known
        return action, SlotState(Slots(memory), plan.phase)

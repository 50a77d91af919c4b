"""A player of the Memory mazes with a known memory: one slot holds the cue and determines the choice."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rmc_agents.evaluation.episodes import Policy
from tests.support.scripted_player import BALL, KEY, Plan, Scripted

SLOTS, WIDTH = 4, 3


class Slots(NamedTuple):
    """Memory of the player."""

    memory: Tensor
    """[B, N, D] slots."""


class SlotState(NamedTuple):
    """State of the player."""

    memory: Slots
    phase: Tensor
    """[B] step of the plan."""


class SlotPlayer(Policy):
    """`Scripted` that keeps the cue as the sign of the first number of one slot; the other slots hold noise.

    Args:
        slot: number of that slot, counted from 1.
        forgetful: go to the upper object regardless of the cue.
    """

    def __init__(self, slot: int = 2, forgetful: bool = False) -> None:
        self.slot, self.script = slot - 1, Scripted(forgetful)
        self.generator = torch.Generator().manual_seed(0)

    def initial_state(self, batch_size: int) -> SlotState:
        phase = self.script.initial_state(batch_size).phase
        return SlotState(Slots(torch.zeros(batch_size, SLOTS, WIDTH)), phase)

    def act(
        self,
        obs: dict[str, Tensor],
        episode_starts: Tensor,
        reward: Tensor,
        state: SlotState,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, SlotState]:
        sign = torch.where(episode_starts, 0.0, state.memory.memory[:, self.slot, 0])
        cue = torch.where(sign > 0, BALL, torch.where(sign < 0, KEY, 0))
        action, plan = self.script.act(obs, episode_starts, reward, Plan(state.phase, cue))
        memory = torch.randn(len(episode_starts), SLOTS, WIDTH, generator=self.generator)
        memory[:, self.slot, 0] = 2.0 * (plan.cue == BALL) - 1.0 * (plan.cue > 0)  # 0 before the cue is seen
        return action, SlotState(Slots(memory), plan.phase)

"""A scripted player of the Memory mazes: it uses only observations, and remembers perfectly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rmc_agents.evaluation.episodes import Policy

LEFT, FORWARD = 0, 2
WALL, KEY, BALL = 2, 5, 6


class Plan(NamedTuple):
    """State of the player."""

    phase: Tensor
    """[R] step of the plan."""
    cue: Tensor
    """[R] object that the player remembers: KEY, BALL, or 0 before it has seen the cue."""


class Scripted(Policy):
    """Turn around, walk until the cue is in view, walk to the junction, and go to the object that matches.

    Args:
        forgetful: go to the upper object regardless of the cue, which is right half the time.
    """

    def __init__(self, forgetful: bool = False) -> None:
        self.forgetful = forgetful

    def initial_state(self, batch_size: int) -> Plan:
        return Plan(torch.zeros(batch_size, dtype=torch.int64), torch.zeros(batch_size, dtype=torch.int64))

    def act(
        self,
        obs: dict[str, Tensor],
        episode_starts: Tensor,
        reward: Tensor,
        state: Plan,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Plan]:
        objects = obs["image"][..., 0].long()  # [R, V, V], the agent at (V // 2, V - 1)
        middle, last = objects.shape[1] // 2, objects.shape[1] - 1
        phase = torch.where(episode_starts, 0, state.phase)
        thing = objects.flatten(1).where((objects.flatten(1) == KEY) | (objects.flatten(1) == BALL), 0)
        thing = thing.amax(1)
        # Phases 0, 1: turn around to the room. 2: walk until the cue is in view. 3: turn around. 4: walk to
        # the wall. 5: look up. 6: turn around to the lower object. 7: walk to it.
        cue = torch.where(phase == 2, thing, state.cue)
        found = (phase == 2) & (thing > 0)
        at_junction = (phase == 4) & (objects[:, middle, last - 1] == WALL)
        matches = (phase == 5) & (self.forgetful | (objects[:, middle, last - 2] == cue))
        turn = (phase < 2) | found | (phase == 3) | at_junction | ((phase == 5) & ~matches) | (phase == 6)
        stay = ((phase == 2) & ~found) | ((phase == 4) & ~at_junction) | matches | (phase == 7)
        return torch.where(turn, LEFT, FORWARD), Plan(torch.where(stay, phase, phase + 1), cue)

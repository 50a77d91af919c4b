"""A player of the Memory mazes that needs no learning: it sees only observations, and remembers perfectly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEFT, FORWARD = 0, 2
WALL, KEY, BALL = 2, 5, 6


class Plan(NamedTuple):
    """Where a row is in its plan, and what it remembers."""

    phase: Tensor
    cue: Tensor


class Scripted:
    """Turn round, walk until the cue is in view, walk to the junction, and go to the object like the cue.

    Args:
        forgetful: go to the upper object, whatever the cue was: right half the time.
    """

    def __init__(self, forgetful: bool = False) -> None:
        self.forgetful = forgetful

    def initial_state(self, batch_size: int) -> Plan:
        return Plan(torch.zeros(batch_size, dtype=torch.int64), torch.zeros(batch_size, dtype=torch.int64))

    def act(self, obs: dict[str, Tensor], starts: Tensor, reward: Tensor, state: Plan) -> tuple[Tensor, Plan]:
        objects = obs["image"][..., 0].long()  # [R, V, V], the agent at (V // 2, V - 1)
        middle, last = objects.shape[1] // 2, objects.shape[1] - 1
        phase = torch.where(starts, 0, state.phase)
        thing = objects.flatten(1).where((objects.flatten(1) == KEY) | (objects.flatten(1) == BALL), 0)
        thing = thing.amax(1)
        # 0, 1: turn round to the room. 2: walk until the cue is in view. 3: turn on, 4: and walk to the wall.
        # 5: look up; 6: turn round to the lower object. 7: go.
        cue = torch.where(phase == 2, thing, state.cue)
        found = (phase == 2) & (thing > 0)
        at_junction = (phase == 4) & (objects[:, middle, last - 1] == WALL)
        matches = (phase == 5) & (self.forgetful | (objects[:, middle, last - 2] == cue))
        turn = (phase < 2) | found | (phase == 3) | at_junction | ((phase == 5) & ~matches) | (phase == 6)
        stay = ((phase == 2) & ~found) | ((phase == 4) & ~at_junction) | matches | (phase == 7)
        return torch.where(turn, LEFT, FORWARD), Plan(torch.where(stay, phase, phase + 1), cue)

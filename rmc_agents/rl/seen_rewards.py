"""What rewards a run has seen so far: whether they tell actions apart.

Axes: T steps of a rollout, B environments.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from rmc_agents.rl.rollout import Rollout
from rmc_agents.training.processes import Processes

PART = "seen_rewards"
"""Key in a checkpoint; older ones lack it."""


class SeenRewards(NamedTuple):
    """Rewards of all rollouts so far, in all processes."""

    lowest: float = math.inf
    highest: float = -math.inf
    terminated: bool = False
    """Whether an episode terminated. Truncated episodes do not count: their values continue."""

    @property
    def tell_actions_apart(self) -> bool:
        """Whether returns can differ: two rewards did, or an episode with rewards other than 0 terminated."""
        return self.lowest < self.highest or (self.terminated and self.highest != 0)

    def with_rollout(self, rollout: Rollout, processes: Processes) -> SeenRewards:
        """Return what has been seen after a rollout; all processes call it, each with its own [T, B]."""
        rewards = rollout.rewards[rollout.valid]
        own = self
        if rewards.numel():
            lowest, highest = (x.item() for x in rewards.aminmax())
            ended = bool((rollout.terminated & rollout.valid).any())
            own = SeenRewards(min(self.lowest, lowest), max(self.highest, highest), self.terminated or ended)
        parts = processes.gather(list(own))
        return SeenRewards._make(processes.broadcast(None if parts is None else _union(parts)))


def _union(parts: list[list[Any]]) -> list[Any]:
    lowest, highest, terminated = zip(*parts, strict=True)
    return [min(lowest), max(highest), any(terminated)]


def read_seen_rewards(saved: Any) -> SeenRewards:
    """Return what a checkpoint says; a run saved before that was recorded has seen enough.

    Raises:
        TypeError, ValueError: it is of another form.
    """
    if saved is None:
        return SeenRewards(-math.inf, math.inf, True)
    seen = SeenRewards._make(saved)
    if [type(x) for x in seen] != [float, float, bool] or any(map(math.isnan, seen[:2])):
        raise ValueError(f"seen rewards {saved!r:.80}: expected two numbers and a flag")
    return seen

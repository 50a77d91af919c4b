"""Statistics of the episodes that ended within a rollout, computed on the device.

Axes: T steps, B environments, K tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rmc_agents.rl.rollout import Rollout

WINDOW_EPISODES = 1000
"""Figures of the latest episodes cover at least this many, if there are that many."""


class EpisodeAccumulator(NamedTuple):
    """Sums over the episodes that have not ended yet."""

    returns: Tensor
    """[B] float64 sum of rewards so far."""
    lengths: Tensor
    """[B] int64 steps so far."""


class EpisodeStats(NamedTuple):
    """Sums over the episodes that ended, by task."""

    episodes: Tensor
    """[K] float64 number of episodes."""
    returns: Tensor
    """[K] float64 sum of returns."""
    lengths: Tensor
    """[K] float64 sum of lengths, in steps."""
    successes: Tensor
    """[K] float64 number of solved episodes."""


class EpisodeWindow:
    """Window over the latest episodes: per iteration their number, number solved, and sum of returns."""

    def __init__(self, sums: Iterable[tuple[float, float, float]] = ()) -> None:
        self._sums = deque(sums)

    def __iter__(self) -> Iterator[tuple[float, float, float]]:
        return iter(self._sums)

    def add(self, count: float, solved: float, returns: float) -> None:
        """Add the episodes of an iteration, and drop the oldest iterations that are no longer needed."""
        self._sums.append((count, solved, returns))
        while sum(n for n, _, _ in self._sums) - self._sums[0][0] >= WINDOW_EPISODES:
            self._sums.popleft()

    def score(self, at_least: int = WINDOW_EPISODES // 10) -> tuple[float, float] | None:
        """Return success rate and mean return; None with fewer than `at_least` episodes."""
        count = sum(n for n, _, _ in self._sums)
        if count < max(at_least, 1):
            return None
        return sum(s for _, s, _ in self._sums) / count, sum(r for _, _, r in self._sums) / count

    def latest(self) -> tuple[float, float] | None:
        """Return success rate and mean return of the latest iteration in which episodes ended."""
        if not self._sums:
            return None
        count, solved, returns = self._sums[-1]
        return solved / count, returns / count


def initial_accumulator(num_envs: int, device: torch.device | str) -> EpisodeAccumulator:
    """Return the accumulator before the first step."""
    return EpisodeAccumulator(
        torch.zeros(num_envs, dtype=torch.float64, device=device),
        torch.zeros(num_envs, dtype=torch.int64, device=device),
    )


def episode_stats(
    rollout: Rollout, running: EpisodeAccumulator, task_of: Tensor, num_tasks: int
) -> tuple[EpisodeStats, EpisodeAccumulator]:
    """Return sums over the episodes that ended in a rollout, and the accumulator after it.

    Args:
        rollout: T steps; filler steps (`valid` false) do not count.
        running: the accumulator before the rollout.
        task_of: [B] int64, the task of each environment.
        num_tasks: K.
    """
    valid = rollout.valid
    ended = (rollout.terminated | rollout.truncated) & valid
    returns, returns_left = _segment_sums((rollout.rewards * valid).double(), ended, running.returns)
    lengths, lengths_left = _segment_sums(valid.long(), ended, running.lengths)

    def by_task(x: Tensor) -> Tensor:
        sums = torch.where(ended, x.double(), 0.0).sum(0)
        return torch.zeros(num_tasks, dtype=torch.float64, device=x.device).index_add(0, task_of, sums)

    stats = EpisodeStats(by_task(ended), by_task(returns), by_task(lengths), by_task(rollout.success))
    return stats, EpisodeAccumulator(returns_left, lengths_left)


def _segment_sums(x: Tensor, ended: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums of x [T, B] since the last end, including `before` [B], and the remainder [B]."""
    steps = torch.arange(1, x.shape[0] + 1, device=x.device).unsqueeze(1)
    total = torch.cat([torch.zeros_like(before).unsqueeze(0), x.cumsum(0)])  # [T + 1, B]
    last_end = torch.where(ended, steps, 0).cummax(0).values  # steps up to and including the last end
    last_end = torch.cat([torch.zeros_like(last_end[:1]), last_end])  # [T + 1, B]; row t: before step t
    sums = total - total.gather(0, last_end) + torch.where(last_end == 0, before, 0)
    upto = total[1:] - total.gather(0, last_end[:-1]) + torch.where(last_end[:-1] == 0, before, 0)
    return upto, sums[-1]

"""Curriculum: half of the environments play the easiest task of a mixture that is not solved yet.

An agent often learns a hard task only through a slightly easier one. With fixed shares, the data of that
task is outweighed by tasks that are solved already, and by tasks that are still too hard to give any reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SOLVED_RATE = 0.85
"""Success rate from which a task counts as solved."""
FRONTIER_SHARE = 0.5
"""Share of the environments that play the frontier; the other tasks share the rest equally."""
HALF_LIFE = 200
"""Episodes of a task after which older ones count half."""


@dataclass
class Curriculum:
    """Tasks in order of difficulty, and the success in each."""

    num_tasks: int
    episodes: list[float] = field(default_factory=list)
    """Number of episodes per task, weighted by recency."""
    solved: list[float] = field(default_factory=list)
    """Number of solved episodes per task, weighted alike."""

    def __post_init__(self) -> None:
        if self.num_tasks < 2:
            raise ValueError(f"a curriculum of {self.num_tasks} task: give at least two, easiest first")
        # A checkpoint may hold anything; these must be numbers.
        self.episodes = [float(count) for count in self.episodes] or [0.0] * self.num_tasks
        self.solved = [float(count) for count in self.solved] or [0.0] * self.num_tasks
        if not len(self.episodes) == len(self.solved) == self.num_tasks:
            raise ValueError(
                f"figures of {len(self.episodes)} and {len(self.solved)} tasks for {self.num_tasks}"
            )

    def add(self, episodes: Sequence[float], solved: Sequence[float]) -> None:
        """Add the episodes that ended: [K] numbers per task."""
        for task, (count, good) in enumerate(zip(episodes, solved, strict=True)):
            keep = 0.5 ** (count / HALF_LIFE)
            self.episodes[task] = keep * self.episodes[task] + count
            self.solved[task] = keep * self.solved[task] + good

    @property
    def frontier(self) -> int:
        """The first task that is not solved; the last one if all are solved."""
        for task in range(self.num_tasks):
            if self.episodes[task] < HALF_LIFE / 4 or self.solved[task] < SOLVED_RATE * self.episodes[task]:
                return task
        return self.num_tasks - 1

    def assign(self, task_of: Sequence[int]) -> list[int]:
        """Return the task of each environment from now on, changing as few of `task_of` [B] as possible."""
        wanted = counts(self.frontier, self.num_tasks, len(task_of))
        assigned = list(task_of)
        spare = []
        for row, task in enumerate(task_of):
            if wanted[task]:
                wanted[task] -= 1
            else:
                spare.append(row)
        missing = [task for task, count in enumerate(wanted) for _ in range(count)]
        for row, task in zip(spare, missing, strict=True):
            assigned[row] = task
        return assigned


def counts(frontier: int, num_tasks: int, num_envs: int) -> list[int]:
    """Return the number of environments per task: at least one each, the frontier gets what is left."""
    others = max(1, int((1 - FRONTIER_SHARE) * num_envs / (num_tasks - 1)))
    numbers = [others] * num_tasks
    numbers[frontier] = num_envs - others * (num_tasks - 1)
    return numbers

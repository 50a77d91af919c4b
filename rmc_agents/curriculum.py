"""Which tasks of a mixture the environments play: most of them the easiest one that is not solved yet.

What an agent needs for a hard task it can often find only in one a little easier. In a mixture with fixed
shares that task is drowned by those solved already, in which the next idea earns nothing, and by those still
too hard, in which it earns nothing yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SOLVED = 0.85
"""Share of its latest episodes that an agent solves in a task it has learned."""
FRONTIER_SHARE = 0.5
"""Share of the environments that play the frontier; the other tasks have equal parts of the rest."""
MEMORY = 200
"""After so many episodes of a task the older ones count half."""


@dataclass
class Curriculum:
    """Tasks in the order of their difficulty, and how well each goes."""

    num_tasks: int
    episodes: list[float] = field(default_factory=list)
    """Of each task, the older the less they count."""
    solved: list[float] = field(default_factory=list)
    """How many of those were solved."""

    def __post_init__(self) -> None:
        if self.num_tasks < 2:
            raise ValueError(f"a curriculum of {self.num_tasks} task: give at least two, the easiest first")
        # Numbers, whatever a checkpoint says.
        self.episodes = [float(count) for count in self.episodes] or [0.0] * self.num_tasks
        self.solved = [float(count) for count in self.solved] or [0.0] * self.num_tasks
        if not len(self.episodes) == len(self.solved) == self.num_tasks:
            raise ValueError(
                f"figures of {len(self.episodes)} and {len(self.solved)} tasks for {self.num_tasks}"
            )

    def add(self, episodes: Sequence[float], solved: Sequence[float]) -> None:
        """Take in the episodes that ended, [K] of each task."""
        for task, (count, good) in enumerate(zip(episodes, solved, strict=True)):
            keep = 0.5 ** (count / MEMORY)
            self.episodes[task] = keep * self.episodes[task] + count
            self.solved[task] = keep * self.solved[task] + good

    @property
    def frontier(self) -> int:
        """The first task that is not solved; the last one if all are."""
        for task in range(self.num_tasks):
            if self.episodes[task] < MEMORY / 4 or self.solved[task] < SOLVED * self.episodes[task]:
                return task
        return self.num_tasks - 1

    def deal(self, task_of: Sequence[int]) -> list[int]:
        """The task of each environment from here on; as few as possible of `task_of` [B] change."""
        wanted = counts(self.frontier, self.num_tasks, len(task_of))
        dealt = list(task_of)
        spare = []
        for row, task in enumerate(task_of):
            if wanted[task]:
                wanted[task] -= 1
            else:
                spare.append(row)
        missing = [task for task, count in enumerate(wanted) for _ in range(count)]
        for row, task in zip(spare, missing, strict=True):
            dealt[row] = task
        return dealt


def counts(frontier: int, num_tasks: int, num_envs: int) -> list[int]:
    """How many environments play each task: every one has at least one, the frontier what is left."""
    others = max(1, int((1 - FRONTIER_SHARE) * num_envs / (num_tasks - 1)))
    numbers = [others] * num_tasks
    numbers[frontier] = num_envs - others * (num_tasks - 1)
    return numbers

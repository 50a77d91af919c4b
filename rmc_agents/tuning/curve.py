"""The score of a run: its learning curve at fixed steps, and one number for the whole curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, get_args

from rmc_agents.errors import UsageError
from rmc_agents.training.callbacks import Callback

ScoreName = Literal["area", "final"]

Report = Callable[[int, float], bool]
"""Takes the number of a point, from 0, and its value; returns whether to end the run."""


class LearningCurve(Callback):
    """Learning curve of a run, at equal distances of steps.

    A point is the success rate where the task reports one, else the mean return: of the evaluation that is
    due there or, without evaluations, of the training episodes since the point before. If no episode has
    ended since, the point is that before it; if none ever has, it is None.

    Args:
        points: number of points; the last one is at the end of the budget.
        report: called with each new point that has a value.
        tasks: environment ids whose episodes count; all if none of them is trained in.
        evaluated: whether the trainer evaluates the agent at these points.
    """

    def __init__(
        self, points: int, report: Report, tasks: Sequence[str] = (), evaluated: bool = False
    ) -> None:
        self.num_points, self.report, self.tasks, self.evaluated = points, report, tasks, evaluated
        self.points: list[float | None] = []
        self.stopped = False
        self._recent: list[float] = []

    def on_iteration(self, trainer: Any, figures: dict[str, float]) -> bool:
        value = evaluation_score(figures) if self.evaluated else self._training_score(trainer, figures)
        if value is not None:
            self._recent.append(value)
        due = min(trainer.steps * self.num_points // trainer.config.total_steps, self.num_points)
        if due <= len(self.points):
            return True
        self._add(due)
        value = self.points[-1]
        self.stopped = value is not None and self.report(due - 1, value)
        return not self.stopped

    def complete(self) -> list[float]:
        """Return the points that have values, of a run that has ended: one that reached its target early
        keeps its last value for the rest of the budget.

        Raises:
            UsageError: no episode has ended.
        """
        if len(self.points) < self.num_points:
            self._add(self.num_points)
        known = [value for value in self.points if value is not None]
        if not known:
            raise UsageError("no episode has ended, so there is no score: raise total_steps")
        return known

    def _add(self, number: int) -> None:
        """Extend the curve to so many points."""
        latest = self.points[-1] if self.points else None
        if self._recent:
            latest = self._recent[-1] if self.evaluated else fmean(self._recent)
        self.points += [latest] * (number - len(self.points))
        self._recent = []

    def _training_score(self, trainer: Any, figures: Mapping[str, float]) -> float | None:
        trained = trainer.env.tasks
        own = [task for task in self.tasks if task in trained] if len(trained) > 1 else []
        return training_score(figures, own)


def evaluation_score(figures: Mapping[str, float]) -> float | None:
    """Return the success rate of an evaluation, or its mean return; None without an evaluation."""
    return figures.get("eval/success_rate", figures.get("eval/mean_reward"))


def training_score(figures: Mapping[str, float], tasks: Sequence[str] = ()) -> float | None:
    """Return the success rate of an iteration's episodes, or their mean return; None if none has ended.

    Args:
        figures: of the iteration.
        tasks: those that count, of several that are trained in; all if empty. Returns are those of all.
    """
    if tasks and "rollout/success_rate" in figures:
        tags = [f"rollout/success_rate/{task}" for task in tasks]
        rates = [figures[tag] for tag in tags if tag in figures]
        return fmean(rates) if rates else None
    return figures.get("rollout/success_rate", figures.get("rollout/ep_rew_mean"))


def score_of(points: Sequence[float], name: ScoreName) -> float:
    """Return the score of a learning curve: the mean of its points ("area"), or the last one ("final").

    Raises:
        ValueError: an unknown name.
    """
    if name not in get_args(ScoreName):
        raise ValueError(f"score must be one of {get_args(ScoreName)}, got {name!r}")
    return fmean(points) if name == "area" else points[-1]

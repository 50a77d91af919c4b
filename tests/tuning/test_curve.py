"""Learning curves and scores of runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rmc_agents.errors import UsageError
from rmc_agents.tuning.curve import LearningCurve, score_of, training_score

REWARD, SUCCESS = "rollout/ep_rew_mean", "rollout/success_rate"


class Reports(list[tuple[int, float]]):
    """Reported points; `stop_at` ends the run at that one."""

    stop_at = -1

    def __call__(self, number: int, value: float) -> bool:
        self.append((number, value))
        return number == self.stop_at


def play(
    curve: LearningCurve, rows: list[dict[str, float]], total: int, tasks: tuple[str, ...] = ("a",)
) -> None:
    """Let a run of 10 steps an iteration report the figures of each iteration, until the curve ends it."""
    for i, figures in enumerate(rows, 1):
        env: Any = SimpleNamespace(tasks=tasks)
        trainer = SimpleNamespace(steps=10 * i, config=SimpleNamespace(total_steps=total), env=env)
        if curve.on_iteration(trainer, figures) is False:
            return


def test_points_are_means_of_the_iterations_between_them() -> None:
    reports = Reports()
    curve = LearningCurve(2, reports)
    play(curve, [{REWARD: value} for value in (1, 3, 5, 9)], 40)
    assert curve.complete() == [2.0, 7.0]
    assert reports == [(0, 2.0), (1, 7.0)]


def test_success_comes_before_return() -> None:
    curve = LearningCurve(1, Reports())
    play(curve, [{REWARD: 9.0, SUCCESS: 0.25}], 10)
    assert curve.complete() == [0.25]


def test_iterations_longer_than_a_point_fill_several() -> None:
    reports = Reports()
    curve = LearningCurve(4, reports)
    play(curve, [{REWARD: 1.0}, {REWARD: 2.0}], 20)
    assert curve.complete() == [1.0, 1.0, 2.0, 2.0]
    assert reports == [(1, 1.0), (3, 2.0)]


def test_points_without_an_episode_keep_the_one_before() -> None:
    curve = LearningCurve(4, Reports())
    play(curve, [{}, {REWARD: 1.0}, {}, {REWARD: 3.0}], 40)
    assert curve.points == [None, 1.0, 1.0, 3.0]
    assert curve.complete() == [1.0, 1.0, 3.0]


def test_run_that_reached_its_target_keeps_its_last_value() -> None:
    curve = LearningCurve(4, Reports())
    play(curve, [{SUCCESS: 0.5}, {SUCCESS: 0.75}, {SUCCESS: 1.0}], 60)
    assert curve.points == [0.625, 1.0]
    assert curve.complete() == [0.625, 1.0, 1.0, 1.0]


def test_run_without_an_episode_has_no_score() -> None:
    curve = LearningCurve(2, Reports())
    play(curve, [{}, {}], 20)
    with pytest.raises(UsageError, match=r"no episode has ended.*total_steps"):
        curve.complete()


def test_report_may_end_the_run() -> None:
    reports = Reports()
    reports.stop_at = 1
    curve = LearningCurve(4, reports)
    play(curve, [{REWARD: float(i)} for i in range(4)], 40)
    assert curve.stopped
    assert curve.points == [0.0, 1.0]


def test_evaluations_are_scored_instead_of_training() -> None:
    curve = LearningCurve(2, Reports(), evaluated=True)
    rows = [{REWARD: 9.0}, {"eval/mean_reward": 1.0}, {SUCCESS: 1.0}, {"eval/mean_reward": 3.0}]
    play(curve, rows, 40)
    assert curve.complete() == [1.0, 3.0]


def test_only_episodes_of_the_tasks_count_in_a_mixture() -> None:
    figures = {SUCCESS: 0.5, f"{SUCCESS}/a": 0.25, f"{SUCCESS}/b": 0.75, REWARD: 1.0}
    assert training_score(figures, ["a"]) == 0.25
    assert training_score(figures, ["a", "b"]) == 0.5
    assert training_score({SUCCESS: 0.5, f"{SUCCESS}/b": 0.5}, ["a"]) is None
    assert training_score({REWARD: 1.0}, ["a"]) == 1.0
    curve = LearningCurve(1, Reports(), tasks=["a", "elsewhere"])
    play(curve, [figures], 10, tasks=("a", "b"))
    assert curve.complete() == [0.25]


def test_score_is_the_area_or_the_end() -> None:
    assert score_of([0.0, 0.5, 1.0], "area") == 0.5
    assert score_of([0.0, 0.5, 1.0], "final") == 1.0
    with pytest.raises(ValueError, match="score must be one of"):
        score_of([1.0], "best")  # type: ignore[arg-type]

"""Learning curves: reading damaged logs, and combining runs into bands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rmc_agents.evaluation.curves import Curve, band, read_log, success_curve


def log(folder: Path, *lines: dict[str, object] | str) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "log.jsonl").write_text("\n".join(text))
    return folder


def test_read_log_skips_unreadable_lines_and_values(tmp_path: Path) -> None:
    curves = read_log(
        log(
            tmp_path,
            {"step": 10, "a": 0.5, "b": 1},
            {"step": 20, "note": "something happened"},
            {"step": 30, "a": None, "b": 2},
            '{"step": 40, "a": NaN, "b": Infinity}',
            {"step": 50, "a": 0.75},
            "[1]",
            '{"step": 60, "a": 0.',
        )
    )
    assert set(curves) == {"a", "b"}
    assert (curves["a"].steps.tolist(), curves["a"].values.tolist()) == ([10, 50], [0.5, 0.75])
    assert (curves["b"].steps.tolist(), curves["b"].values.tolist()) == ([10, 30], [1, 2])
    assert read_log(tmp_path / "none") == {}


def test_read_log_keeps_the_later_of_two_values_of_a_step(tmp_path: Path) -> None:
    curves = read_log(log(tmp_path, {"step": 20, "a": 1}, {"step": 10, "a": 2}, {"step": 20, "a": 3}))
    assert curves["a"].values.tolist() == [2, 3]


def test_success_curve_prefers_the_tasks_own_success_rate(tmp_path: Path) -> None:
    mixed = {"step": 1, "rollout/success_rate": 0.5, "rollout/success_rate/A": 0.25}
    curves = read_log(log(tmp_path, mixed))
    for env_id, value in (("A", 0.25), ("B", 0.5)):
        curve = success_curve(curves, env_id)
        assert curve is not None
        assert curve.values.tolist() == [value]
    assert success_curve({}, "A") is None


def test_curve_keeps_its_last_value() -> None:
    curve = Curve.of([10, 20], [1, 2])
    np.testing.assert_array_equal(curve.at(np.array([5.0, 10, 19, 20, 99])), [np.nan, 1, 1, 2, 2])


def test_smoothed_curve_is_the_mean_of_the_latest_values() -> None:
    smoothed = Curve.of([1, 2, 3, 4], [0, 1, 5, 3]).smoothed(3)
    assert smoothed.steps.tolist() == [1, 2, 3, 4]
    assert smoothed.values.tolist() == [0, 0.5, 2, 3]


@pytest.mark.parametrize(("steps", "values"), [([1, 2], [1]), ([], []), ([2, 1], [0, 0]), ([1, 1], [0, 0])])
def test_curve_rejects_steps_that_do_not_increase(steps: list[int], values: list[int]) -> None:
    with pytest.raises(ValueError, match="increasing steps"):
        Curve.of(steps, values)


def test_band_combines_runs_of_different_length() -> None:
    together = band([Curve.of([0, 100], [0, 1]), Curve.of([10, 50], [0.5, 0.5])], points=10)
    assert together.runs == 2
    assert (together.steps[0], together.steps[-1]) == (10, 100)
    assert (together.middle[0], together.middle[-1]) == (0.25, 0.75)
    assert together.low is not None
    assert together.high is not None
    assert (together.low[-1], together.high[-1]) == (0.5, 1)
    assert band([Curve.of([3], [0.5])]).low is None


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"step": 1' + "0" * 400 + ', "x": 1}',
        '{"step": 1, "x": 1' + "0" * 400 + "}",
        '{"step": 1, "x": -1e308}',
        '{"step": 1e308, "x": 1}',
        '{"step": -1, "x": 1}',
        '{"step": NaN, "x": 1}',
    ],
    ids=lambda line: line[:24],
)
def test_read_log_skips_numbers_that_no_figure_can_show(line: str, tmp_path: Path) -> None:
    curve = read_log(log(tmp_path, line, {"step": 2, "x": 3.0}))["x"]
    assert (curve.steps.tolist(), curve.values.tolist()) == ([2.0], [3.0])

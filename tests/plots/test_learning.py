"""Figures of training and evaluation show the values that they are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from rmc_agents.evaluation.curves import Curve
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.results import Result
from rmc_agents.plots import learning
from rmc_agents.plots.learning import Point
from rmc_agents.plots.style import CORE_COLORS
from tests.support.figures import text_faults

RISING = Curve.of([0, 1000, 2000], [0.5, 0.7, 1.0])
FLAT = Curve.of([0, 1000, 2000], [0.5, 0.5, 0.5])


def test_learning_curves_have_a_line_and_a_band_for_each_core() -> None:
    figure = learning.learning_curves({"rmc": [RISING, FLAT, FLAT], "mine": [FLAT], "none": []}, "a maze")
    axes = figure.axes[0]
    chance, rmc, mine = axes.lines
    assert set(np.asarray(chance.get_ydata()).tolist()) == {0.5}
    assert rmc.get_label() == "rmc (3 runs)"
    assert mine.get_label() == "mine (1 run)"
    assert np.asarray(rmc.get_ydata())[-1] == pytest.approx(2 / 3)
    assert to_hex(rmc.get_color()).upper() == CORE_COLORS["rmc"]  # type: ignore[arg-type]
    assert len(axes.collections) == 1  # a single run has no band
    assert axes.get_xlabel() == "environment steps"
    assert text_faults(figure) == []
    with pytest.raises(ValueError, match="no curves"):
        learning.learning_curves({"rmc": []})


def test_success_by_hallway_shows_means_over_runs() -> None:
    runs = {
        "rmc": [[Point(1, 1.0, (0.9, 1.0)), Point(7, 0.9, (0.8, 0.95))]],
        "gru": [[Point(1, 1.0, None), Point(7, 0.5, None)], [Point(1, 0.8, None), Point(7, 0.5, None)]],
    }
    figure = learning.success_by_hallway(runs, {1: "S7", 7: "S13"}, trained_up_to=1)
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines}
    assert lines["rmc (1 run)"] == [1.0, 0.9]
    assert lines["gru (2 runs)"] == [0.9, 0.5]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1\nS7", "7\nS13"]
    assert "shaded: longer than any in training" in [text.get_text() for text in figure.axes[0].texts]
    assert text_faults(figure) == []


def result(run: str, core: str, hallway: int | None, rate: float | None) -> Result:
    figures: dict[str, Any] = {"success_rate": rate, "mean_return": 0.5, "success_ci95": [0.0, 1.0]}
    env_id = f"MiniGrid-MemoryS{6 + hallway}-v0" if hallway else "CartPole-v1"
    return Result(
        run, core, env_id, Entry.from_json({**figures, "hallway": hallway, "trained_hallway": 1}, "")
    )


def test_results_are_drawn_by_hallway_and_core() -> None:
    results = [
        *(result(run, "rmc", hallway, 0.9) for run in "ab" for hallway in (1, 3)),
        *(result("c", "gru", hallway, 0.6) for hallway in (1, 3)),
        result("c", "gru", 5, None),
        result("c", "gru", None, 0.1),
    ]
    figure = learning.results_by_hallway(results)
    assert figure is not None
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines}
    assert lines["rmc (2 runs)"] == pytest.approx([0.9, 0.9])
    assert lines["gru (1 run)"] == [0.6, 0.6]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1\nS7", "3\nS9"]


def test_results_in_fewer_than_two_hallways_are_not_drawn() -> None:
    assert learning.results_by_hallway([]) is None
    assert learning.results_by_hallway([result("a", "rmc", 3, 0.9), result("a", "rmc", None, 0.9)]) is None


def test_training_panels_show_the_values_in_the_log() -> None:
    log = {"rollout/success_rate": RISING, "train/entropy_loss": Curve.of([0, 1], [-1.0, -0.5])}
    figure = learning.training_panels(log)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["success rate", "policy entropy"]
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [1.0, 0.5]
    by_task = log | {f"rollout/success_rate/MiniGrid-Memory{s}-v0": RISING for s in ("S7", "S9")}
    figure = learning.training_panels(by_task)
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["MemoryS7", "MemoryS9"]
    assert learning.training_panels({"other": RISING}) is None


def test_training_panels_show_whole_texts() -> None:
    figure = learning.training_panels({name: RISING for *_, name in learning.PANELS})
    assert figure is not None
    assert len(figure.axes) == len(learning.PANELS)
    assert text_faults(figure) == []


def test_run_trained_in_a_maze_without_hallway_is_drawn() -> None:
    results = [result("a", "rmc", hallway, 0.5) for hallway in (-1, 1, 3)]
    trained = [replace(each, entry=replace(each.entry, trained_hallway=-1)) for each in results]
    figure = learning.results_by_hallway(trained)
    assert figure is not None
    figure.draw_without_rendering()
    labels = [label.get_text().split("\n")[0] for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "3"]

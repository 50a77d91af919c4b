"""Plots show what they are given, and are the same file for the same figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from rmc_agents import plots
from rmc_agents.curves import Curve
from rmc_agents.palette import CORE_COLOURS, OKABE_ITO, styles
from rmc_agents.plots import Point

RISING = Curve.of([0, 1000, 2000], [0.5, 0.7, 1.0])
FLAT = Curve.of([0, 1000, 2000], [0.5, 0.5, 0.5])


def test_learning_curves_have_a_line_and_a_band_for_each_core() -> None:
    figure = plots.learning_curves({"rmc": [RISING, FLAT, FLAT], "mine": [FLAT], "none": []}, "a maze")
    axes = figure.axes[0]
    guessing, rmc, mine = axes.lines
    assert set(np.asarray(guessing.get_ydata()).tolist()) == {0.5}
    assert rmc.get_label() == "rmc (3 runs)"
    assert mine.get_label() == "mine (1 run)"
    assert np.asarray(rmc.get_ydata())[-1] == pytest.approx(2 / 3)
    assert to_hex(rmc.get_color()).upper() == CORE_COLOURS["rmc"]  # type: ignore[arg-type]
    assert len(axes.collections) == 1  # one run has no band
    assert axes.get_xlabel() == "environment steps"
    with pytest.raises(ValueError, match="no curves"):
        plots.learning_curves({"rmc": []})


def test_success_against_hallway_length() -> None:
    runs = {
        "rmc": [[Point(1, 1.0, (0.9, 1.0)), Point(7, 0.9, (0.8, 0.95))]],
        "gru": [[Point(1, 1.0, None), Point(7, 0.5, None)], [Point(1, 0.8, None), Point(7, 0.5, None)]],
    }
    figure = plots.success_by_hallway(runs, {1: "S7", 7: "S13"}, trained_up_to=1)
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines}
    assert lines["rmc (1 run)"] == [1.0, 0.9]
    assert lines["gru (2 runs)"] == [0.9, 0.5]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1\nS7", "7\nS13"]
    assert "shaded: longer than any in training" in [text.get_text() for text in figure.axes[0].texts]


def test_training_shows_what_the_log_has() -> None:
    log = {"rollout/success_rate": RISING, "train/entropy_loss": Curve.of([0, 1], [-1.0, -0.5])}
    figure = plots.training(log)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["success rate", "entropy of the policy"]
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [1.0, 0.5]
    by_task = log | {f"rollout/success_rate/MiniGrid-Memory{s}-v0": RISING for s in ("S7", "S9")}
    figure = plots.training(by_task)
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["MemoryS7", "MemoryS9"]
    assert plots.training({"other": RISING}) is None


def test_a_figure_is_saved_twice_and_the_same_each_time(tmp_path: Path) -> None:
    written = [
        plots.save(plots.learning_curves({"rmc": [RISING, FLAT]}), tmp_path / name / "curves")
        for name in "ab"
    ]
    assert [path.name for path in written[0]] == ["curves.png", "curves.svg"]
    for one, other in zip(*written, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(written[0][0]) as picture:
        assert picture.width >= 1000
        colours = {to_hex(np.array(c) / 255).upper() for _, c in picture.convert("RGB").getcolors(1 << 20)}  # type: ignore[union-attr]
    assert CORE_COLOURS["rmc"] in colours


def test_every_core_looks_different() -> None:
    looks = styles([*CORE_COLOURS, "mine"])
    assert len({colour for colour, _ in looks.values()}) == len(looks)
    assert len({marker for _, marker in looks.values()}) == len(looks)
    assert {colour for colour, _ in looks.values()} <= set(OKABE_ITO)
    assert styles(["mine", "yours"])["mine"] != styles(["mine", "yours"])["yours"]

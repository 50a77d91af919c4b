"""Figures of memories show the scores of probes and the effects of exchanges."""

from __future__ import annotations

import numpy as np
import pytest

from rmc_agents.interpret.intervention import Swap
from rmc_agents.interpret.probe import CUE, POSITION, TIME, Axis, Probe, Score
from rmc_agents.interpret.recording import OBSERVATION, WHOLE
from rmc_agents.plots import memory
from tests.support.figures import text_faults


def axis(name: str, parts: list[str], steps: int, targets: tuple[str, ...]) -> Axis:
    """Scores between 0.3 and 1 that differ by part and step; none at the last step but one."""
    rng = np.random.default_rng(steps)

    def scores() -> list[Score | None]:
        values: list[Score | None] = [
            Score(float(v), float(v) - 0.1, 1.0) for v in rng.uniform(0.3, 1, steps)
        ]
        values[max(steps - 2, 0)] = None
        return values

    return Axis(
        name,
        list(range(steps)),
        [2000] * steps,
        [300] * steps,
        [0.5] * steps,
        {target: {part: scores() for part in parts} for target in targets},
    )


def made_up_probe(slots: int = 4, steps: int = 12) -> Probe:
    parts = [*(f"slot {i + 1}" for i in range(slots)), WHOLE, OBSERVATION]
    since = axis("steps since the cue was last in view", parts, steps, (CUE, POSITION))
    step = axis("step of the episode", parts, steps + 20, (CUE, POSITION, TIME))
    return Probe(2000, 0.9, parts, since, step, {})


def values(axis: Axis, part: str) -> list[float]:
    return [np.nan if score is None else score.value for score in axis.scores[CUE][part]]


def test_heat_maps_show_the_score_of_every_part() -> None:
    found = made_up_probe()
    figure = memory.heat_maps(found, "title")
    cue = [plot for plot in figure.axes if plot.get_title(loc="left") == memory.TITLES[CUE]]
    assert len(cue) == 2
    for plot, scores in zip(cue, (found.since, found.step), strict=True):
        array = plot.images[0].get_array()
        assert isinstance(array, np.ma.MaskedArray)
        shown = array.filled(np.nan)
        np.testing.assert_allclose(shown, [values(scores, part) for part in found.parts])
        assert [label.get_text() for label in plot.get_yticklabels()] == [
            *(f"slot {i}" for i in range(1, 5)),
            "all slots",
            OBSERVATION,
        ]


@pytest.mark.parametrize("slots", [0, 1, 4, 16])
@pytest.mark.parametrize("steps", [2, 12])
def test_heat_maps_show_whole_texts(slots: int, steps: int) -> None:
    figure = memory.heat_maps(made_up_probe(slots, steps), "What a linear probe reads from an RMC's memory")
    assert text_faults(figure) == []


def test_curves_show_the_cue_in_the_whole_state() -> None:
    found = made_up_probe()
    figure = memory.curves([("a", "rmc", found), ("b", "gru", found)], "title")
    lines = [line for line in figure.axes[0].lines if line.get_label() in ("a", "b")]
    assert len(lines) == 2
    known = [value for value in values(found.since, WHOLE) if np.isfinite(value)]
    for line in lines:
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), known)
    assert len({line.get_color() for line in lines}) == 2
    assert text_faults(figure) == []


def test_runs_of_one_core_differ_in_the_curves() -> None:
    found = made_up_probe()
    figure = memory.curves([("a", "rmc", found), ("b", "rmc", found)], "title")
    lines = [line for line in figure.axes[0].lines if line.get_label() in ("a", "b")]
    assert len({line.get_color() for line in lines}) == 2
    assert len({str(line.get_marker()) for line in lines}) == 2


def test_swaps_have_a_point_for_each_exchange() -> None:
    found = [
        Swap(part, same, 100, 50, 40.0, flipped, 0)
        for same, counts in ((False, (10, 95)), (True, (2, 3)))
        for part, flipped in zip(("slot 1", WHOLE), counts, strict=True)
    ]
    figure = memory.swaps(found, 2, "title")
    plot = figure.axes[0]
    points = [
        float(np.asarray(line.get_ydata())[0]) for line in plot.lines if line.get_marker() in ("o", "s")
    ]
    assert points == [0.1, 0.95, 0.02, 0.03]
    assert "2 steps after" in plot.get_xlabel()
    assert text_faults(figure) == []

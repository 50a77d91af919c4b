"""Stills: the key moments of an episode, shaded views of the cue, gates over the steps, and whole texts."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from rmc_agents.interpret.playthrough import Moment, Playthrough
from rmc_agents.plots import still
from tests.support.figures import text_faults
from tests.support.playthroughs import scripted_episode, traced_episode


@pytest.mark.parametrize("per_head", [False, True])
def test_still_shades_views_of_the_cue_and_follows_the_gates(per_head: bool) -> None:
    in_view = [False, True, True, False, False, True, False, False, False]
    figure = still.draw(traced_episode(in_view), per_head)
    panels = [plot for plot in figure.axes if plot.get_xlabel() == "step"]
    assert len(panels) == len(still.SERIES)
    for plot, (title, series) in zip(panels, still.SERIES, strict=True):
        assert plot.get_title(loc="left") == title
        lines = [line for line in plot.lines if line.get_linestyle() == "-"]
        assert len(lines) == 4
        moments = traced_episode(in_view).moments
        for slot, line in enumerate(lines):
            expected = [series(m.trace)[slot] for m in moments[:-1] if m.trace is not None]
            np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected)
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in plot.patches]  # type: ignore[attr-defined]
        assert spans == [(0.5, 2.5), (4.5, 5.5)]
        choice = [np.asarray(line.get_xdata())[0] for line in plot.lines if line.get_linestyle() == "--"]
        assert choice == [8]
    titles = [
        plot.get_title(loc="left") for plot in figure.axes if plot.get_title(loc="left").startswith("step ")
    ]
    assert titles == [f"step {i}" for i in still.key_moments(traced_episode(in_view).moments)]


def test_key_moments_are_the_views_of_the_cue_and_the_choice() -> None:
    def chosen(in_view: list[bool]) -> list[int]:
        return still.key_moments(traced_episode(in_view).moments)

    assert chosen([False] * 3 + [True] * 2 + [False] * 5) == [0, 4, 6, 8, 9]
    assert chosen([True] + [False] * 9) == [0, 4, 8, 9]
    assert chosen([False] * 20 + [True]) == [0, 5, 10, 15, 20]  # the view at the end comes after the choice
    assert chosen([True, False]) == [0, 1]


def test_cue_spans_are_half_open() -> None:
    assert still.cue_spans(traced_episode([True, True, False, True]).moments) == [(0, 2), (3, 4)]
    assert still.cue_spans(traced_episode([False, False]).moments) == []


EPISODES = {
    "two moments": [True, False],
    "three moments": [False, False, False],
    "four moments": [False] * 4,
    "four key moments": [True] + [False] * 9,
    "five key moments": [False, True, False, True] + [False] * 8,
    "never in view": [False] * 30,
    "long": [False] * 5 + [True] + [False] * 1200,
}
"""Views of the cue, step by step, of episodes with two to five key moments."""


@pytest.mark.parametrize(
    ("name", "slots"), [*product(EPISODES, [0, 8]), *product(["two moments", "five key moments"], [1, 20])]
)
def test_still_shows_whole_texts(name: str, slots: int) -> None:
    figure = still.draw(traced_episode(EPISODES[name], slots, success=False))  # has the longest words
    assert text_faults(figure) == []


@pytest.mark.parametrize(
    ("name", "heads", "slots"),
    [
        *(("five key moments", *sizes) for sizes in [(1, 1), (2, 8), (4, 4), (8, 20), (16, 8)]),
        *(("two moments", *sizes) for sizes in [(1, 1), (8, 20)]),
    ],
)
def test_still_by_head_shows_whole_texts(name: str, heads: int, slots: int) -> None:
    figure = still.draw(traced_episode(EPISODES[name], slots, heads), per_head=True)
    assert text_faults(figure) == []


@pytest.mark.parametrize(
    ("shape", "success", "in_time"),
    [
        *product([(400, 600), (60, 900)], [None, True, False], [True, False]),
        *product([(600, 400), (210, 160), (900, 60)], [False], [True, False]),
    ],
)
def test_still_of_any_environment_shows_whole_texts(
    shape: tuple[int, int], success: bool | None, in_time: bool
) -> None:
    picture = np.zeros((*shape, 3), dtype=np.uint8)
    moments = [Moment(picture, step, -1e9 * step, None, None) for step in range(7)]
    assert text_faults(still.draw(Playthrough(moments, success, in_time))) == []


def test_measurement_finds_cut_and_overlapping_texts() -> None:
    """The check above can fail."""
    figure = still.draw(scripted_episode([False, True, False], True))
    figure.text(0.99, 0.5, "a text that leaves the figure")
    figure.text(0.2, 0.5, "one")
    figure.text(0.2, 0.5, "other")
    assert text_faults(figure) == ["cut: a text that leaves the figure", "overlapping: one, other"]


@pytest.mark.parametrize("shape", [(224, 224, 3), (288, 288, 3), (400, 600, 3), (60, 600, 3), (600, 60, 3)])
@pytest.mark.parametrize("traced", [False, True], ids=["without slots", "with slots"])
def test_titles_are_whole_above_pictures_of_any_shape(shape: tuple[int, ...], traced: bool) -> None:
    episode = traced_episode([True, False, False, True, False], slots=4 if traced else 0)
    picture = np.full(shape, 100, dtype=np.uint8)
    square = shape[0] == shape[1]  # as in the mazes, which alone have a cue
    moments = [
        dataclasses.replace(moment, picture=picture, cue=moment.cue if square else None)
        for moment in episode.moments
    ]
    assert text_faults(still.draw(dataclasses.replace(episode, moments=moments))) == []

"""Probes find what was put into a memory, where it was put, when it was put there; and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rmc_agents import probe_plots
from rmc_agents.probe import (
    CUE,
    POSITION,
    TIME,
    Axis,
    cross_validated,
    effective_number,
    folds_of,
    probe,
    r_squared,
)
from rmc_agents.recording import OBSERVATION, WHOLE, Recording
from tests.slots import SLOTS, Slots

STEPS, EPISODES, WIDTH = 12, 600, 6
SEEN = 4
"""The only step at which the cue is in view."""


def recording(**changes: Any) -> Recording:
    """Every episode in its own way, with noise for a memory; the cue is in view at step `SEEN`."""
    rng = np.random.default_rng(0)
    shape = (STEPS, EPISODES)
    in_view = np.zeros(shape, dtype=bool)
    in_view[SEEN] = True
    cue = rng.integers(0, 2, EPISODES)
    fields: dict[str, Any] = {
        "memory": Slots(torch.as_tensor(rng.normal(size=(*shape, SLOTS, WIDTH)))),
        "observation": rng.normal(size=(*shape, 3)),
        "running": np.ones(shape, dtype=bool),
        "in_view": in_view,
        "x": rng.integers(1, 10, shape),
        "situation": rng.integers(0, 16, shape),
        "history": np.arange(STEPS * EPISODES).reshape(shape),
        "cue": cue,
        "choice": cue,
    }
    return Recording(**fields | changes)


def values(axis: Axis, target: str, part: str) -> list[float]:
    return [np.nan if score is None else score.value for score in axis.scores[target][part]]


def test_the_cue_is_found_in_its_slot_from_the_step_on_at_which_it_was_put_there() -> None:
    held = recording()
    held.memory.memory[5:, :, 1, 2] = torch.as_tensor(2.0 * held.cue - 1)
    found = probe(held)
    by_step = found.step.scores[CUE]
    for t in range(STEPS):
        for part in found.parts:
            score = by_step[part][t]
            assert score is not None
            if t >= 5 and part in ("slot 2", WHOLE):
                assert score.value > 0.99
                assert score.low > 0.98
            else:
                assert score.value == pytest.approx(0.5, abs=0.08)
                assert score.low < 0.55
    # Step 5 is 1 step after the cue left the view.
    since = values(found.since, CUE, "slot 2")
    assert since[0] < 0.6
    assert min(since[1:]) > 0.99
    assert found.since.steps == list(range(STEPS - SEEN))
    assert found.since.episodes == [EPISODES] * (STEPS - SEEN)
    overall = {part: score.value for part, score in found.overall[CUE].items() if score is not None}
    assert overall["slot 2"] > 0.99
    assert max(overall[part] for part in ("slot 1", "slot 3", "slot 4", OBSERVATION)) < 0.6


def test_position_and_time_are_found_where_they_are() -> None:
    held = recording()
    held.memory.memory[:, :, 0, 0] = torch.as_tensor(held.x)
    held.memory.memory[:, :, 2, 3] = torch.as_tensor(held.since)
    found = probe(held)
    for axis in (found.since, found.step):
        assert min(values(axis, POSITION, "slot 1")) > 0.95
        assert max(values(axis, POSITION, "slot 2")) < 0.1
    time = {part: score.value for part, score in found.overall[TIME].items() if score is not None}
    assert time["slot 3"] > 0.95
    assert max(time["slot 1"], time["slot 4"], time[OBSERVATION]) < 0.05
    assert TIME not in found.since.scores  # on that axis all samples of a column have the same
    # At each step all were seen equally long ago, and before step 4 nothing was: nothing to tell apart.
    assert np.isnan(values(found.step, TIME, "slot 3")).all()


def test_an_episode_does_not_help_to_read_itself() -> None:
    """A memory that tells where the episode began, and no more, tells the cue only of known beginnings."""
    begun = np.arange(EPISODES) % 16
    cue = np.random.default_rng(1).integers(0, 2, 16)[begun]
    one_hot = torch.as_tensor(np.eye(16)[begun]).expand(STEPS, -1, -1).unsqueeze(2).clone()
    situation = np.broadcast_to(begun, (STEPS, EPISODES)).copy()
    held = recording(memory=Slots(one_hot), cue=cue, situation=situation)
    assert max(values(probe(held).step, CUE, WHOLE)) < 0.6
    # By episode alone it would be read perfectly, since equal episodes are on both sides.
    x, y = one_hot[0, :, 0].numpy(), 2.0 * cue[:, None] - 1
    naive = cross_validated(x, y, np.random.default_rng(0).permutation(EPISODES) % 5, np.ones(EPISODES))
    assert ((naive > 0) == (y > 0)).all()


def test_episodes_that_are_the_same_are_one_sample() -> None:
    """Four thousand copies of forty episodes give the interval of forty, and the shares of four thousand."""
    history = np.arange(STEPS * EPISODES).reshape(STEPS, EPISODES) // EPISODES * EPISODES
    history = history + np.arange(EPISODES) % 40
    again = np.arange(EPISODES) % 40
    held = recording()
    fields = {name: getattr(held, name)[:, again] for name in ("in_view", "x", "situation", "running")}
    memory = Slots(held.memory.memory[:, again])
    memory.memory[..., 0, 0] = torch.as_tensor(2.0 * held.cue[again] - 1)
    found = probe(recording(**fields, memory=memory, history=history, cue=held.cue[again]))
    assert found.step.histories == [40] * STEPS
    assert found.step.episodes == [EPISODES] * STEPS
    score = found.step.scores[CUE]["slot 1"][0]
    assert score is not None
    assert score.value == 1
    assert score.low == pytest.approx(40 / (40 + 1.96**2), abs=0.001)  # Wilson at 40 of 40


def test_nothing_is_said_of_too_few_episodes() -> None:
    running = np.ones((STEPS, EPISODES), dtype=bool)
    running[6:, 20:] = False  # 20 of 600 go on
    found = probe(recording(running=running))
    assert found.step.steps == list(range(6))
    assert found.since.steps == [0, 1]
    assert found.since.chance == pytest.approx([max(c.mean(), 1 - c.mean()) for c in [recording().cue] * 2])


def test_of_what_hardly_differs_nothing_is_said() -> None:
    x = np.full((STEPS, EPISODES), 4)
    x[:, :50] = np.arange(1, 51) % 5  # 8 of 100 stand elsewhere
    held = probe(recording(x=x))
    assert np.isnan(values(held.step, POSITION, "slot 1")).all()
    x[:, :180] = np.arange(180) % 5
    assert not np.isnan(values(probe(recording(x=x)).step, POSITION, "slot 1")).any()


def test_a_memory_of_no_numbers_knows_nothing() -> None:
    found = probe(recording(memory=(torch.zeros(STEPS, EPISODES, 0),)))
    assert found.parts == [WHOLE, OBSERVATION]
    assert max(values(found.step, CUE, WHOLE)) < 0.6


def test_ridge_is_least_squares_without_its_strength() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 5)) * [1, 10, 100, 0.1, 3] + 7, rng.normal(size=(90, 2))
    fold = np.arange(90) % 3
    found = cross_validated(x, y, fold, np.ones(90), strength=0.0)
    for k in range(3):
        ones = np.hstack([x, np.ones((90, 1))])
        weights = np.linalg.lstsq(ones[fold != k], y[fold != k], rcond=None)[0]
        np.testing.assert_allclose(found[fold == k], ones[fold == k] @ weights, rtol=1e-6, atol=1e-8)


def test_a_weight_is_as_many_samples() -> None:
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(40, 4)), rng.normal(size=(40, 1)), rng.integers(1, 5, 40)
    fold = folds_of(np.arange(40) // 4)
    found = cross_validated(x, y, fold, weight.astype(float))
    many = np.repeat(np.arange(40), weight)
    again = cross_validated(x[many], y[many], fold[many], np.ones(len(many)))
    np.testing.assert_allclose(found[many], again, rtol=1e-9)
    one = np.ones(len(many))
    assert r_squared(y[:, 0], found[:, 0], weight) == pytest.approx(r_squared(y[many, 0], again[:, 0], one))


def test_folds_keep_groups_together() -> None:
    groups = np.random.default_rng(0).integers(100, 120, 500)
    fold = folds_of(groups)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[groups == group])) == 1 for group in groups)


def test_the_effective_number_is_kishs() -> None:
    assert effective_number(np.ones(7)) == 7
    assert effective_number(np.array([3.0, 3.0])) == 2
    assert effective_number(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)


def test_heat_maps_and_curves_show_the_figures() -> None:
    held = recording()
    held.memory.memory[5:, :, 1, 2] = torch.as_tensor(2.0 * held.cue - 1)
    found = probe(held)
    figure = probe_plots.heat_maps(found, "title")
    titles = [plot.get_title(loc="left") for plot in figure.axes]
    cue = [plot for plot, title in zip(figure.axes, titles, strict=True) if title == probe_plots.TITLES[CUE]]
    assert len(cue) == 2
    for plot, axis in zip(cue, (found.since, found.step), strict=True):
        shown = np.asarray(plot.images[0].get_array())
        np.testing.assert_allclose(shown, [values(axis, CUE, part) for part in found.parts])
        assert [label.get_text() for label in plot.get_yticklabels()] == [
            *(f"slot {i}" for i in range(1, 5)),
            "all slots",
            OBSERVATION,
        ]
    curves = probe_plots.curves([("a", "rmc", found), ("b", "gru", found)], "title")
    lines = [line for line in curves.axes[0].lines if line.get_label() in ("a", "b")]
    assert len(lines) == 2
    for line in lines:
        np.testing.assert_allclose(line.get_ydata(), values(found.since, CUE, WHOLE))
    assert len({line.get_color() for line in lines}) == 2

"""Probes find what was written into a synthetic memory, where and when it was written, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rmc_agents import UsageError
from rmc_agents.interpret.probe import (
    CUE,
    POSITION,
    TIME,
    Axis,
    cross_validated,
    effective_number,
    folds_of,
    probe,
    r_squared,
    require_variety,
)
from rmc_agents.interpret.recording import OBSERVATION, WHOLE, Recording
from tests.support.slot_player import SLOTS, Slots

STEPS, EPISODES, WIDTH = 12, 600, 6
SEEN = 4
"""The only step at which the cue is in view."""


def recording(**changes: Any) -> Recording:
    """Different episodes with noise as their memory; the cue is in view at step `SEEN`."""
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
        "state_id": rng.integers(0, 16, shape),
        "history": np.arange(STEPS * EPISODES).reshape(shape),
        "cue": cue,
        "choice": cue,
    }
    return Recording(**fields | changes)


def values(axis: Axis, target: str, part: str) -> list[float]:
    return [np.nan if score is None else score.value for score in axis.scores[target][part]]


def test_probe_finds_the_cue_in_its_slot_from_the_step_of_writing_on() -> None:
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


def test_probe_finds_position_and_time_in_their_slots() -> None:
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
    assert TIME not in found.since.scores  # it is the same for all samples of a column of that axis
    # At each step all cues were seen equally long ago, and before step 4 none was: the target does not vary.
    assert np.isnan(values(found.step, TIME, "slot 3")).all()


def test_probe_is_tested_on_other_starting_states() -> None:
    """A memory that encodes only the starting state gives the cue only for starts that the probe was fitted
    to."""
    start = np.arange(EPISODES) % 16
    cue = np.random.default_rng(1).integers(0, 2, 16)[start]
    one_hot = torch.as_tensor(np.eye(16)[start]).expand(STEPS, -1, -1).unsqueeze(2).clone()
    state_id = np.broadcast_to(start, (STEPS, EPISODES)).copy()
    held = recording(memory=Slots(one_hot), cue=cue, state_id=state_id)
    assert max(values(probe(held).step, CUE, WHOLE)) < 0.6
    # With folds over episodes the cue would be read perfectly: equal episodes would be on both sides.
    x, y = one_hot[0, :, 0].numpy(), 2.0 * cue[:, None] - 1
    fold = np.random.default_rng(0).permutation(EPISODES) % 5
    naive = cross_validated(x, y, fold=fold, weight=np.ones(EPISODES))
    assert ((naive > 0) == (y > 0)).all()


def test_equal_episodes_are_one_sample() -> None:
    """Many copies of forty episodes give the interval of forty episodes."""
    history = np.arange(STEPS * EPISODES).reshape(STEPS, EPISODES) // EPISODES * EPISODES
    history = history + np.arange(EPISODES) % 40
    again = np.arange(EPISODES) % 40
    held = recording()
    fields = {name: getattr(held, name)[:, again] for name in ("in_view", "x", "state_id", "running")}
    memory = Slots(held.memory.memory[:, again])
    memory.memory[..., 0, 0] = torch.as_tensor(2.0 * held.cue[again] - 1)
    found = probe(recording(**fields, memory=memory, history=history, cue=held.cue[again]))
    assert found.step.histories == [40] * STEPS
    assert found.step.episodes == [EPISODES] * STEPS
    score = found.step.scores[CUE]["slot 1"][0]
    assert score is not None
    assert score.value == 1
    assert score.low == pytest.approx(40 / (40 + 1.96**2), abs=0.001)  # Wilson at 40 of 40


def test_probe_reports_nothing_for_too_few_episodes() -> None:
    running = np.ones((STEPS, EPISODES), dtype=bool)
    running[6:, 20:] = False  # 20 of 600 continue
    found = probe(recording(running=running))
    assert found.step.steps == list(range(6))
    assert found.since.steps == [0, 1]
    assert found.since.chance == pytest.approx([max(c.mean(), 1 - c.mean()) for c in [recording().cue] * 2])


def test_probe_reports_nothing_for_a_position_that_hardly_varies() -> None:
    x = np.full((STEPS, EPISODES), 4)
    x[:, :50] = np.arange(1, 51) % 5  # 8 of 100 are elsewhere
    held = probe(recording(x=x))
    assert np.isnan(values(held.step, POSITION, "slot 1")).all()
    x[:, :180] = np.arange(180) % 5
    assert not np.isnan(values(probe(recording(x=x)).step, POSITION, "slot 1")).any()


def test_empty_memory_reads_at_chance_level() -> None:
    found = probe(recording(memory=(torch.zeros(STEPS, EPISODES, 0),)))
    assert found.parts == [WHOLE, OBSERVATION]
    assert max(values(found.step, CUE, WHOLE)) < 0.6


def test_ridge_without_penalty_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 5)) * [1, 10, 100, 0.1, 3] + 7, rng.normal(size=(90, 2))
    fold = np.arange(90) % 3
    found = cross_validated(x, y, fold=fold, weight=np.ones(90), strength=0.0)
    for k in range(3):
        ones = np.hstack([x, np.ones((90, 1))])
        weights = np.linalg.lstsq(ones[fold != k], y[fold != k], rcond=None)[0]
        np.testing.assert_allclose(found[fold == k], ones[fold == k] @ weights, rtol=1e-6, atol=1e-8)


def test_weight_equals_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(40, 4)), rng.normal(size=(40, 1)), rng.integers(1, 5, 40)
    fold = folds_of(np.arange(40) // 4)
    found = cross_validated(x, y, fold=fold, weight=weight.astype(float))
    many = np.repeat(np.arange(40), weight)
    again = cross_validated(x[many], y[many], fold=fold[many], weight=np.ones(len(many)))
    np.testing.assert_allclose(found[many], again, rtol=1e-9)
    one = np.ones(len(many))
    assert r_squared(y[:, 0], found[:, 0], weight) == pytest.approx(r_squared(y[many, 0], again[:, 0], one))


def test_samples_of_a_group_share_their_fold() -> None:
    groups = np.random.default_rng(0).integers(100, 120, 500)
    fold = folds_of(groups)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[groups == group])) == 1 for group in groups)


def test_effective_number_is_kishs() -> None:
    assert effective_number(np.ones(7)) == 7
    assert effective_number(np.array([3.0, 3.0])) == 2
    assert effective_number(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)


def test_ridge_equals_the_direct_solution() -> None:
    """The normal equations, solved for each fold; inputs of any scale, wide or tall, some constant."""
    rng = np.random.default_rng(0)
    for n, columns, scale in ((200, 30, 1.0), (200, 30, 1e3), (40, 90, 1.0), (60, 10, 1e-3)):
        x = scale * rng.normal(size=(n, columns)) + 5
        x[:, 0] = 3.0
        y, weight, fold = rng.normal(size=(n, 2)), rng.integers(1, 9, n).astype(float), np.arange(n) % 5
        x[:, 1] = np.where(fold == 0, x[:, 1], 2.0)
        expected = np.empty_like(y)
        for held_out in range(5):
            test = fold == held_out
            share = weight[~test, None] / weight[~test].sum()
            mean, middle = (share * x[~test]).sum(0), (share * y[~test]).sum(0)
            deviation = np.sqrt((share * (x[~test] - mean) ** 2).sum(0))
            used = deviation > 1e-6
            z = ((x - mean) / np.where(used, deviation, 1))[:, used]
            gram = (share * z[~test]).T @ z[~test] + 0.1 * np.eye(used.sum())
            slopes = np.linalg.solve(gram, (share * z[~test]).T @ (y[~test] - middle))
            expected[test] = z[test] @ slopes + middle
        np.testing.assert_allclose(cross_validated(x, y, fold=fold, weight=weight), expected, atol=1e-8)


def test_recording_without_variety_is_refused_with_the_reason() -> None:
    require_variety(recording(), "run in maze")
    same = recording(state_id=np.zeros((STEPS, EPISODES), dtype=np.int64))
    with pytest.raises(UsageError, match=r"run in maze cannot be probed: .* 1 different starts"):
        require_variety(same, "run in maze")
    alike = recording(history=np.zeros((STEPS, EPISODES), dtype=np.int64))
    with pytest.raises(UsageError, match="fewer than 10 different histories of both cues"):
        require_variety(alike, "run in maze")

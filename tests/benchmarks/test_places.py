"""The study of places: correlations, what counts as in view, and the walk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rmc_envs
from benchmarks.studies import places
from rmc_agents.environment import AuxiliaryTargets
from rmc_envs.box_world.known import NUM_PLACES, SCALE


def test_correlations_are_those_of_numpy() -> None:
    known = places.Known()
    torch.manual_seed(0)
    values = torch.randint(-9, 10, (7, 11, NUM_PLACES)) / SCALE
    weights = (torch.rand(7, 11, NUM_PLACES // 2) < 0.5).float().repeat_interleave(2, -1)
    predictions = values + torch.randn_like(values)
    for part in (slice(0, 3), slice(3, 7)):
        known.add(predictions[part], AuxiliaryTargets(values[part], weights[part]), 0.5)
    kinds: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in known.KINDS}
    for t, b, k in np.ndindex(7, 11, 42):
        if not weights[t, b, k] or 0 < k < 2:
            continue
        row, column = 2 * (k // 2), 2 * (k // 2) + 1
        near = max(abs(values[t, b, row]), abs(values[t, b, column])) <= 2.01 / SCALE
        kind = "gem" if k < 2 else "keys in view" if near else "keys out of view"
        for i in (row, column) if k < 2 else (k,):
            kinds[kind][0].append(float(predictions[t, b, i]))
            kinds[kind][1].append(float(values[t, b, i]))
    figures = known.figures()
    for kind, (x, y) in kinds.items():
        assert len(x) > 50
        assert figures[kind] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert figures["loss"] == 0.5


def test_walk_says_which_action_led_to_an_observation() -> None:
    env = rmc_envs.make(places.TASK, places.NUM_ENVS)
    walk = places.chunks(env, 5)
    first, second = next(walk), next(walk)
    assert first.starts[0].all()
    assert first.previous.shape == (places.CHUNK, places.NUM_ENVS)
    again = rmc_envs.make(places.TASK, places.NUM_ENVS)
    obs: Any = again.reset(5)
    actions = torch.cat([first.previous[1:], second.previous])
    seen = torch.cat([first.obs["image"], second.obs["image"]])
    starts = torch.ones(places.NUM_ENVS, dtype=torch.bool)
    values = torch.cat([first.targets.values, second.targets.values])
    for t, action in enumerate(actions):
        assert torch.equal(obs["image"], seen[t])
        targets = again.auxiliary_targets()
        assert targets is not None
        assert torch.equal(targets.values, values[t])
        assert torch.equal(starts, torch.cat([first.starts, second.starts])[t])
        step = again.step(action)
        obs, starts = step.obs, step.done


def test_summary_is_the_mean_of_the_last_points_over_seeds() -> None:
    points = places.LAST + 1
    curves = [
        {
            "core": "gru",
            "seed": seed,
            "steps": i,
            "keys in view": 0.1,
            "keys out of view": i * seed,
            "gem": 0.5,
            "loss": i,
        }
        for seed in (1, 3)
        for i in range(points)
    ]
    (row,) = places.summarise(curves)
    middle = (points - 1 + 1) / 2  # of 1 to LAST
    assert row == {
        "core": "GRU",
        "seeds": 2,
        "keys in view": 0.1,
        "keys out of view": 2 * middle,
        "gem": 0.5,
        "loss": middle,
        "seeds of keys out of view": f"{middle:.3f} to {3 * middle:.3f}",
    }


@pytest.mark.slow
def test_memories_learn_in_the_study() -> None:
    early, *_, late = places.learn("entity_delta", 6, 600 * places.NUM_ENVS * places.CHUNK, 6)
    assert late["loss"] < 0.6 * early["loss"]  # with seeds 5 to 7: 0.53, 0.31, 0.33
    assert late["keys out of view"] > 0.8  # 0.83, 0.93, 0.94; without a memory 0.73


@pytest.mark.slow
def test_quick_study_writes_a_report(tmp_path: Path, run: Callable[..., None]) -> None:
    run("studies.places", "--quick", "--out", str(tmp_path))
    assert "entity delta" in (tmp_path / "places.md").read_text()

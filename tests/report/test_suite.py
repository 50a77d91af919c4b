"""Table of a suite: means over runs in each task and over tasks, by core."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmc_agents.evaluation.entries import Entry, Figures
from rmc_agents.evaluation.results import Result
from rmc_agents.report.suite import best_in_training, suite_table


def result(run: str, core: str, env_id: str, score: float, reference: float = 1.0) -> Result:
    entry = Entry(
        Figures(mean_return=score, episodes=10),
        best_memoryless=Figures(mean_return=-0.5),
        reference=Figures(mean_return=reference),
    )
    return Result(run, core, env_id, entry, None)


def test_scores_are_means_over_runs_and_then_over_tasks() -> None:
    results = [
        result("a1", "gru", "A", 0.0),
        result("a2", "gru", "A", 0.5),
        result("a3", "rmc", "A", 1.0),
        result("b1", "gru", "B", -0.5),
    ]
    maxima = {"a1": 0.2, "a2": 0.6, "a3": 1.0, "b1": None}
    table = suite_table("suite", results, maxima)
    assert table.sections[0] == (
        ("A", "gru", "2", "0.250", "0.400", "0.500"),
        ("", "rmc", "1", *["1.000"] * 3),
    )
    assert table.sections[1] == (("B", "gru", "1", "-0.500", "-", "0.000"),)
    assert table.sections[2] == (
        ("mean over 2 tasks", "gru", "", "-0.125", "0.400", "0.250"),
        ("mean over 1 task", "rmc", "", "1.000", "1.000", "1.000"),
    )


def test_score_is_not_normalized_where_memory_does_not_matter() -> None:
    assert result("a", "gru", "A", 0.3, reference=-0.495).entry.normalized is None
    assert Entry(Figures(mean_return=0.5)).normalized is None
    assert result("a", "gru", "A", 0.25).entry.normalized == pytest.approx(0.5)


def test_references_are_written_to_and_read_from_an_entry() -> None:
    entry = result("a", "gru", "A", 0.25).entry
    again = Entry.from_json(json.loads(json.dumps(entry.to_json())), "a file")
    assert again == entry


def test_maximum_of_training_is_read_from_the_log(tmp_path: Path) -> None:
    assert best_in_training(tmp_path) is None
    lines = [{"step": 10 * i, "rollout/ep_rew_mean": x} for i, x in enumerate((-0.5, 0.4, 0.1), 1)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert best_in_training(tmp_path) == 0.4

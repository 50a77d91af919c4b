"""evaluation.json is merged and never lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmc_agents import UsageError
from rmc_agents.checkpoint import write_json
from rmc_agents.results import (
    Result,
    Scores,
    by_size,
    read_evaluation,
    read_results,
    save_entry,
    scores_by_core,
)
from tests.support import evaluation_figures


def entry(success: float | None, value: float = 0.25) -> dict[str, Any]:
    figures = evaluation_figures(success, value)
    return {**figures, "random": {**figures, "success_rate": 0.26}, "best_possible": None}


def test_entries_are_merged_by_environment(tmp_path: Path) -> None:
    save_entry(tmp_path, "A", entry(0.5))
    save_entry(tmp_path, "B", entry(0.6))
    path = save_entry(tmp_path, "A", entry(0.7))
    saved = json.loads(path.read_text())
    assert {env_id: figures["success_rate"] for env_id, figures in saved.items()} == {"A": 0.7, "B": 0.6}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damaged", ["{", "[]"])
def test_a_damaged_file_is_not_overwritten(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(damaged)
    with pytest.raises(UsageError, match=r"evaluation\.json .*delete or move it"):
        save_entry(tmp_path, "A", entry(0.5))
    assert path.read_text() == damaged
    assert read_evaluation(tmp_path / "none") == {}


def test_runs_are_put_together_by_core() -> None:
    results = [
        Result(f"{core}{seed}", core, "Maze-v0", entry(rate))
        for core, rates in {"gru": (0.5, 0.6, 0.4), "rmc": (0.9, 0.95, 0.99)}.items()
        for seed, rate in enumerate(rates)
    ]
    results.append(Result("rmc0", "rmc", "Other-v0", entry(0.0)))  # which gru was not judged on
    by_core = {"gru": [[0.5, 0.6, 0.4]], "rmc": [[0.9, 0.95, 0.99]]}
    assert scores_by_core(results) == Scores("success rate", ("Maze-v0",), by_core)


def test_without_success_the_return_is_compared() -> None:
    results = [Result("a", "gru", "Pole-v1", entry(None, 20.0)), Result("b", "rmc", "Maze-v0", entry(0.5))]
    with pytest.raises(ValueError, match="no environment"):
        scores_by_core(results)
    assert scores_by_core(results[:1]) == Scores("mean return", ("Pole-v1",), {"gru": [[20.0]]})


def test_mazes_are_sorted_by_size() -> None:
    sizes = ["S7", "S9", "S13", "S13Random", "S17", "S65"]
    ids = [f"MiniGrid-Memory{size}-v0" for size in sizes]
    assert sorted(sorted(ids), key=by_size) == ids


def test_results_are_read_from_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        read_results(tmp_path / "none")
    write_json(tmp_path / "config.json", {"agent": {"core": "gru"}})
    assert read_results(tmp_path) == []
    for env_id in ("Maze10-v0", "Maze9-v0"):
        save_entry(tmp_path, env_id, entry(0.5))
    assert read_results(tmp_path) == [
        Result(tmp_path.name, "gru", env_id, entry(0.5)) for env_id in ("Maze9-v0", "Maze10-v0")
    ]

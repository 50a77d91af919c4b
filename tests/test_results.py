"""evaluation.json is merged and never lost; tables say what the figures say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rmc_agents import UsageError
from rmc_agents.results import Result, read_evaluation, save_entry, scores_by_core, show, show_by_core


def entry(success: float | None, value: float = 0.25) -> dict[str, Any]:
    figures = {
        "success_rate": success,
        "success_ci95": None if success is None else [0.111, 0.999],
        "mean_return": value,
        "return_ci95": [0.2, 0.3],
        "mean_length": 12.0,
        "episodes": 1000,
        "implementation": "farama",
    }
    return {**figures, "random": {**figures, "success_rate": 0.26}, "best_possible": None}


def text(draw: Any, results: list[Result]) -> str:
    console = Console(width=150, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        draw(results, console)
        return console.export_text()


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


def test_the_table_shows_agent_random_and_best() -> None:
    figures = entry(0.876) | {"best_possible": {"success_rate": 1.0, "mean_return": 0.98, "mean_length": 7.0}}
    shown = text(
        show, [Result("memory-s9", "rmc", "Maze-v0", figures), Result("x", "gru", "Pole-v1", entry(None))]
    )
    for part in (
        "Maze-v0",
        "memory-s9 (rmc)",
        "0.876 [0.111, 0.999]",
        "random",
        "0.260",
        "best possible",
        "0.980",
    ):
        assert part in shown
    assert "1,000" in shown


def test_runs_are_put_together_by_core() -> None:
    results = [
        Result(f"{core}{seed}", core, "Maze-v0", entry(rate))
        for core, rates in {"gru": (0.5, 0.6, 0.4), "rmc": (0.9, 0.95, 0.99)}.items()
        for seed, rate in enumerate(rates)
    ]
    results.append(Result("rmc0", "rmc", "Other-v0", entry(0.0)))  # which gru was not judged on
    assert scores_by_core(results) == ({"gru": [[0.5, 0.6, 0.4]], "rmc": [[0.9, 0.95, 0.99]]}, "success rate")
    shown = text(show_by_core, results)
    assert shown.index("rmc") < shown.index("gru")
    for part in ("0.947", "0.500", "P(better than rmc)", "0.00 [0.000, 0.000]"):
        assert part in shown


def test_without_success_the_return_is_compared() -> None:
    results = [Result("a", "gru", "Pole-v1", entry(None, 20.0)), Result("b", "rmc", "Maze-v0", entry(0.5))]
    with pytest.raises(ValueError, match="no environment"):
        scores_by_core(results)
    assert scores_by_core(results[:1]) == ({"gru": [[20.0]]}, "mean return")

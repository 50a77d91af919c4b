"""Comparison of runs: grouped by the environment of training, and by core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmc_agents import UsageError
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.results import Result
from rmc_agents.report.comparison import learning_curves, write_comparison
from rmc_agents.runs.files import write_json

MAZE = "MiniGrid-MemoryS9-v0"


def run(folder: Path, core: str, env_id: str, **figures: float) -> Path:
    write_json(folder / "config.json", {"format": 2, "agent": {"core": core}, "environment": {"env": env_id}})
    lines = [{"step": step, **figures} for step in (10, 20)] if figures else []
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def entry(rate: float, hallway: int) -> Entry:
    figures: dict[str, Any] = {"success_rate": rate, "mean_return": rate, "mean_length": 9.0, "episodes": 10}
    more = {"success_ci95": [rate / 2, rate], "hallway": hallway, "trained_hallway": 3}
    return Entry.from_json(figures | more, "test")


def test_curves_are_grouped_by_environment_and_core(tmp_path: Path) -> None:
    success = {"rollout/success_rate": 0.5, "rollout/ep_rew_mean": 0.4}
    runs = [
        *(run(tmp_path / f"rmc{i}", "rmc", MAZE, **success) for i in range(2)),
        run(tmp_path / "gru", "gru", MAZE, **success),
        run(tmp_path / "pole1", "gru", "CartPole-v1", **{"rollout/ep_rew_mean": 20.0}),
        run(tmp_path / "pole2", "gru", "CartPole-v1", **success),
        run(tmp_path / "empty", "gru", "Other-v0"),
    ]
    found = learning_curves(runs)
    assert set(found) == {MAZE, "CartPole-v1"}
    curves, is_success = found[MAZE]
    assert is_success
    assert {core: len(of_core) for core, of_core in curves.items()} == {"rmc": 2, "gru": 1}
    curves, is_success = found["CartPole-v1"]
    assert not is_success  # one of the logs has no success rate
    assert [curve.values.tolist() for curve in curves["gru"]] == [[20.0, 20.0], [0.4, 0.4]]


def test_comparison_has_tables_and_figures(tmp_path: Path) -> None:
    runs = [run(tmp_path / core, core, MAZE, **{"rollout/success_rate": 0.5}) for core in ("rmc", "gru")]
    results = [
        Result(core, core, f"MiniGrid-MemoryS{6 + hallway}-v0", entry(rate, hallway))
        for core, rate in (("rmc", 0.9), ("gru", 0.6))
        for hallway in (3, 7)
    ]
    written = write_comparison(tmp_path / "out", results, runs)
    assert {path.name for path in written} == {
        "comparison.md",
        *(f"learning-curves-{MAZE}.{kind}" for kind in ("png", "svg")),
        *(f"success-by-hallway.{kind}" for kind in ("png", "svg")),
    }
    assert all(path.stat().st_size for path in written)
    page = written[0].read_text()
    for part in (
        "| MiniGrid-MemoryS9-v0 | rmc | 0.900 |",
        "all environments",
        "![success-by-hallway]",
        "# Run by run",
    ):
        assert part in page


def test_comparison_escapes_ids_in_text_and_file_names(tmp_path: Path) -> None:
    env_id = "mine:<b>/a b_v0, x[1](y)"
    runs = [run(tmp_path / "rmc", "rmc", env_id, **{"rollout/success_rate": 0.5})]
    written = write_comparison(tmp_path / "out", [Result("r", "rmc", env_id, entry(0.5, 3))], runs)
    page, png, _ = written
    assert png.name == "learning-curves-mine-b-a-b_v0-x-1-y-.png"
    text = page.read_text()
    assert f"]({png.name})" in text
    assert r"| mine:&lt;b&gt;/a b_v0, x[1]\(y) | rmc |" in text
    assert "<b>" not in text


def test_comparison_in_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="cannot write"):
        write_comparison(tmp_path / "out", [Result("r", "rmc", MAZE, entry(0.5, 3))], [])

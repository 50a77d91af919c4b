"""Runs beside each other: grouped by what they were trained for, and by core."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.checkpoint import write_json
from rmc_agents.comparison import learning_curves, write_comparison
from rmc_agents.results import Result

MAZE = "MiniGrid-MemoryS9-v0"


def run(folder: Path, core: str, env_id: str, **figures: float) -> Path:
    write_json(folder / "config.json", {"agent": {"core": core}, "env": {"id": env_id}})
    lines = [{"step": step, **figures} for step in (10, 20)] if figures else []
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def entry(rate: float, hallway: int) -> dict[str, Any]:
    figures = {"success_rate": rate, "mean_return": rate, "mean_length": 9.0, "episodes": 10}
    return {**figures, "success_ci95": [rate / 2, rate], "hallway": hallway, "trained_hallway": 3}


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
    curves, of_success = found[MAZE]
    assert of_success
    assert {core: len(of_core) for core, of_core in curves.items()} == {"rmc": 2, "gru": 1}
    curves, of_success = found["CartPole-v1"]
    assert not of_success  # which one of them does not know
    assert [curve.values.tolist() for curve in curves["gru"]] == [[20.0, 20.0], [0.4, 0.4]]


def test_the_example_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    run(tmp_path / "runs" / "rmc-1", "rmc", MAZE, **{"rollout/success_rate": 0.5})
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "evaluation.md", "exec"), {})
    assert (tmp_path / "figures" / f"{MAZE}.png").is_file()


def test_a_comparison_is_written(tmp_path: Path) -> None:
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
        "all of them",
        "![success-by-hallway]",
        "# Run by run",
    ):
        assert part in page

"""The README: its length, and the figures of its tables, which are those of benchmarks/results/."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.common import with_current_flags
from rmc_agents.cores import CORES
from tests.support.documents import PAGES, README, RESULTS, examples, label, read, table_rows

MAX_WORDS = 900
RUNS = {path.stem: json.loads(path.read_text()) for path in (RESULTS / "nth_farthest").glob("*.json")}
PPO_RUNS = {path.stem: json.loads(path.read_text()) for path in (RESULTS / "nth_farthest_ppo").glob("*.json")}
MAZE_RUNS = [json.loads(path.read_text()) for path in (RESULTS / "memory_mazes").glob("*.json")]


def with_interval(rate: float, interval: Sequence[float]) -> str:
    """Return a rate as pages write it: 0.951 [0.950, 0.952]."""
    return f"{rate:.3f} [{', '.join(f'{bound:.3f}' for bound in interval)}]"


def mean_success(core: str, trained_in: str, view_size: int, evaluated_in: str) -> str:
    """Return the mean success rate over seeds of agents in a maze, with three digits."""
    rates = [
        run["evaluation"][f"MiniGrid-Memory{evaluated_in}-v0"]["success_rate"]
        for run in MAZE_RUNS
        if (run["core"], run["maze"], run["view_size"]) == (core, trained_in, view_size)
    ]
    assert len(rates) == 3
    return f"{statistics.fmean(rates):.3f}"


def measured_shares() -> set[str]:
    """Return every stored share of Nth Farthest with its interval."""
    found = {with_interval(run["accuracy"], run["ci95"]) for run in (*RUNS.values(), *PPO_RUNS.values())}
    for run in RUNS.values():
        tests = [run[key] for key in ("others", "unseen") if key in run]
        found |= {with_interval(test["success_rate"], test["success_ci95"]) for test in tests}
    return found


def test_readme_is_short() -> None:
    assert len(README.read_text().split()) <= MAX_WORDS


def test_readme_lists_every_core() -> None:
    first_cells = {row[0].strip("`") for row in table_rows(README.read_text()) if row}
    assert set(CORES) <= first_cells


def test_readme_has_examples_of_a_core_training_and_sb3() -> None:
    core, training, sb3 = examples(README)
    assert "core.step" in core
    assert "Trainer" in training
    assert "RMCPolicy" in sb3


def test_table_of_memory_mazes_equals_the_stored_results() -> None:
    rows = {row[0]: row[1:] for row in table_rows(README.read_text()) if row and len(row) == 7}
    columns = [("S11", 7, "S11"), ("S13", 7, "S13"), ("S9", 3, "S9")]
    columns += [("S13", 7, size) for size in ("S17", "S33", "S65")]
    for name, core in [
        ("RMC", "rmc"),
        ("LSTM", "lstm"),
        ("GRU", "gru"),
        ("RNN", "rnn"),
        ("none", "feedforward"),
    ]:
        assert rows[name] == [mean_success(core, *column) for column in columns], name


def test_table_of_nth_farthest_equals_the_stored_results() -> None:
    rows = {row[0]: row[1:] for row in table_rows(README.read_text()) if row and len(row) == 3}
    for name in ("RMC", "DNC", "GRU", "LSTM"):
        runs = [RUNS[name.lower()], RUNS[name.lower() if name == "RMC" else f"{name.lower()}-time"]]
        assert rows[name] == [with_interval(run["accuracy"], run["ci95"]) for run in runs], name


def test_training_speed_equals_the_stored_result() -> None:
    training = json.loads((RESULTS / "training.json").read_text())
    (speed,) = [
        row["steps/s"]
        for rows in training.values()
        if isinstance(rows, list)
        for row in rows
        if isinstance(row, dict)
        and row.get("agent") == "RMC 4x64"
        and row.get("threads") == 1
        and row.get("phase") == "walking"
        and "steps/s" in row
    ]
    (claimed,) = re.findall(r"([\d,]+)\s+training\s+steps\s+per\s+second", README.read_text())
    assert claimed == f"{round(speed, -2):,.0f}"


def generated_rows() -> list[tuple[str, dict[str, Any], list[str]]]:
    """Return the rows of the generated table of Nth Farthest, with the stored run of each."""
    page = read(RESULTS / "nth_farthest.md")
    return [
        (row[0], RUNS[row[0]], row) for row in table_rows(page) if row and row[0] in RUNS and len(row) == 9
    ]


def test_generated_tables_of_nth_farthest_equal_the_stored_results() -> None:
    rows = generated_rows()
    assert len(rows) >= 20
    (first,) = re.findall(r"`FIRST_RECIPE` stands for `([^`]+)`", read(RESULTS / "nth_farthest.md"))
    for name, run, (*_, samples, minutes, accuracy, held_out, by_rank, flags) in rows:
        assert samples == f"{run['samples'] / 1e6:.1f}", name
        assert minutes == f"{run['cpu_seconds'] / 60:.0f}", name
        assert accuracy == with_interval(run["accuracy"], run["ci95"]), name
        others = run.get("others")
        expected = "" if others is None else with_interval(others["success_rate"], others["success_ci95"])
        assert held_out == expected, name
        assert by_rank == " ".join(f"{right:.2f}" for right in run["by_rank"]), name
        flags = flags.strip("`").replace("FIRST_RECIPE", first)
        assert f"python train/nth_farthest.py {flags}" == with_current_flags(run["commands"][-1]), name


@pytest.mark.parametrize("page", [README, *PAGES], ids=label)
def test_every_share_with_an_interval_was_measured(page: Any) -> None:
    """Of Nth Farthest; the mazes' intervals are those of other figures."""
    text = read(page).replace("*", "").replace("\n", " ")
    if "nth-farthest" not in page.name and page != README:
        return
    claimed = set(re.findall(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", text))
    assert len(claimed) >= 4
    assert claimed <= measured_shares(), claimed - measured_shares()

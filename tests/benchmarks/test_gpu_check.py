"""The GPU check: its stages run on a CPU, and one that breaks costs its own results only."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.common import RESULTS
from benchmarks.report import Row
from benchmarks.speed import gpu_check
from benchmarks.speed.gpu_check_session import RESULTS_FILE, Session
from benchmarks.speed.gpu_check_stages import STAGES, Stage, run_stage
from benchmarks.speed.gpu_report import tables_of

CPU = torch.device("cpu")


@pytest.fixture
def results(tmp_path: Path) -> Callable[[str], list[Row]]:
    """Return a function that runs a stage on a CPU, quickly, and returns its results."""

    def run(name: str) -> list[Row]:
        run_stage(name, CPU, True, tmp_path, 60.0)
        rows = [json.loads(line) for line in (tmp_path / RESULTS_FILE).read_text().splitlines()]
        assert not any(map(gpu_check.has_failed, rows)), rows
        assert {row["stage"] for row in rows} == {name}
        return rows

    return run


def test_checks_pass_on_a_cpu(results: Callable[[str], list[Row]]) -> None:
    rows = results("checks")
    assert rows[-1] == {"stage": "checks", "what": "checks that passed", "count": 7}


def test_resumed_run_equals_the_uninterrupted_one(results: Callable[[str], list[Row]]) -> None:
    assert results("resume")[0]["passed"] is True


def test_training_in_graphs_is_compared_with_training_without(results: Callable[[str], list[Row]]) -> None:
    rows = results("graphs")
    assert [(row["core"], row["difference"], row["passed"]) for row in rows] == [
        ("rmc", 0, True),
        ("lstm", 0, True),
    ]
    assert all(row["host_step_ms"] > 0 and row["graph_step_ms"] > 0 for row in rows)


def test_training_in_graphs_is_compared_for_every_core(results: Callable[[str], list[Row]]) -> None:
    rows = results("cores")
    assert [(row["core"], row["difference"], row["passed"]) for row in rows] == [
        ("gru", 0, True),
        ("shm", 0, True),
    ]


def test_tasks_are_stepped_and_trained_in(results: Callable[[str], list[Row]]) -> None:
    rows = results("tasks")
    assert [(row["what"], row["task"], row["passed"]) for row in rows] == [
        (what, task, True) for task in ("rmc/Recall-v0", "rmc/TMaze-v0") for what in ("waits", "tasks")
    ]
    assert all(row["difference"] == 0 for row in rows if row["what"] == "tasks")


def test_speed_of_training_in_other_tasks_is_measured(results: Callable[[str], list[Row]]) -> None:
    (row,) = results("task-speed")
    assert (row["task"], row["core"]) == ("rmc/BoxWorldViewport-v0", "rmc")
    assert row["collect_steps_per_s"] > row["steps_per_s"] > 0


def test_triton_kernels_are_compared_with_pytorch(results: Callable[[str], list[Row]]) -> None:
    rows = [row for row in results("triton") if row["what"] == "sequence"]
    assert [(row["precision"], row["core"]) for row in rows] == [
        (precision, core) for precision in ("float32", "tf32") for core in ("rmc", "lstm", "gru")
    ]
    assert all(row["difference"] == 0 and row["ms"] > 0 for row in rows)


def test_speed_of_training_is_measured(results: Callable[[str], list[Row]]) -> None:
    rows = results("speed")
    assert {(row["core"], row["mode"]) for row in rows} == {
        (core, mode) for core in ("rmc", "lstm") for mode in ("PyTorch", "float32 graphs")
    }
    assert all(row["steps_per_s"] > 0 and row["collect_steps_per_s"] > row["steps_per_s"] for row in rows)


@pytest.mark.parametrize("name", ["waits", "kernels", "compiled"])
def test_stage_runs_on_a_cpu(name: str, results: Callable[[str], list[Row]]) -> None:
    assert results(name)


@pytest.mark.slow
def test_stages_are_processes_that_write_results(
    tmp_path: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run("speed.gpu_check", "--device", "cpu", "--stages", "machine", "--out", str(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / RESULTS_FILE).read_text().splitlines()]
    assert [row["what"] for row in rows] == [
        "machine",
        "copy",
        *["product"] * 3,
        "launch by the host",
        "launch in a graph",
        "stage",
    ]
    assert capsys.readouterr().out.rstrip().endswith(f"0 failed\nresults: {tmp_path}")


def test_stages_without_time_are_skipped(tmp_path: Path) -> None:
    gpu_check.run_stages(Namespace(stages=["target", "kernels"], seconds=10.0, out=tmp_path))
    rows = gpu_check.read_results(tmp_path)
    assert [(row["stage"], row["skipped"]) for row in rows] == [
        ("target", "10 s are left"),
        ("kernels", "10 s are left"),
    ]


def test_stage_is_ended_by_its_time_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    with (tmp_path / "log").open("w") as log:
        code = gpu_check.run_limited(["speed", "--device", "cpu", "--folder", str(tmp_path)], 0.2, log)
    assert code == "time limit"
    assert time.monotonic() - started < 20


def test_failure_inside_a_stage_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(session: Session) -> None:
        session.attempt("first", lambda: 1 // 0, core="rmc")
        session.note("second", steps_per_s=1234.5678, peak_GB=None)

    monkeypatch.setitem(STAGES, "speed", Stage(broken, 10))
    run_stage("speed", CPU, True, tmp_path, 10.0)
    rows = gpu_check.read_results(tmp_path)
    assert rows == [
        {
            "stage": "speed",
            "what": "first",
            "core": "rmc",
            "failed": "ZeroDivisionError: integer division or modulo by zero",
        },
        {"stage": "speed", "what": "second", "steps_per_s": 1235.0},
    ]
    assert gpu_check.summarise(rows)[-2:] == [
        "FAILED speed: first: core rmc, failed ZeroDivisionError: integer division or modulo by zero",
        "1 failed",
    ]


@pytest.mark.parametrize("row", [{"passed": False}, {"failed": "x"}, {"code": 1}, {"code": "time limit"}])
def test_failed_results_are_recognised(row: Row) -> None:
    assert gpu_check.has_failed(row)
    assert not gpu_check.has_failed({"passed": True, "code": 0})


def test_gpu_check_reports_a_missing_gpu(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run("speed.gpu_check")
    assert capsys.readouterr().out == "no CUDA device\n"


def test_stored_report_matches_its_results(tmp_path: Path, run: Callable[..., None]) -> None:
    run("speed.gpu_report", "--out", str(tmp_path))
    for name in ("gpu_check.json", "gpu_check.md"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), (
            "run: python -m benchmarks.speed.gpu_report"
        )


def test_report_has_a_table_for_each_stage_that_ran(tmp_path: Path) -> None:
    for name in ("speed", "graphs", "resume"):
        run_stage(name, CPU, True, tmp_path, 60.0)
    rows = gpu_check.read_results(tmp_path)
    assert list(tables_of(rows)) == ["Speed", "Graphs", "Checks"]

"""Every benchmark runs, at sizes that measure nothing, and writes what it promises."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rmc_agents.cores import RMC

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks"
Benchmark = Callable[..., dict[str, Any]]


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Runs a script as a user does, but in this process (importing torch anew takes seconds).

    Returns what it wrote as JSON.
    """
    monkeypatch.syspath_prepend(SCRIPTS)

    def run(name: str, *flags: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--quick", "--out", str(tmp_path), *flags])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"{name}.{x}" for x in ("json", "md", "png")
        ]
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        results = json.loads((tmp_path / f"{name}.json").read_text())
        page = (tmp_path / f"{name}.md").read_text()
        assert f"python benchmarks/{name}.py" in page
        assert all(
            title in page for title, rows in results.items() if isinstance(rows, list) and title[0].isupper()
        )
        assert {"processor", "cores", "torch threads", "date", "versions"} <= set(results["machine"])
        return results

    return run


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A benchmark's functions, without running it."""
    monkeypatch.syspath_prepend(SCRIPTS)

    def load(name: str) -> ModuleType:
        loaded = ModuleType(name)
        loaded.__dict__.update(runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name=name))
        return loaded

    return load


def test_cores(benchmark: Benchmark) -> None:
    results = benchmark("cores")
    assert {row["core"] for row in results["RMC"]} == {"rmc 4x64", "rmc 8x256"}
    assert {"lstm", "gru", "rnn"} <= {row["core"] for row in results["Other cores"]}
    assert all(row["times faster than port"] > 0 for row in results["RMC"])


def test_environments(benchmark: Benchmark) -> None:
    results = benchmark("environments", "--tasks", "rmc/Recall-v0", "rmc/MemoryS7-v0")
    rows = {(row["task"], row["environments"]): row for row in results["Steps per second"]}
    assert rows["rmc/Recall-v0", 16]["sync steps/s"] is None
    assert rows["rmc/MemoryS7-v0", 16]["times sync"] > 0
    assert rows["rmc/MemoryS7-v0", 16]["async steps/s"] > 0


def test_training(benchmark: Benchmark) -> None:
    rows = {row["agent"]: row for row in benchmark("training")["Training"]}
    assert {"RMC 4x64", "LSTM(128)"} < set(rows)
    for row in rows.values():
        assert min(row[f"{part} s"] for part in ("environment", "policy", "update")) > 0
    assert rows["RMC 4x64"]["times sb3 shared"] > 0


def test_scaling(benchmark: Benchmark) -> None:
    results = benchmark("scaling")
    linear = {row["what"]: row for row in results["Targets"] if row["what"].endswith(("in T", "in B"))}
    assert len(linear) == 4
    assert all(row["reached"] == "yes" for row in linear.values())  # bytes are counted, not timed
    assert len(results["Peak memory of an RMC update"]) == 1


# The compiler's own, on its first use.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_gpu_check_without_a_gpu(benchmark: Benchmark) -> None:
    results = benchmark("gpu_check", "--device", "cpu", "--cores", "lstm", "--tasks", "rmc/MemoryS7-v0")
    assert [row["passed"] for row in results["Checks"]] == ["yes"] * 7
    assert [row["note"] for row in results["Speed"]] == [""] * 2


def test_gpu_check_says_that_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks/gpu_check.py"])
    runpy.run_path(str(SCRIPTS / "gpu_check.py"), run_name="__main__")
    assert capsys.readouterr().out == "no CUDA device\n"


def test_the_gpu_check_sees_a_difference(module: Callable[[str], Any]) -> None:
    gpu_check = module("gpu_check")
    here, there = {"a": torch.ones(3)}, {"a": torch.tensor([1.0, 1.0, 1.01])}
    assert gpu_check.require_close(here, here) == "largest relative difference 0.0e+00"
    for wrong in (there, {"a": torch.tensor([1.0, 1.0, float("nan")])}):
        with pytest.raises(gpu_check.CheckFailed, match="a differs by"):
            gpu_check.require_close(wrong, here)

    def broken() -> str:
        raise RuntimeError("no such kernel\nat line 3")

    assert gpu_check.attempt("x", broken) == {
        "check": "x",
        "passed": "no",
        "detail": "RuntimeError: no such kernel",
    }


def test_the_port_is_an_rmc_and_nothing_else_is(module: Callable[[str], Any]) -> None:
    cores = module("cores")
    rmc = RMC(cores.INPUT_SIZE, num_slots=3, num_heads=2, head_size=4)
    port = cores.PortedRMC(rmc)
    cores.require_same(rmc, port)
    with torch.no_grad():
        port.memory_gates.bias.add_(0.1)
    with pytest.raises(AssertionError, match="outputs"):
        cores.require_same(rmc, port)


def test_rounds_ratios_and_targets(module: Callable[[str], Any]) -> None:
    common = module("common")
    calls: list[str] = []
    times = common.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0, (3, 9))
    assert calls == ["a", "b"] * 5  # two rounds of warm-up
    assert [len(seconds) for seconds in times.values()] == [3, 3]
    assert common.times_faster({"a": [1, 2, 1], "b": [2, 8, 3]}, "a", than="b") == 3
    assert common.target("x", 3.0, at_least=3.0)["reached"] == "yes"
    assert common.target("x", 3.1, at_most=3.0)["reached"] == "no"
    assert common.target("x", None, at_most=3.0)["reached"] == "not measured"
    assert [common.show(x) for x in (None, 12345.6, 0.01234, 7, "a")] == ["", "12,346", "0.0123", "7", "a"]


def test_nth_farthest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*flags: str) -> dict[str, Any]:
        script = SCRIPTS / "nth_farthest.py"
        monkeypatch.setattr(sys, "argv", [str(script), "--quick", "--out", str(tmp_path), *flags])
        runpy.run_path(str(script), run_name="__main__")
        return json.loads((tmp_path / "nth_farthest.json").read_text())

    empty = run("--report")
    assert "Equal samples" not in empty
    assert any("Not made yet: rmc, lstm" in note for note in empty["notes"])

    results = run("--only", "lstm", "rmc-gate-memory")
    kept = json.loads((tmp_path / "nth_farthest" / "lstm.json").read_text())
    assert kept["core"] == "lstm"
    assert kept["samples"] == kept["curve"][-1][0] == 512
    assert kept["test_samples"] == 500
    assert [row["run"] for row in results["Equal samples"]] == ["lstm"]
    assert results["Equal samples"][0]["right"] == f"{kept['accuracy']:.4f}"
    assert (tmp_path / "nth_farthest.png").stat().st_size > 5000

    before = (tmp_path / "nth_farthest" / "lstm.json").stat().st_mtime_ns
    run("--only", "lstm")  # what was made is not made again
    assert (tmp_path / "nth_farthest" / "lstm.json").stat().st_mtime_ns == before

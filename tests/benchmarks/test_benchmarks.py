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
from torch import nn

import envs
from rmc_agents import ActorCritic
from rmc_agents.config import PPOConfig, parse_options
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
        names.extend(runpy.run_path(str(script), run_name="__main__")["RUNS"])
        return json.loads((tmp_path / "nth_farthest.json").read_text())

    names: list[str] = []
    empty = run("--report")
    assert "Equal samples" not in empty
    assert names[:6] == ["rmc", "rmc-s15", "rmc-s16", "dnc", "lstm", "gru"]
    assert f"Not made yet: {', '.join(names)}." in empty["notes"]

    (tmp_path / "runs" / ".rmc-longer.copy" / "checkpoints").mkdir(parents=True)  # was cut off
    results = run("--only", "rmc-longer", "lstm", "lstm-time")  # make what they need, too
    kept = json.loads((tmp_path / "nth_farthest" / "lstm.json").read_text())
    assert kept["core"] == "lstm"
    assert kept["commands"] == ["python train/nth_farthest.py --core lstm --seed 14"]
    assert kept["samples"] == kept["curve"][-1][0] == 512
    assert kept["test_samples"] == 500
    assert [row["run"] for row in results["Equal samples"]] == ["rmc", "lstm"]
    assert results["Equal samples"][1]["right"] == f"{kept['accuracy']:.4f}"
    more = results["More samples, the first recipe"]
    assert [row["run"] for row in more] == ["rmc-first", "rmc-longer"]
    longer = json.loads((tmp_path / "nth_farthest" / "rmc-longer.json").read_text())
    assert [step for step, _, _ in longer["curve"]] == [512, 1024]
    assert longer["commands"][1] == "python train/nth_farthest.py --resume RUN --total-samples 12000000"
    assert [row["run"] for row in results["Equal wall time"]] == ["rmc", "lstm-time"]
    rmc = json.loads((tmp_path / "nth_farthest" / "rmc.json").read_text())
    minutes = f"{rmc['seconds'] / 60:.4g}"
    config = json.loads((tmp_path / "runs" / "lstm-time" / "config.json").read_text())
    assert config["supervised"]["minutes"] == float(minutes)
    as_long = json.loads((tmp_path / "nth_farthest" / "lstm-time.json").read_text())
    assert as_long["samples"] == 1024 or as_long["seconds"] >= rmc["seconds"] - 0.01
    command = f"python train/nth_farthest.py --core lstm --seed 14 --total-samples 1e9 --minutes {minutes}"
    assert as_long["commands"] == [command]
    for result in (kept, longer, as_long):
        assert result["others"]["first_seed"] == 5_000_000
        assert result["others"]["samples"] == 500
    assert [row["output"] for row in results["Equal wall time"]] == [1024, 276]
    assert (tmp_path / "nth_farthest.png").stat().st_size > 5000

    before = (tmp_path / "nth_farthest" / "lstm.json").stat().st_mtime_ns
    run("--only", "lstm")  # what was made is not made again
    assert (tmp_path / "nth_farthest" / "lstm.json").stat().st_mtime_ns == before


def test_nth_farthest_with_ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = SCRIPTS / "nth_farthest_ppo.py"
    flags = ["--quick", "--out", str(tmp_path), "--only", "small-lstm"]
    monkeypatch.setattr(sys, "argv", [str(script), *flags])
    runpy.run_path(str(script), run_name="__main__")
    kept = json.loads((tmp_path / "nth_farthest_ppo" / "small-lstm.json").read_text())
    assert kept["steps"] == 768
    assert kept["episodes"] == 100
    (row,) = json.loads((tmp_path / "nth_farthest_ppo.json").read_text())["Three objects, two dimensions"]
    assert row["right"] == f"{kept['accuracy']:.4f}"
    assert row["without relations"] == "0.667"


def test_the_products_of_an_iteration_are_counted(module: Callable[[str], Any]) -> None:
    """Of an agent without memory they can be counted by hand."""
    iteration_flops = module("arithmetic").iteration_flops
    num_envs, config = 4, PPOConfig(num_steps=32, bptt_length=16, minibatch_size=64, epochs=3)
    env = envs.make("MiniGrid-MemoryS7-v0", num_envs)
    agent = ActorCritic(env.observation_space, env.action_space, "feedforward")
    layers = {
        name: module.weight.numel() for name, module in agent.named_modules() if isinstance(module, nn.Linear)
    }
    (embedding,) = (name for name in layers if "embedding" in name)
    steps = num_envs * config.num_steps
    forward = 2 * (sum(layers.values()) + 48 * layers[embedding])  # once for each of 49 cells
    acting, learning = iteration_flops("MiniGrid-MemoryS7-v0", "feedforward", {}, num_envs, config)
    assert acting == (steps + num_envs) * forward  # and the value of what follows the last step
    # Backward costs each product twice, for its weights and for its input; nobody asks for that of the codes.
    assert learning == config.epochs * steps * (3 * forward - 2 * 49 * layers[embedding])


def test_a_run_of_the_memory_mazes(tmp_path: Path, module: Callable[[str], Any]) -> None:
    """A tiny run end to end: trained, judged, summed up."""
    study = module("memory_mazes")
    job = study.Job("S7", 7, "rmc", 11)
    figures = study.work(job, tmp_path / "results", tmp_path / "runs", quick=True)
    assert figures["steps"] == 8192
    assert set(figures["evaluation"]) == {job.env_id}
    assert figures["evaluation"][job.env_id]["implementation"] == "farama"
    assert study.read(tmp_path / "results") == [json.loads(json.dumps(figures))]
    assert [row["core"] for row in study.table([figures])] == ["rmc"]


def result(core: str, seed: int, success: float, learned: int | None) -> dict[str, Any]:
    """What a run on S13 might have given."""
    rates = {13: success, 17: success - 0.02, 25: success - 0.05, 33: success - 0.1, 65: success - 0.3}
    return {
        **{"maze": "S13", "view_size": 7, "core": core, "seed": seed, "command": "python train/ppo.py"},
        **{"steps": 3_000_000, "seconds": 300.0, "cpu_seconds": 290.0, "steps_to_learn": learned},
        "curve": {"steps": [1_000_000, 3_000_000], "success": [0.5, success]},
        "evaluation": {
            f"MiniGrid-MemoryS{size}-v0": {
                **{"success_rate": rate, "success_ci95": [rate - 0.01, rate + 0.01], "hallway": size - 6}
            }
            for size, rate in rates.items()
        },
    }


def test_the_report_of_the_memory_mazes(tmp_path: Path, module: Callable[[str], Any]) -> None:
    study = module("memory_mazes")
    found = [result("rmc", 11, 1.0, 1_200_000), result("rmc", 12, 0.98, None), result("rmc", 13, 0.99, 10**6)]
    found.append(result("feedforward", 11, 0.5, None))
    for run in found:
        study.write_json(tmp_path / "memory_mazes" / f"{run['core']}-{run['seed']}.json", run)
    rmc, control = study.table(found)
    assert (rmc["success, mean"], rmc["reached 0.95"]) == (pytest.approx(0.99), "2 of 3")
    assert control["IQM [95 %]"] == "0.500"
    assert study.longer(found)[0]["S25"] == pytest.approx(0.94)
    reached = {row["what"]: row["reached"] for row in study.targets(found)}
    assert reached["RMC on S13, view 7"] == "yes"
    assert reached["RMC on S7, view 7"] == "not measured"
    assert reached["feedforward on S13, view 7"] == "yes"
    assert reached["S13: millions of steps to 0.95, median of seeds"] == "yes"
    assert reached["RMC trained up to S13, on S33"] == "yes"
    study.report(tmp_path / "memory_mazes")
    assert "memory_mazes-s13-view7.png" in (tmp_path / "memory_mazes.md").read_text()
    assert (tmp_path / "memory_mazes-longer.png").stat().st_size > 5000


def test_steps_to_learn(module: Callable[[str], Any]) -> None:
    study = module("memory_mazes")
    curve = study.Curve.of([10, 20, 30, 40, 50, 60, 70], [0.5, 1, 1, 1, 1, 1, 1])
    assert study.steps_to(curve, 0.95) == 60  # the first by which the mean of five no longer has the 0.5
    assert study.steps_to(curve, 0.9) == 50
    assert study.steps_to(study.Curve.of([1, 2], [0, 0.5]), 0.95) is None


def test_the_study_compares_agents_of_equal_size(module: Callable[[str], Any]) -> None:
    study = module("memory_mazes")
    mazes = envs.make("MiniGrid-MemoryS13-v0", 2, actions=3)
    sizes = []
    with torch.device("meta"):
        for core, words in study.CORES.items():
            options = parse_options(words.split())
            agent = ActorCritic(mazes.observation_space, mazes.action_space, core, options)
            sizes.append(sum(p.numel() for p in agent.parameters()))
    assert max(sizes) <= 1.01 * min(sizes)

"""Studies: tiny runs are trained, evaluated and stored, and reports show what was stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_envs
from benchmarks.report import describe_machine
from benchmarks.studies import (
    classic_control,
    continuous_control,
    control_study,
    key_value,
    memory_mazes,
    memory_mazes_report,
    nth_farthest,
    popgym,
    worlds,
)
from benchmarks.studies.control_runs import Study
from benchmarks.studies.control_sb3 import binned
from benchmarks.studies.memory_mazes_runs import CORES, VARIANTS, Job
from benchmarks.studies.nth_farthest_runs import RUNS, SCRIPT
from rmc_agents import ActorCritic
from rmc_agents.cli.presets import find_preset
from rmc_agents.evaluation.curves import Curve
from rmc_agents.options import parse_options
from rmc_agents.runs.files import write_json
from train import evaluate as train_evaluate
from train import nth_farthest as train_nth_farthest
from train import ppo as train_ppo

pytestmark = pytest.mark.slow


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Nth Farthest study run its script in this process: starting Python ten times takes a minute.

    That scripts run in separate processes is tested with the other studies.
    """

    def run_here(command: Sequence[str]) -> None:
        assert command[0] == SCRIPT
        train_nth_farthest.main(command[1:])

    monkeypatch.setattr(nth_farthest, "run_script", run_here)


def test_nth_farthest_report_without_runs_lists_what_is_missing(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    run("studies.nth_farthest", "--report", "--out", str(tmp_path))
    empty = json.loads((tmp_path / "nth_farthest.json").read_text())
    assert "Equal samples" not in empty
    assert list(RUNS)[:6] == ["rmc", "rmc-s15", "rmc-s16", "dnc", "lstm", "gru"]
    assert f"Not made yet: {', '.join(RUNS)}." in empty["notes"]


@pytest.mark.usefixtures("in_this_process")
def test_nth_farthest_makes_runs_and_those_that_they_need(tmp_path: Path, run: Callable[..., None]) -> None:
    study = ("studies.nth_farthest", "--quick", "--out", str(tmp_path), "--only")
    (tmp_path / "runs" / ".rmc-longer.copy" / "checkpoints").mkdir(parents=True)  # of an interrupted copy
    run(*study, "rmc-longer", "lstm", "lstm-time")
    results = json.loads((tmp_path / "nth_farthest.json").read_text())
    stored = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "nth_farthest").iterdir()}
    lstm, longer, as_long, rmc = (stored[name] for name in ("lstm", "rmc-longer", "lstm-time", "rmc"))

    assert lstm["core"] == "lstm"
    assert lstm["commands"] == ["python train/nth_farthest.py --core lstm --seed 14"]
    assert lstm["samples"] == lstm["curve"][-1][0] == 512
    assert lstm["test_samples"] == 500
    assert [row["run"] for row in results["Equal samples"]] == ["rmc", "lstm"]
    assert results["Equal samples"][1]["accuracy"] == f"{lstm['accuracy']:.4f}"

    more = results["More samples, first recipe"]
    assert [row["run"] for row in more] == ["rmc-first", "rmc-longer"]
    assert [step for step, _, _ in longer["curve"]] == [512, 1024]
    assert longer["commands"][1] == "python train/nth_farthest.py --resume RUN --total-samples 12000000"

    assert [row["run"] for row in results["Equal wall time"]] == ["rmc", "lstm-time"]
    minutes = f"{rmc['seconds'] / 60:.4g}"
    config = json.loads((tmp_path / "runs" / "lstm-time" / "config.json").read_text())
    assert config["supervised"]["minutes"] == float(minutes)
    assert as_long["samples"] == 1024 or as_long["seconds"] >= rmc["seconds"] - 0.01
    command = f"python train/nth_farthest.py --core lstm --seed 14 --total-samples 1e9 --minutes {minutes}"
    assert as_long["commands"] == [command]
    assert [row["output size"] for row in results["Equal wall time"]] == [1024, 276]

    for result in (lstm, longer, as_long):
        assert result["others"]["first_seed"] == 5_000_000
        assert result["others"]["samples"] == 500
    assert (tmp_path / "nth_farthest.png").stat().st_size > 5000

    before = (tmp_path / "nth_farthest" / "lstm.json").stat().st_mtime_ns
    run(*study, "lstm")  # a run that was made is not made again
    assert (tmp_path / "nth_farthest" / "lstm.json").stat().st_mtime_ns == before


def test_nth_farthest_with_ppo_stores_a_run(tmp_path: Path, run: Callable[..., None]) -> None:
    run("studies.nth_farthest_ppo", "--quick", "--out", str(tmp_path), "--only", "small-lstm")
    stored = json.loads((tmp_path / "nth_farthest_ppo" / "small-lstm.json").read_text())
    assert stored["steps"] == 768
    assert stored["episodes"] == 100
    (row,) = json.loads((tmp_path / "nth_farthest_ppo.json").read_text())["Three objects, two dimensions"]
    assert row["accuracy"] == f"{stored['accuracy']:.4f}"
    assert row["without relations"] == "0.667"


def test_memory_mazes_store_a_run(tmp_path: Path) -> None:
    job = Job("S7", 7, "rmc", 11)
    figures = memory_mazes.make_run(job, tmp_path / "results", tmp_path / "runs", quick=True)
    assert figures["steps"] == 8192
    assert set(figures["evaluation"]) == {job.env_id}
    assert figures["evaluation"][job.env_id]["implementation"] == "farama"
    assert memory_mazes_report.read_results(tmp_path / "results") == [json.loads(json.dumps(figures))]
    assert [row["core"] for row in memory_mazes_report.maze_table([figures])] == ["rmc"]


def s13_result(core: str, seed: int, success: float, learned: int | None) -> dict[str, Any]:
    """Return the result of an imagined run in S13."""
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


def test_memory_mazes_report_compares_cores_with_targets(tmp_path: Path) -> None:
    report = memory_mazes_report
    found = [s13_result("rmc", 11, 1.0, 1_200_000), s13_result("rmc", 12, 0.98, None)]
    found += [s13_result("rmc", 13, 0.99, 10**6), s13_result("feedforward", 11, 0.5, None)]
    for run in found:
        write_json(tmp_path / "memory_mazes" / f"{run['core']}-{run['seed']}.json", run)
    rmc, control = report.maze_table(found)
    assert (rmc["success rate, mean"], rmc["reached 0.95"]) == (pytest.approx(0.99), "2 of 3")
    assert control["IQM [95 %]"] == "0.500"
    assert report.longer_table(found)[0]["S25"] == pytest.approx(0.94)
    reached = {row["quantity"]: row["reached"] for row in report.target_table(found)}
    assert reached["RMC in S13, view size 7: success rate"] == "yes"
    assert reached["RMC in S7, view size 7: success rate"] == "not measured"
    assert reached["feedforward in S13, view size 7: success rate"] == "yes"
    assert reached["RMC in S13: millions of steps to 0.95, median of seeds"] == "yes"
    assert reached["RMC trained up to S13, in S33: success rate"] == "yes"
    report.write_report(report.read_results(tmp_path / "memory_mazes"), describe_machine([1]), tmp_path)
    assert "memory_mazes-s13-view7.png" in (tmp_path / "memory_mazes.md").read_text()
    assert (tmp_path / "memory_mazes-longer.png").stat().st_size > 5000


def test_memory_mazes_summaries_show_every_seed_and_core() -> None:
    found = [s13_result("rmc", 11, 1.0, 1_200_000), s13_result("rmc", 12, 0.98, None)]
    found.append(s13_result("feedforward", 11, 0.5, None))
    (maze,) = memory_mazes_report.summarize_mazes(found).rows
    assert (maze["maze"], maze["success rate"]) == ("MemoryS13", "1.000, 0.980")
    assert maze["environment steps (M)"] == "3.00, 3.00"
    rmc, control = memory_mazes_report.summarize_cores(found).rows
    assert rmc["MemoryS13"] == "0.990, 1.20 M"
    assert rmc["S13 agent in S65"] == "0.690"
    assert control["MemoryS13"] == "0.500"
    assert control["MemoryS11"] == ""


def test_steps_to_a_rate_are_those_from_which_it_stays_there() -> None:
    curve = Curve.of([10, 20, 30, 40, 50, 60, 70], [0.5, 1, 1, 1, 1, 1, 1])
    assert memory_mazes.steps_to(curve, 0.95) == 60  # the first mean of five without the 0.5
    assert memory_mazes.steps_to(curve, 0.9) == 50
    assert memory_mazes.steps_to(Curve.of([1, 2], [0, 0.5]), 0.95) is None


def test_memory_mazes_compare_agents_of_equal_size() -> None:
    mazes = rmc_envs.make("MiniGrid-MemoryS13-v0", 2, actions=3)
    sizes = {}
    with torch.device("meta"):
        for name, words in CORES.items():
            options = parse_options(words.split())
            core = VARIANTS.get(name, name)
            agent = ActorCritic(mazes.observation_space, mazes.action_space, core, options)
            sizes[name] = sum(p.numel() for p in agent.parameters())
    coupled = [sizes.pop(name) for name, words in CORES.items() if "coupled_gates=True" in words]
    assert max(sizes.values()) <= 1.01 * min(sizes.values())
    for size in coupled:
        assert 0.94 * sizes["rmc"] < size < sizes["rmc"], "the input gate has no weights"


@pytest.mark.parametrize(
    ("name", "task", "theirs", "bounds"),
    [
        ("continuous_control", "pendulum", "sb3-contrib RecurrentPPO", (-2000, 0)),
        ("classic_control", "cartpole", "SB3 PPO, zoo", (0, 501)),
    ],
)
def test_study_of_control_makes_a_run_of_each_library(
    name: str,
    task: str,
    theirs: str,
    bounds: tuple[int, int],
    tmp_path: Path,
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripts = {"train/ppo.py": train_ppo.main, "train/evaluate.py": train_evaluate.main}
    monkeypatch.setattr(control_study, "run_script", lambda command: scripts[command[0]](command[1:]))
    study = (f"studies.{name}", "--quick", "--out", str(tmp_path), "--tasks", task)
    run(*study)
    folder = tmp_path / name
    results = [json.loads((folder / f"{task}-{agent}-s11.json").read_text()) for agent in ("gru", "sb3")]
    assert [result["steps"] for result in results] == [2048, 2048]
    for result in results:
        assert bounds[0] < result["mean_return"] < bounds[1]
        assert result["episodes"] == 2
        assert result["curve"]
        assert all(bounds[0] < value < bounds[1] for _, value in result["curve"])
    (rows,) = (x for x in json.loads((tmp_path / f"{name}.json").read_text()).values() if is_table(x))
    assert [row["agent"] for row in rows] == ["GRU", theirs]
    before = (folder / f"{task}-sb3-s11.json").read_bytes()
    run(*study)
    assert (folder / f"{task}-sb3-s11.json").read_bytes() == before  # made once


def is_table(value: Any) -> bool:
    return isinstance(value, list) and isinstance(value[0], dict)


def control_result(agent: str, seed: int, mean: float, curve: list[list[float]]) -> dict[str, Any]:
    """Return the result of an imagined run in CartPole-v1."""
    return {
        **{"task": "cartpole", "agent": agent, "seed": seed, "command": "python train/ppo.py"},
        **{"steps": 60_000, "seconds": 60.0, "mean_return": mean, "return_ci95": [mean - 3, mean + 3]},
        **{"episodes": 100, "curve": curve},
    }


def test_report_of_classic_control_shows_seeds_interval_and_steps_to_the_level() -> None:
    climbing = [[1000.0 * i, 100.0 * min(i, 5)] for i in range(1, 9)]
    runs = [control_result("rmc", 11, 490.0, climbing), control_result("rmc", 12, 500.0, climbing[:5])]
    results = {f"cartpole-rmc-s{each['seed']}": each for each in runs}
    study = classic_control.STUDY
    report = control_study.make_report(study, results, describe_machine([1]))
    (row,) = report.tables["CartPole-v1"]
    assert (row["agent"], row["seeds"], row["mean return"]) == ("RMC", 2, "495.0")
    assert row["95 % interval"] == "492.9 to 497.1"
    assert row["steps to 475 in training"] == "7,000, never"
    assert "cartpole-rmc-s13" in report.notes[-1]
    assert len(control_study.draw(study, results).axes) == 1


def test_report_shows_success_rates_where_all_runs_have_them_and_options_in_titles() -> None:
    def result(task: str, seed: int, **rates: float) -> dict[str, Any]:
        return control_result("gru", seed, 1.5, []) | {"task": task} | rates

    runs = [
        *(result("box-world", 11, success_rate=0.25), result("box-world", 12, success_rate=0.5)),
        *(result("memory-maze", 11, success_rate=0.25), result("memory-maze", 12)),
    ]
    results = {f"{each['task']}-gru-s{each['seed']}": each for each in runs}
    tables = control_study.make_report(worlds.STUDY, results, describe_machine([1])).tables
    (row,) = tables["rmc/BoxWorldViewport-v0, max_solution=3"]
    assert row["success rate"] == "0.375 (0.250 to 0.500)"
    (row,) = tables["rmc/MemoryMaze-9x9-v0"]
    assert "success rate" not in row


@pytest.mark.parametrize(
    "study",
    [continuous_control.STUDY, classic_control.STUDY, key_value.STUDY, popgym.STUDY, worlds.STUDY],
    ids=lambda s: s.name,
)
def test_study_of_control_has_presets_and_names_for_all_runs(study: Study) -> None:
    assert {job.task for job in study.jobs.values()} == set(study.tasks)
    for task in study.tasks.values():
        assert find_preset(task.env_id) is not None
    for agent in study.agents:
        assert control_study.name_of(study, agent)


def test_trial_of_continuous_control_is_not_stored_among_the_results(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("studies.continuous_control", "--steps", "100")
    assert "--steps is for trials: give --out" in capsys.readouterr().err


def test_learning_curve_of_sb3_averages_the_episodes_of_a_span() -> None:
    ends = [(10, 1.0), (20, 3.0), (25, 5.0), (1000, 7.0)]
    assert binned(ends, 1000) == [[10, 1.0], [20, 3.0], [30, 5.0], [1000, 7.0]]
    assert binned(ends, 2000) == [[20, 2.0], [40, 5.0], [1000, 7.0]]

"""`python train/evaluate.py`, from a run folder to tables, figures, pictures and a report."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rmc_envs
from rmc_agents import CORES, PPOConfig, Trainer, UsageError
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.folder import read_config, write_config
from rmc_agents.supervised.classifier import SequenceClassifier, load_classifier
from tests.support.agents import MAZE, small_agent, small_env
from tests.support.commands import run_script
from tests.support.runs import saved_run
from train import evaluate

QUIET = ("--no-gif", "--no-report")
MY_PARTS = """
import rmc_envs
from rmc_agents.cores import CORES, GRU


class Mine(GRU):
    pass


CORES["mine"] = Mine
rmc_envs.register("mine/Recall-v0", rmc_envs.Recall)
"""
"""A user's module, which registers a core and a task."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("runs") / "maze", actions=3)


def entries(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


@pytest.mark.slow
def test_evaluate_makes_tables_figures_and_pictures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(run), "--episodes", "2", "--stochastic"])
    shown = capsys.readouterr().out
    written = [str(run / name) for name in ("evaluation.json", "report.html")]
    for part in (MAZE, "farama", "maze (rmc)", "random", "best possible", *written):
        assert part in shown
    assert "# Evaluation of maze" in (run / "evaluation.md").read_text()
    assert MAZE in (run / "report.html").read_text()
    entry = entries(run)[MAZE]
    assert entry["implementation"] == "farama"
    assert entry["deterministic"] is False
    assert entry["first_seed"] == 1_000_000
    assert entry["episodes"] == 2
    assert entry["random"]["implementation"] == "exact"
    assert (entry["hallway"], entry["trained_hallway"]) == (1, 1)
    assert entry["best_possible"]["mean_length"] == pytest.approx(6.0, abs=0.1)
    assert entry["checkpoint"].endswith("step_000000000007.pt")
    assert entry["command"] == f"python train/evaluate.py {run} --episodes 2 --stochastic"
    assert "torch" in entry["versions"]
    assert "date" in entry
    picture = run / "media" / f"{MAZE}.gif"
    assert str(picture) in shown
    with Image.open(picture) as gif:
        assert gif.n_frames > 3


def test_evaluation_file_has_the_documented_keys(tmp_path: Path) -> None:
    """The keys, and their order, are those of earlier releases."""
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    blind = saved_run(tmp_path / "blind", core="feedforward", actions=3)
    evaluate.main([str(run), "--episodes", "2", "--memoryless", str(blind), *QUIET])
    figures = ["success_rate", "success_ci95", "mean_return", "return_ci95", "mean_length", "episodes"]
    entry = entries(run)[MAZE]
    assert list(entry) == [
        *(*figures, "first_seed", "implementation", "deterministic", "seconds", "random", "best_possible"),
        *("hallway", "trained_hallway", "memoryless", "command", "versions", "checkpoint", "date"),
    ]
    computed = {"success_rate", "mean_return", "mean_length"}
    assert set(entry["random"]) == {*computed, "implementation"}
    assert set(entry["best_possible"]) == computed
    assert set(entry["memoryless"]) == {*figures, "implementation", "run"}


def test_implementations_agree_and_other_mazes_are_added(run: Path) -> None:
    checkpoint = str(run / "checkpoints" / "step_000000000007.pt")
    figures = []
    for kind in ("farama", "batched"):
        flags = ["--episodes", "3", "--implementation", kind, *QUIET, "--seed", "3"]
        evaluate.main([checkpoint, *flags])
        figures.append(
            {key: entries(run)[MAZE][key] for key in ("success_rate", "mean_length", "first_seed")}
        )
    assert figures[0] == figures[1]
    evaluate.main([str(run), "--env", "MiniGrid-MemoryS9-v0, rmc/MemoryS7-v0", "--episodes", "2", *QUIET])
    assert set(entries(run)) == {MAZE, "MiniGrid-MemoryS9-v0", "rmc/MemoryS7-v0"}


def test_several_runs_are_compared_by_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"num_symbols": 3, "delay": 1}
    runs = [
        saved_run(tmp_path / f"{core}{i}", "rmc/Recall-v0", core, **options)
        for core in ("gru", "rnn")
        for i in "12"
    ]
    for run in runs:
        (run / "log.jsonl").write_text('{"step": 100, "rollout/success_rate": 0.5}\n')
    out = tmp_path / "together"
    evaluate.main([*map(str, runs), "--episodes", "20", "--no-gif", "--out", str(out)])
    shown = capsys.readouterr().out
    assert "by core" in shown
    assert "P(better than" in shown
    page = (out / "comparison.md").read_text()
    assert "learning-curves-rmc-Recall-v0.png" in page
    assert (out / "learning-curves-rmc-Recall-v0.png").is_file()
    assert all(run.name in page for run in runs)


def test_classifiers_are_reported_and_skipped(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = tmp_path / "classifier"
    model = SequenceClassifier(4, 3, "gru", {"hidden_size": 8})
    write_config(classifier, {"classifier": model.to_json()})
    save_checkpoint(classifier, 7, {"agent": model.state_dict()})
    evaluate.main([str(classifier), str(run), "--episodes", "2", "--no-gif", "--no-report"])
    command = f"python train/nth_farthest.py --evaluate {classifier}"
    reported = f"{classifier} holds a classifier, not an agent: {command}"
    assert f"skipped: {reported}" in capsys.readouterr().out
    with pytest.raises(UsageError, match="holds a classifier"):
        evaluate.main([str(classifier), "--episodes", "2"])
    with pytest.raises(UsageError, match="none of these runs"):
        evaluate.main([str(classifier), str(classifier), "--episodes", "2"])
    with pytest.raises(UsageError, match=r"holds an agent, not a classifier: load it with rmc_agents\.load"):
        load_classifier(run)


@pytest.mark.slow
def test_suite_is_evaluated_at_the_agents_own_view_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An untrained agent takes minutes to the time limits of the longest mazes.
    suite = (MAZE, "MiniGrid-MemoryS9-v0", "MiniGrid-MemoryS11-v0")
    monkeypatch.setitem(rmc_envs.SUITES, "memory-mazes", suite)
    run = saved_run(tmp_path / "near", actions=3, view_size=3)
    blind = saved_run(tmp_path / "blind", core="feedforward", actions=3, view_size=3)
    flags = ["--suite", "memory-mazes", "--memoryless", str(blind), "--stochastic"]
    evaluate.main([str(run), *flags, "--episodes", "2", "--implementation", "batched"])
    assert set(entries(run)) == set(suite)
    longest = entries(run)["MiniGrid-MemoryS11-v0"]
    assert (longest["hallway"], longest["trained_hallway"]) == (5, 1)
    assert longest["memoryless"]["run"] == "blind"
    # The memoryless run is evaluated only besides the other: its folder stays as it is.
    assert "evaluation.json" not in {path.name for path in blind.iterdir()}
    assert "blind (no memory)" in capsys.readouterr().out
    for name in ("success-by-hallway.png", f"{MAZE}.gif"):
        assert (run / "media" / name).is_file()
    assert len(list((run / "media").glob("*.gif"))) == 1  # only of the maze in which it was trained


def test_popgym_suite_evaluates_each_run_in_its_own_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = saved_run(tmp_path / "one", "popgym-RepeatPreviousEasy-v0", "gru")
    other = saved_run(tmp_path / "other", "rmc/AutoencodeEasy-v0", "gru")
    flags = ["--episodes", "2", "--no-gif", "--no-report"]
    evaluate.main([str(one), str(other), "--suite", "popgym-easy", *flags])
    assert set(entries(one)) == {"popgym-RepeatPreviousEasy-v0"}
    assert set(entries(other)) == {"popgym-AutoencodeEasy-v0"}
    entry = entries(one)["popgym-RepeatPreviousEasy-v0"]
    assert entry["reference"]["mean_return"] == 1.0
    assert entry["best_memoryless"]["mean_return"] < -0.4
    printed = capsys.readouterr().out
    for text in ("reference play", "best without memory", "normalised", "mean over 2 tasks"):
        assert text in printed
    with pytest.raises(UsageError, match="trained in no task of the suite popgym-hard"):
        evaluate.main([str(one), "--suite", "popgym-hard", *flags])
    hard = saved_run(tmp_path / "hard", "popgym-RepeatFirstHard-v0", "gru")
    evaluate.main([str(one), str(hard), "--suite", "popgym-easy", *flags])
    assert f"skipped: {hard} was trained in no task of the suite popgym-easy" in capsys.readouterr().out
    assert not (hard / "evaluation.json").exists()
    with pytest.raises(
        UsageError, match="none of these runs was trained in a task of the suite popgym-medium"
    ):
        evaluate.main([str(one), str(hard), "--suite", "popgym-medium", *flags])
    with pytest.raises(UsageError, match="leave out --env"):
        evaluate.main([str(one), "--suite", "popgym-easy", "--env", "popgym-RepeatFirstEasy-v0", *flags])


def test_runs_count_once_and_have_names_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [saved_run(Path(parent) / "run", "popgym-RepeatFirstEasy-v0", "gru") for parent in ("a", "b")]
    for run, score in zip(runs, (0.25, 0.75), strict=True):
        (run / "log.jsonl").write_text(f'{{"step": 7, "rollout/ep_rew_mean": {score}}}\n')
    flags = ["--suite", "popgym-easy", "--episodes", "2", "--no-gif", "--no-report"]
    evaluate.main([*map(str, runs), str(runs[0].resolve()), *flags])
    printed = capsys.readouterr().out
    assert re.search(r"gru +│ +2 │ +-?[\d.]+ │ +0\.500 │", printed)
    assert "a/run (gru)" in printed
    assert "b/run (gru)" in printed


@pytest.mark.parametrize("env_id", ["popgym-RepeatPreviousEasy-v0", "rmc/RepeatPreviousEasy-v0"])
def test_popgym_suite_refuses_runs_of_a_task_with_other_options(tmp_path: Path, env_id: str) -> None:
    run = saved_run(tmp_path / "run", env_id, "gru", k=8)
    with pytest.raises(
        UsageError, match=r"trained in popgym-RepeatPreviousEasy-v0 with k=8, which is no task"
    ):
        evaluate.main([str(run), "--suite", "popgym-easy"])


def test_any_gymnasium_environment_is_evaluated(tmp_path: Path) -> None:
    pole = saved_run(tmp_path / "pole", "CartPole-v1", "gru")
    evaluate.main([str(pole), "--episodes", "1"])
    entry = entries(pole)["CartPole-v1"]
    assert entry["implementation"] == "gymnasium"
    assert entry["success_rate"] is None
    assert entry["best_possible"] is None
    assert entry["mean_return"] == entry["mean_length"]
    assert (pole / "media" / "CartPole-v1.gif").is_file()


def test_options_of_the_flag_replace_those_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved_run(tmp_path / "run", "rmc/Recall-v0", "gru", num_symbols=3, delay=1)
    blind = saved_run(tmp_path / "blind", "rmc/Recall-v0", "feedforward", num_symbols=3, delay=1)
    flags = ["--episodes", "4", "--memoryless", str(blind)]
    evaluate.main([str(run), *flags, *QUIET])
    evaluate.main([str(run), *flags, "--env-options", "delay=4"])
    before, after = (entries(run)[name] for name in ("rmc/Recall-v0", "rmc/Recall-v0 delay=4"))
    for entry, length in ((before, 3), (after, 6)):
        assert entry["mean_length"] == entry["random"]["mean_length"] == length
        assert entry["memoryless"]["mean_length"] == length
    assert after["command"].endswith("--env-options delay=4")
    with Image.open(run / "media" / "rmc-Recall-v0-delay-4.gif") as gif:
        assert gif.n_frames >= 6
    assert "run in rmc/Recall-v0 delay=4: success" in capsys.readouterr().out
    assert "rmc/Recall-v0 delay=4" in (run / "evaluation.md").read_text()
    assert "rmc/Recall-v0 delay=4" in (run / "report.html").read_text()


def test_options_of_the_flag_apply_to_the_environment_of_the_flag_env(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", actions=3)
    flags = ["--episodes", "2", "--implementation", "batched", *QUIET]
    evaluate.main([str(run), "--env", "rmc/Memory-v0", "--env-options", "size=9", "hallway=5", *flags])
    assert list(entries(run)) == ["rmc/Memory-v0 hallway=5 size=9"]


def test_stored_references_are_not_those_of_other_options(tmp_path: Path) -> None:
    task = "popgym-RepeatPreviousEasy-v0"
    run = saved_run(tmp_path / "run", task, "gru")
    for options in ([], ["--env-options", "k=8"]):
        evaluate.main([str(run), "--episodes", "2", *QUIET, *options])
    assert "reference" in entries(run)[task]
    assert "reference" not in entries(run)[f"{task} k=8"]


def test_run_made_from_python_is_evaluated_in_its_environment(tmp_path: Path) -> None:
    env = small_env(4)
    agent = small_agent("gru", env)
    Trainer(
        agent,
        env,
        PPOConfig(total_steps=256, num_steps=32, bptt_length=8, minibatch_size=128),
        tmp_path / "r",
    ).run()
    evaluate.main([str(tmp_path / "r"), "--episodes", "10", *QUIET])
    assert entries(tmp_path / "r")["rmc/Recall-v0"]["episodes"] == 10


def test_run_without_an_environment_needs_the_flag_env(tmp_path: Path) -> None:
    folder = saved_run(tmp_path / "python", actions=3)
    config = read_config(folder)
    del config["environment"]  # as for environments that rmc_envs.make did not make
    write_config(folder, config)
    with pytest.raises(UsageError, match="choose an --env"):
        evaluate.main([str(folder)])
    evaluate.main([str(folder), "--env", MAZE, "--episodes", "1", *QUIET, "--implementation", "batched"])
    assert MAZE in entries(folder)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module, and the run of an agent with the user's core."""
    module = tmp_path / "my_parts.py"
    module.write_text("from rmc_agents.cores import GRU\n\n\nclass Mine(GRU): pass\n")
    spec = importlib.util.spec_from_file_location("my_parts_of_the_test", module)
    assert spec is not None
    assert spec.loader is not None
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    with monkeypatch.context() as patch:
        patch.setitem(CORES, "mine", mine.Mine)
        saved_run(tmp_path / "run", "rmc/Recall-v0", "mine", num_symbols=3, delay=1)
    module.write_text(MY_PARTS)
    return tmp_path


def test_users_core_and_task_are_imported_from_the_current_directory(user_folder: Path) -> None:
    env_ids = "my_parts:mine/Recall-v0"
    options = {"num_symbols": 3, "delay": 1}
    config = read_config(user_folder / "run")
    config["environment"] |= {"env": env_ids, "env_options": options}
    write_config(user_folder / "run", config)
    words = ["run", "--import", "my_parts", "--episodes", "4", "--no-gif"]
    result = run_script("evaluate", *words, cwd=user_folder)
    assert result.code == 0, result.errors
    assert entries(user_folder / "run")[env_ids]["episodes"] == 4
    assert entries(user_folder / "run")[env_ids]["implementation"] == "batched"


def test_remembered_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "remembered_module.py").write_text("")
    run = saved_run(tmp_path / "run", core="gru", actions=3, imports=("remembered_module",))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UsageError, match=rf"{run} cannot be loaded: .*'remembered_module'"):
        evaluate.main([str(run)])
    monkeypatch.chdir(tmp_path)
    flags = ["--episodes", "1", "--implementation", "batched", *QUIET]
    evaluate.main([str(run), *flags])
    assert sys.modules.pop("remembered_module").__name__ == "remembered_module"
    with pytest.raises(UsageError, match="cannot import the module 'no_such_module'"):
        evaluate.main([str(run), "--import", "no_such_module"])


def test_unknown_core_is_one_message(user_folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown core 'mine'"):
        evaluate.main([str(user_folder / "run")])


def test_stored_command_is_the_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/rmc-evaluate"])
    evaluate.main([str(run), "--episodes", "1", "--implementation", "batched", *QUIET])
    expected = f"rmc-evaluate {run} --episodes 1 --implementation batched --no-gif --no-report"
    assert entries(run)[MAZE]["command"] == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "MiniGrid-MemoryS8-v0"], "odd"),
        (["--env", "Nope-v0"], "unknown environment 'Nope-v0'"),
        (["--env", "CartPole-v1"], "observation_space"),
        (["--env", "CartPole-v1", "--implementation", "farama"], "not one of Farama's"),
        (["--env", "CartPole-v1", "--implementation", "batched"], "no batched implementation"),
        (["--env", "no_such_module:Task-v0"], "cannot import the module 'no_such_module'"),
        (["--env-options", "size=9", "--implementation", "batched"], "has no option size; it has"),
        (["--env-options", "view_size=5"], "observation_space"),
        (["--env-options", "view_size=4"], "odd"),
        (["--env-options", "actions=3", "--suite", "memory-mazes"], "--env-options changes the tasks"),
        (["--episodes", "0"], "--episodes 0"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_bad_flag_is_one_message_before_any_work(run: Path, flags: list[str], message: str) -> None:
    before = (run / "evaluation.json").read_bytes() if (run / "evaluation.json").exists() else None
    with pytest.raises(UsageError, match=message):
        evaluate.main([str(run), *flags])
    assert before is None or (run / "evaluation.json").read_bytes() == before


def test_damaged_entry_is_reported_before_any_work(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    damaged = '{"Other-v0": {"success_rate": "high"}}'
    (run / "evaluation.json").write_text(damaged)
    with pytest.raises(UsageError, match=r"evaluation\.json, entry 'Other-v0': success_rate is 'high'"):
        evaluate.main([str(run), *QUIET])
    assert (run / "evaluation.json").read_text() == damaged


def test_script_exits_with_2_for_a_folder_without_a_run(tmp_path: Path) -> None:
    result = run_script("evaluate", str(tmp_path / "none"), cwd=tmp_path)
    assert result.code == 2
    assert "is not a run folder" in result.errors
    assert len(result.errors.strip().splitlines()) == 1

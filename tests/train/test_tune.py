"""`python train/tune.py`: studies that continue, presets, scores, pruning, interruptions; tiny budgets."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

import train.tune
from rmc_agents.cli.config import RunConfig
from rmc_agents.errors import Interrupted, TrainingError
from rmc_agents.tuning.curve import LearningCurve
from rmc_agents.tuning.study import FIRST_SEED
from tests.support.commands import Command, in_process, run_script

SMALL = [
    *("--num-envs", "8", "--num-steps", "16", "--bptt-length", "8", "--minibatch-size", "64"),
    *("--epochs", "1", "--total-steps", "512", "--points", "2", "--core", "gru"),
]
RECALL = [*SMALL, "--env", "rmc/Recall-v0", "--study", "mine"]
RATE = ["--search-only", "--search", "learning_rate=1e-4:1e-2:log"]
STUDY = Path("runs/studies/mine")


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process("tune", monkeypatch, capfd)


def trials_of(name: str = "mine", storage: str = f"sqlite:///{STUDY}/study.db") -> list[Any]:
    return optuna.load_study(study_name=name, storage=storage).trials


def test_study_is_made_continued_and_gives_a_preset(
    tune: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*RECALL, "--seeds", "2", "--export", "scores.json"]
    code, output, errors = tune(*words, "--trials", "2")
    assert code == 0, errors
    assert "trial 0: score " in output
    assert "study mine in runs/studies/mine: 2 complete" in output
    code, output, errors = tune(*words, "--trials", "3")
    assert code == 0, errors
    assert "trial 0: " not in output
    assert "trial 2: " in output

    trials = trials_of()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert "gamma" in trials[0].params
    assert "num_envs" not in trials[0].params, "it has a flag of its own"
    scores = {f"trial {t.number}": np.array(t.user_attrs["scores"]) for t in trials}
    assert [t.value for t in trials] == [pytest.approx(each.mean()) for each in scores.values()]
    exported = json.loads(Path("scores.json").read_text())
    assert exported["tasks"] == ["rmc/Recall-v0"]
    assert {name: np.array(rows).tolist() for name, rows in exported["scores"].items()} == {
        name: each[:, None].tolist() for name, each in scores.items()
    }
    seeds = sorted(path.name for path in (STUDY / "trial-0000").glob("seed-*"))
    assert seeds == [f"seed-{FIRST_SEED}", f"seed-{FIRST_SEED + 1}"]
    assert (STUDY / "trial-0000" / seeds[0] / "config.json").is_file()
    assert "steps 512" in (STUDY / "trial-0000" / "output.txt").read_text()

    best = max(trials, key=lambda trial: trial.value)
    preset = json.loads((STUDY / "best.json").read_text())
    assert preset["about"]["trial"] == best.number
    assert preset["ppo"]["gamma"] == best.params["gamma"]
    ppo = in_process("ppo", monkeypatch, capfd)
    code, output, errors = ppo("--preset-file", str(STUDY / "best.json"), "--run-dir", "run", "--seed", "5")
    assert code == 0, errors
    config = json.loads(Path("run/config.json").read_text())
    assert config["ppo"] == preset["ppo"]
    assert config["agent"]["core_options"] == preset["agent"]["core_options"]


def test_printed_command_trains_with_the_best_settings(
    tune: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _, output, _ = tune(*RECALL, *RATE, "--trials", "2", "--seeds", "1")
    (line,) = [line for line in output.splitlines() if line.startswith("the same, flag by flag: ")]
    words = line.partition("train/ppo.py ")[2].split()
    assert in_process("ppo", monkeypatch, capfd)(*words, "--run-dir", "run").code == 0
    preset = json.loads((STUDY / "best.json").read_text())
    config = json.loads(Path("run/config.json").read_text())
    assert {name: config[name] for name in ("environment", "ppo")} == {
        name: preset[name] for name in ("environment", "ppo")
    }


def test_evaluations_and_the_end_of_the_curve_can_be_scored(tune: Command) -> None:
    words = [*RECALL, *RATE, "--trials", "1", "--seeds", "1", "--score", "final", "--score-episodes", "4"]
    code, _, errors = tune(*words)
    assert code == 0, errors
    (trial,) = trials_of()
    (curve,) = trial.user_attrs["curves"]
    log = (STUDY / "trial-0000" / f"seed-{FIRST_SEED}" / "log.jsonl").read_text().splitlines()
    evaluated = [row["eval/success_rate"] for row in map(json.loads, log) if "eval/success_rate" in row]
    assert curve == evaluated
    assert trial.value == evaluated[-1]


def test_environment_of_gymnasium_is_scored_by_its_return(tune: Command) -> None:
    code, _, errors = tune(
        *SMALL, "--env", "CartPole-v1", "--study", "mine", *RATE, "--trials", "1", "--seeds", "1"
    )
    assert code == 0, errors
    assert 5 < trials_of()[0].value < 100


def scripted(monkeypatch: pytest.MonkeyPatch, results: Sequence[float | BaseException]) -> None:
    """Let each run report the next of these success rates at every point, or raise the error, untrained."""
    left = list(results)

    def play(config: RunConfig, curve: LearningCurve) -> None:
        assert config.run.run_dir is not None
        config.run.run_dir.mkdir()
        result = left.pop(0)
        if isinstance(result, BaseException):
            raise result
        for steps in range(128, 513, 128):
            trainer = SimpleNamespace(steps=steps, config=config.ppo, env=SimpleNamespace(tasks=("one",)))
            if not curve.on_iteration(trainer, {"rollout/success_rate": result}):
                return

    monkeypatch.setattr(train.tune, "train", play)


def states() -> list[str]:
    return [trial.state.name for trial in trials_of()]


def test_score_is_the_mean_over_seeds(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 1.0, 0.25, 0.75])
    _, output, _ = tune(*RECALL, *RATE, "--trials", "2", "--seeds", "2")
    assert [trial.value for trial in trials_of()] == [0.75, 0.5]
    assert "trial 0: score 0.75 (by seed: 0.5 1)" in output


def test_hopeless_trials_are_pruned_by_their_curve(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.6, 0.7, 0.8, 0.9, 0.1])
    words = [*RECALL, *RATE, "--points", "4", "--seeds", "1", "--keep", "best"]
    code, output, errors = tune(*words, "--trials", "6")
    assert code == 0, errors
    assert "trial 5: pruned at point 2 of 4, seed 1 of 1" in output
    assert "5 complete, 1 pruned" in output
    assert [path.name for path in STUDY.glob("trial-*")] == ["trial-0004"]
    assert json.loads((STUDY / "best.json").read_text())["about"]["score"] == pytest.approx(0.9)


def test_trial_that_diverges_counts_as_pruned(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [TrainingError("the loss is not finite"), 0.5])
    code, output, errors = tune(*RECALL, *RATE, "--trials", "2", "--seeds", "1")
    assert code == 0, errors
    assert "trial 0: diverged: the loss is not finite" in output
    assert states() == ["PRUNED", "COMPLETE"]


def test_full_disk_ends_the_sweep(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    error = TrainingError("the checkpoint could not be saved")
    error.__cause__ = OSError(28, "No space left on device")
    scripted(monkeypatch, [error])
    code, _, errors = tune(*RECALL, *RATE, "--trials", "2", "--seeds", "1")
    assert code == 1
    assert "could not be saved" in errors
    assert states() == ["FAIL"]


@pytest.mark.parametrize(
    ("stop", "code"),
    [(Interrupted("saved", signal.SIGTERM), 143), (KeyboardInterrupt(), 130)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_interrupted_trial_is_repeated(
    stop: BaseException, code: int, tune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*RECALL, *RATE, "--trials", "3", "--seeds", "2"]
    scripted(monkeypatch, [0.5, 0.5, 0.6, stop])
    ended = tune(*words)
    assert ended.code == code
    assert "the same command continues the study" in ended.errors
    assert "Traceback" not in ended.errors
    assert states() == ["COMPLETE", "FAIL", "WAITING"]
    scripted(monkeypatch, [0.6, 0.6, 0.7, 0.7])
    assert tune(*words).code == 0
    assert states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    trials = trials_of()
    assert trials[2].params == trials[1].params


def test_bug_keeps_its_traceback_and_the_study(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, ZeroDivisionError("a bug")])
    with pytest.raises(ZeroDivisionError):
        tune(*RECALL, *RATE, "--trials", "3", "--seeds", "1")
    assert states() == ["COMPLETE", "FAIL"]


def test_timeout_starts_no_further_trial(tune: Command) -> None:
    code, output, _ = tune(*RECALL, *RATE, "--trials", "3", "--timeout", "1e-9")
    assert code == 0
    assert "no trial has ended with a score yet" in output


@pytest.mark.slow
def test_two_workers_share_the_trials_of_a_study(tmp_path: Path) -> None:
    code, output, errors = run_script(
        "tune", *RECALL, *RATE, "--trials", "2", "--seeds", "1", "--workers", "2", cwd=tmp_path
    )
    assert code == 0, errors
    assert "study mine in runs/studies/mine: 2 workers" in output
    assert "study mine in runs/studies/mine: 2 complete" in output
    assert [f"trial {number}: score" in output for number in range(3)] == [True, True, False]


def test_failed_worker_is_one_message(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.tune, "run_workers", lambda number, args: ([0, 1], None))
    ended = tune(*RECALL, *RATE, "--workers", "2")
    assert ended.code == 1
    assert ended.errors == "error: worker 2 ended with code 1; the same command continues the study\n"
    monkeypatch.setattr(train.tune, "run_workers", lambda number, args: ([130, 130], signal.SIGINT))
    assert tune(*RECALL, *RATE, "--workers", "2").code == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--search", "num_slots=2,4"], "no setting 'num_slots' can be searched for core gru; there are: "),
        (["--search", "gamma=0.9:2"], "search gamma: 2.0 is not possible"),
        (["--search", "gamma=0.9,0.99", "--gamma", "0.9"], "gamma is searched and has a flag of its own"),
        (["--search", "hidden_size=8,9", "--core-options", "hidden_size=8"], "has a flag of its own"),
        (["--search-only"], "nothing to search"),
        (["--seeds", "0"], "--seeds 0: expected 1 to 100"),
        (["--timeout", "-1"], "--timeout -1.0: expected more than 0 seconds"),
        (["--storage", "nowhere/x.db"], "cannot be opened"),
        (["--storage", "oracle://x"], "cannot be opened"),
        (["--preset-file", "nowhere.json"], "preset nowhere.json cannot be read"),
        (["--minibatch-size", "48"], "--minibatch-size must divide"),
    ],
)
def test_mistake_is_one_message_and_leaves_nothing(words: list[str], message: str, tune: Command) -> None:
    code, _, errors = tune(*RECALL, *words)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_study_with_other_settings_is_refused(tune: Command) -> None:
    assert tune(*RECALL, *RATE, "--timeout", "1e-9").code == 0
    code, _, errors = tune(*RECALL, *RATE, "--gamma", "0.9")
    assert code == 2
    assert "study mine was started with other settings: --gamma was 0.99, now 0.9" in errors
    code, _, errors = tune(*RECALL, "--search-only", "--search", "learning_rate=1e-4:1e-3:log")
    assert "--search learning_rate was 0.0001:0.01:log, now 0.0001:0.001:log" in errors

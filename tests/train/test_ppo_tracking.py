"""`python train/ppo.py` with trackers and evaluation during training, also where a run is resumed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.runs.folder import best_checkpoint
from rmc_agents.training.callbacks import Callback
from tests.support.commands import Command, in_process

TINY = [
    *("--num-envs", "8", "--num-steps", "16", "--bptt-length", "8", "--minibatch-size", "64"),
    *("--epochs", "1", "--total-steps", "256", "--run-dir", "run"),
]


@pytest.fixture
def ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process("ppo", monkeypatch, capfd)


def evaluated(run_dir: Path) -> list[int]:
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "eval/mean_reward" in line]


@pytest.mark.parametrize("env", ["MiniGrid-MemoryS7-v0", "CartPole-v1", "MiniGrid-DoorKey-5x5-v0"])
def test_eval_every_evaluates_names_the_best_checkpoint_and_is_resumed(
    env: str, ppo: Command, tmp_path: Path
) -> None:
    code, output, errors = ppo(*TINY, "--env", env, "--eval-every", "128", "--eval-episodes", "2")
    assert code == 0, errors
    assert evaluated(tmp_path / "run") == [128, 256]
    best = best_checkpoint(tmp_path / "run", "evaluation")
    assert best is not None
    assert f"best evaluation: {'return' if env == 'CartPole-v1' else 'success'}" in output
    assert best[0].name in output
    code, _, errors = ppo("--resume", "run", "--total-steps", "512")
    assert code == 0, errors
    assert evaluated(tmp_path / "run") == [128, 256, 384, 512]
    code, _, errors = ppo("--resume", "run", "--total-steps", "640", "--eval-every", "None")
    assert code == 0, errors
    assert evaluated(tmp_path / "run") == [128, 256, 384, 512]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eval-every", "0"], "--eval-every 0: expected 1 or more steps"),
        (["--eval-every", "9", "--eval-episodes", "0"], "--eval-episodes 0: expected 1 to 1,000,000"),
        (["--track", "tensorbored"], "invalid choice 'tensorbored'"),
    ],
)
def test_mistakes_are_one_message(words: list[str], message: str, ppo: Command, tmp_path: Path) -> None:
    code, _, errors = ppo(*TINY, *words)
    assert code == 2
    assert message in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_tracker_is_one_message_before_training(
    name: str, ppo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    missing = {"wandb", "mlflow"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, *more: None if module in missing else find(module, *more)
    )
    code, _, errors = ppo(*TINY, "--track", name)
    assert code == 2
    assert errors == f"error: {name} is not installed: pip install 'rmc-agents[{name}]'\n"
    assert not (tmp_path / "run").exists()


def test_track_is_resumed(ppo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    class Recorder(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
            seen.append((asked[-1], trainer.steps))

    asked: list[str] = []
    monkeypatch.setattr("train.ppo.make_trackers", lambda name: asked.append(name) or [Recorder()])
    assert ppo(*TINY, "--track", "mlflow")[0] == 0
    assert ppo("--resume", "run", "--total-steps", "384")[0] == 0
    assert ppo("--resume", "run", "--total-steps", "512", "--track", "none")[0] == 0
    assert seen == [("mlflow", 128), ("mlflow", 256), ("mlflow", 384), ("none", 512)]


@pytest.mark.parametrize(
    "forged",
    [{"evaluation": [1]}, {"evaluation": {"every": "x"}}, {"evaluation": {"every": -1}}, {"track": []}],
)
def test_forged_settings_are_one_message(forged: dict[str, Any], ppo: Command, tmp_path: Path) -> None:
    assert ppo(*TINY)[0] == 0
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **forged}))
    code, _, errors = ppo("--resume", "run", "--total-steps", "512")
    assert code == 2
    assert "run/config.json does not describe a run to resume" in errors

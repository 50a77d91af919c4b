"""`python train/ppo.py` with general presets: normalisation is on, resumed, fixed in evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rmc_agents
from rmc_agents.runs.checkpoint import read_newest
from tests.support.commands import Command, in_process

SMALL = ["--core", "gru", "--num-steps", "16", "--minibatch-size", "64", "--epochs", "1"]


@pytest.fixture
def ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process("ppo", monkeypatch, capfd)


def switches(run: Path) -> tuple[bool, bool, bool]:
    config = json.loads((run / "config.json").read_text())
    agent, ppo = config["agent"], config["ppo"]
    return agent["normalize_observations"], agent["scale_actions"], ppo["normalize_rewards"]


def test_general_preset_trains_resumes_and_leaves_statistics_alone_afterwards(
    ppo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(gymnasium.spec("Pendulum-v1"), id="test/Pendulum-v1")
    monkeypatch.setitem(gymnasium.registry, "test/Pendulum-v1", spec)
    words = ["--run-dir", "run", "--env", "test/Pendulum-v1", *SMALL]
    code, out, errors = ppo(*words, "--total-steps", "256")
    assert code == 0, errors
    kind = "vector observations and continuous actions"
    assert f"test/Pendulum-v1: general preset for {kind}; --no-preset for none" in out
    assert switches(tmp_path / "run") == (True, True, True)
    code, _, errors = ppo("--resume", "run", "--total-steps", "512")
    assert code == 0, errors
    count = "encoder.parts.0.moments.count"
    assert int(read_newest(tmp_path / "run")[1]["agent"][count]) == 512
    agent = rmc_agents.load(tmp_path / "run")
    action, _ = agent.predict(np.array([1.0, 0.0, 8.0], np.float32))
    assert gymnasium.make("Pendulum-v1").action_space.shape == action.shape
    assert int(agent.state_dict()[count]) == 512
    code, _, errors = ppo("--resume", "run", "--total-steps", "768", "--no-normalize-rewards")
    assert code == 2
    assert "--normalize-rewards was True, now False" in errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--env", "Pendulum-v1", "--no-preset"], (False, False, False)),
        (["--env", "Pendulum-v1", "--no-normalize-rewards", "--no-scale-actions"], (True, False, False)),
        (["--env", "CartPole-v1"], (True, False, True)),
        (["--env", "rmc/Recall-v0"], (False, False, False)),
        (["--env", "MiniGrid-DoorKey-5x5-v0"], (False, False, False)),
    ],
    ids=str,
)
def test_normalisation_is_on_for_vectors_of_gymnasium_only(
    words: list[str], expected: tuple[bool, bool, bool], ppo: Command, tmp_path: Path
) -> None:
    code, _, errors = ppo("--run-dir", "run", *SMALL, "--num-envs", "8", "--total-steps", "128", *words)
    assert code == 0, errors
    assert switches(tmp_path / "run") == expected

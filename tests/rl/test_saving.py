"""Saving from Python, and what a run folder can hold: what starts can be loaded and resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rmc_agents
import rmc_envs
from rmc_agents import EnvConfig, SequenceClassifier, Trainer, UsageError
from rmc_agents.options import parse_options
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.supervised.classifier import load_classifier
from tests.support.agents import small_agent
from tests.support.trainers import QUICK, ppo_trainer, supervised_trainer


def test_iterate_and_save_write_a_run_that_can_be_loaded_and_resumed(tmp_path: Path) -> None:
    """No `run`: the first save writes config.json."""
    trainer = ppo_trainer(tmp_path / "agent")
    while not trainer.done:
        trainer.iterate()
    trainer.save()
    assert "environment" in read_config(tmp_path / "agent")
    rmc_agents.load(tmp_path / "agent")
    again = ppo_trainer(tmp_path / "agent")
    again.restore()
    assert again.done
    with pytest.raises(UsageError, match="already holds a run"):
        ppo_trainer(tmp_path / "agent").save()
    classifier = supervised_trainer(tmp_path / "classifier")
    classifier.iterate()
    classifier.save()
    assert isinstance(load_classifier(tmp_path / "classifier")[0], SequenceClassifier)
    supervised_trainer(tmp_path / "classifier").restore()


def test_save_between_runs_does_not_end_them(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    trainer.iterate()
    trainer.save()
    trainer.run()
    assert trainer.done
    trainer.save()


def test_speed_of_an_iteration_without_an_update_is_that_of_the_run(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    first = trainer.iterate()
    trainer.target_success_rate = 1e-9
    trainer.recent.add(1000, 1000, 0.0)
    last = trainer.iterate()
    assert "train/loss" not in last
    assert last["time/fps"] == pytest.approx(trainer.steps / trainer.seconds)
    assert last["time/fps"] < 2.5 * first["time/fps"]


@pytest.mark.parametrize("desc", [["SF", "FG"], ("SF", "FG"), parse_options(["desc=('SF', 'FG')"])["desc"]])
def test_options_that_are_lists_survive_the_run_folder(desc: Any, tmp_path: Path) -> None:
    env = rmc_envs.make("FrozenLake-v1", 8, desc=desc)
    trainer = Trainer(small_agent("gru", env), env, QUICK, tmp_path)
    trainer.iterate()
    trainer.save()
    config = EnvConfig(**read_config(tmp_path)["environment"])
    assert config == env.config
    assert config.env_options == {"desc": ["SF", "FG"]}
    again = rmc_envs.build(config)
    Trainer(small_agent("gru", again), again, QUICK, tmp_path).restore()


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2),
        np.float32(1),
        b"x",
        {1, 2},
        1j,
        object(),
        math.nan,
        math.inf,
        {1: 2},
        torch.ones(1),
        [b"x"],
    ],
)
def test_option_that_a_run_folder_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="env_options: x is "):
        EnvConfig(env_options={"x": value})


@pytest.mark.parametrize("kind", ["ppo", "supervised"])
@pytest.mark.parametrize("value", [np.zeros(2), b"x", math.nan, 2**21])
def test_network_that_could_not_be_loaded_is_refused_before_training(
    kind: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = ppo_trainer(tmp_path) if kind == "ppo" else supervised_trainer(tmp_path)
    described = trainer.to_json()
    network = described["agent" if kind == "ppo" else "classifier"]
    network["core_options"] = {"x": value}
    monkeypatch.setattr(trainer, "to_json", lambda: described)
    with pytest.raises(UsageError, match=r"config\.json (cannot hold|asks for a size)"):
        trainer.run()
    assert trainer.count == 0
    assert checkpoints(tmp_path) == []

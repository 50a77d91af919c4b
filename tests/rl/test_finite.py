"""Finite numbers: no update, save or load accepts weights or moments that are not."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rmc_agents
from rmc_agents import PPOConfig, SupervisedConfig, TrainingError, UsageError
from rmc_agents.agent.saved import export_agent
from rmc_agents.runs.checkpoint import read_checkpoint, save_checkpoint
from rmc_agents.runs.folder import checkpoints
from rmc_agents.supervised.classifier import load_classifier
from tests.support.trainers import ppo_trainer, supervised_trainer

BUILDERS = {"ppo": ppo_trainer, "supervised": supervised_trainer}
VALUES = (math.nan, math.inf, -math.inf)


def optimizers(trainer: Any) -> list[Any]:
    return getattr(trainer, "optimizers", None) or [trainer.optimizer]


def damage_weight(trainer: Any, value: float) -> None:
    network = getattr(trainer, "agent", None) or trainer.model
    with torch.no_grad():
        list(network.parameters())[-1].view(-1)[0] = value


def damage_moment(trainer: Any, value: float) -> None:
    state = next(iter(optimizers(trainer)[-1].state.values()))
    state.get("exp_avg_sq", state.get("momentum_buffer")).view(-1)[0] = value


DAMAGES = {"weight": damage_weight, "moment": damage_moment}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", BUILDERS)
def test_last_update_that_damages_the_network_is_not_saved(
    kind: str, damage: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = BUILDERS[kind](tmp_path, checkpoint_seconds=0) if kind == "ppo" else BUILDERS[kind](tmp_path)
    trainer.checkpoint_seconds = 0
    last = optimizers(trainer)[-1]
    step, total = last.step, {"ppo": 64, "supervised": 128}[kind]
    calls: list[int] = []

    def damaging(*args: Any) -> Any:
        result = step(*args)
        calls.append(1)
        if len(calls) == total:
            DAMAGES[damage](trainer, value)
        return result

    monkeypatch.setattr(last, "step", damaging)
    total = trainer_updates(trainer, tmp_path)
    with pytest.raises(TrainingError, match="not finite") as stop:
        trainer.run()
    assert "intact" in str(stop.value)
    assert len(calls) == total
    assert checkpoints(tmp_path), "earlier checkpoints are kept"
    newest = read_checkpoint(checkpoints(tmp_path)[0])
    assert all(x.isfinite().all() for x in newest["agent"].values())
    facts = json.loads((tmp_path / "diagnostic.json").read_text())
    assert facts["not_finite"]


def trainer_updates(trainer: Any, folder: Path) -> int:
    """Return the number of updates of a whole run."""
    if isinstance(trainer.config, SupervisedConfig):
        return trainer.config.total_samples // trainer.config.batch_size
    config = trainer.config
    return config.total_steps // config.minibatch_size * config.epochs


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", BUILDERS)
def test_save_refuses_numbers_that_are_not_finite(
    kind: str, damage: str, value: float, tmp_path: Path
) -> None:
    trainer = BUILDERS[kind](tmp_path)
    trainer.iterate()
    path = trainer.save()
    trainer.iterate()
    DAMAGES[damage](trainer, value)
    with pytest.raises(TrainingError, match="was not written: not finite are"):
        trainer.save()
    assert checkpoints(tmp_path) == [path]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", BUILDERS)
def test_checkpoint_with_weights_that_are_not_finite_is_refused(
    kind: str, value: float, tmp_path: Path
) -> None:
    trainer = BUILDERS[kind](tmp_path / "run")
    trainer.iterate()
    path = trainer.save()
    payload = torch.load(path, weights_only=True)
    list(payload["agent"].values())[-1].view(-1)[0] = value
    torch.save(payload, path)
    readers: dict[str, list[Callable[[], object]]] = {
        "ppo": [lambda: rmc_agents.load(path), lambda: export_agent(tmp_path / "run", tmp_path / "small")],
        "supervised": [lambda: load_classifier(tmp_path / "run")],
    }
    for read in (*readers[kind], BUILDERS[kind](tmp_path / "run").restore):
        with pytest.raises(UsageError, match=r"holds weights that are (not finite|too large)"):
            read()
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", BUILDERS)
def test_checkpoint_with_moments_that_are_not_finite_cannot_be_resumed(
    kind: str, value: float, tmp_path: Path
) -> None:
    trainer = BUILDERS[kind](tmp_path)
    trainer.iterate()
    path = trainer.save()
    payload = torch.load(path, weights_only=True)
    states = payload["optimizers"] if kind == "supervised" else [payload["optimizer"]["state"]]
    for moment in states[-1][0].values():
        moment.view(-1)[0] = value
    torch.save(payload, path)
    with pytest.raises(UsageError, match="moments of parameter 0 are not finite"):
        BUILDERS[kind](tmp_path).restore()


def test_mean_of_the_weights_is_checked_too(tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path, average_updates=20)
    trainer.iterate()
    path = trainer.save()
    payload = torch.load(path, weights_only=True)
    next(iter(payload["newest"].values())).view(-1)[0] = math.nan
    torch.save(payload, path)
    with pytest.raises(UsageError, match="not finite"):
        supervised_trainer(tmp_path, average_updates=20).restore()


def test_numbers_of_an_environment_may_be_infinite(tmp_path: Path) -> None:
    payload = {"agent": {"x": torch.ones(1)}, "env": {"best": torch.tensor(-math.inf), "low": -math.inf}}
    read = read_checkpoint(save_checkpoint(tmp_path, 1, payload))
    assert read["env"]["low"] == -math.inf


FLOATS = {
    config: [field.name for field in dataclasses.fields(config) if "float" in str(field.type)]
    for config in (PPOConfig, SupervisedConfig)
}
INTS = {
    config: [field.name for field in dataclasses.fields(config) if field.type == "int"]
    for config in (PPOConfig, SupervisedConfig)
}


@pytest.mark.parametrize(("config", "name"), [(c, name) for c, names in FLOATS.items() for name in names])
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1, -1e-9, 1e10, 1e38, 10**400, True, "0.1", [0.1], {}]
)
def test_absurd_number_is_refused(config: Any, name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        config(**{name: value})


@pytest.mark.parametrize(("config", "name"), [(c, name) for c, names in INTS.items() for name in names])
@pytest.mark.parametrize("value", [None, -1, 1.5, 8.0, math.nan, True, "8", 10**30, [8], np.int64(8)])
def test_absurd_whole_number_is_refused(config: Any, name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        config(**{name: value})


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e38}, {"learning_rate": 1.5}, {"adam_eps": 1e-39}, {"adam_eps": 0.0}]
)
def test_rates_that_end_in_nan_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        PPOConfig(**change)  # type: ignore[arg-type]


def test_usual_extremes_are_accepted() -> None:
    PPOConfig(
        learning_rate=1, adam_eps=1e-15, max_grad_norm=1e9, clip_range=1e9, entropy_coef=0, target_kl=100.0
    )
    PPOConfig(total_steps=10**12, gamma=1, gae_lambda=0, learning_rate=float(np.float64(1e-3)))
    PPOConfig(learning_rate=np.float64(1e-3))
    SupervisedConfig(muon_lr=0, adam_lr=0.02, max_grad_norm=0, minutes=1e-6, total_samples=10**12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("seed", value) for value in (-1, 2**63, 1.0, True, "1", None)),
        *(("checkpoint_seconds", value) for value in (-1.0, math.nan, "1", None)),
        *(("keep_checkpoints", value) for value in (0, -1, 1.5, True, "3")),
        *(("target_success_rate", value) for value in (0, -0.1, 1.1, math.nan, "1")),
    ],
)
def test_argument_out_of_range_is_refused_by_the_trainer(name: str, value: Any, tmp_path: Path) -> None:
    good = ppo_trainer(tmp_path)
    arguments = {"seed": 5, name: value}
    with pytest.raises(ValueError, match=name):
        rmc_agents.Trainer(good.agent, good.env, good.config, tmp_path, **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("checkpoint_seconds", math.nan), ("target_accuracy", 2.0), ("log_every", 0)],
)
def test_argument_out_of_range_is_refused_by_the_supervised_trainer(
    name: str, value: Any, tmp_path: Path
) -> None:
    good = supervised_trainer(tmp_path)
    with pytest.raises(ValueError, match=name):
        rmc_agents.SupervisedTrainer(good.model, good.task, good.config, tmp_path, **{name: value})

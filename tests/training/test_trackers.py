"""Trackers, offline: hyperparameters and curves arrive, and a resumed run continues the tracker's run."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmc_agents import Callback, MLflowTracker, UsageError, WandbTracker
from rmc_agents.training import trackers
from rmc_agents.training.trackers import make_trackers
from tests.support.trainers import ppo_trainer, supervised_trainer
from tests.support.wandb_files import OfflineRun, read_offline_runs

STEPS = [128, 256, 384, 512]
"""Steps after each iteration of `ppo_trainer`."""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """W&B, offline and silent, with its files in `tmp_path`."""
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DIR", str(tmp_path)), ("CONSOLE", "off")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    module = pytest.importorskip("wandb")
    yield module
    module.teardown()


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow with files in `tmp_path`, since a new database takes seconds."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("NAME", "ID"):
        monkeypatch.setenv(f"MLFLOW_EXPERIMENT_{name}", "")
        monkeypatch.delenv(f"MLFLOW_EXPERIMENT_{name}")  # also what a test sets
    module = pytest.importorskip("mlflow")
    before = module.get_tracking_uri()
    module.set_tracking_uri(str(tmp_path / "mlruns"))
    yield module
    while module.active_run() is not None:
        module.end_run()
    module.set_tracking_uri(before)


def offline_runs(wandb: Any, folder: Path) -> list[OfflineRun]:
    """Return the runs that W&B wrote, once its process has ended."""
    wandb.teardown()
    return read_offline_runs(folder)


def stop_after(iterations: int) -> Callback:
    class Stop(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> bool:
            return trainer.iterations < iterations

    return Stop()


def test_offline_run_of_wandb_holds_curves_and_hyperparameters(wandb: Any, tmp_path: Path) -> None:
    ppo_trainer(tmp_path / "mine", callbacks=[stop_after(2), WandbTracker()]).run()
    again = ppo_trainer(tmp_path / "mine", callbacks=[WandbTracker()])
    again.restore()
    again.run()
    first, second = offline_runs(wandb, tmp_path)
    assert first.id == second.id, "the resumed run continues"
    assert (first.name, first.project) == ("mine", "rmc-agents")
    assert first.config["ppo"]["gamma"] == again.config.gamma
    assert first.config["agent"]["core"] == "gru"
    assert [row["_step"] for row in first.history + second.history] == STEPS
    logged = [json.loads(x) for x in (tmp_path / "mine" / "log.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in logged if "train/loss" in line]
    assert [row["train/loss"] for row in first.history + second.history] == losses
    assert (first.exit_code, second.exit_code) == (0, 0)


def test_failed_training_is_a_failed_run_of_wandb(wandb: Any, tmp_path: Path) -> None:
    trainer = supervised_trainer(tmp_path / "mine")
    trainer.callbacks = (WandbTracker("other", "name"),)

    def fail() -> dict[str, float]:
        raise ZeroDivisionError("a bug")

    trainer.iterate = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    (run,) = offline_runs(wandb, tmp_path)
    assert (run.name, run.project, run.exit_code) == ("name", "other", 1)


def test_wandb_copies_the_curves_of_tensorboard(wandb: Any, tmp_path: Path) -> None:
    wandb.tensorboard.patch(root_logdir=str(tmp_path))  # else W&B waits ten seconds for another folder
    try:
        with wandb.init(project="p", sync_tensorboard=True):
            ppo_trainer(tmp_path / "mine").run()
    finally:
        wandb.tensorboard.unpatch()
    (run,) = offline_runs(wandb, tmp_path)
    names = [name for name in run.history[0] if name.endswith("train/loss")]
    assert len(names) == 1
    assert len({row[names[0]] for row in run.history if names[0] in row}) == 4


def test_run_that_wandb_has_begun_is_used_and_stays_open(wandb: Any, tmp_path: Path) -> None:
    with wandb.init(project="sweep", config={"mine": 1}) as own:
        ppo_trainer(tmp_path / "mine", callbacks=[WandbTracker()]).run()
        assert wandb.run is own
    (run,) = offline_runs(wandb, tmp_path)
    assert (run.project, run.config["mine"], run.config["seed"]) == ("sweep", 1, 5)
    assert len(run.history) == 4
    assert not (tmp_path / "mine" / "trackers.json").exists()


def test_wandb_without_a_key_is_one_message_before_training(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    trainer = ppo_trainer(tmp_path, callbacks=[WandbTracker()])
    with pytest.raises(UsageError, match=r"No API key configured.*WANDB_MODE=offline needs none"):
        trainer.run()
    assert trainer.steps == 0


def test_setting_that_wandb_refuses_is_one_message_before_training(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "bogus")
    trainer = ppo_trainer(tmp_path, callbacks=[WandbTracker()])
    with pytest.raises(UsageError, match="W&B does not start: "):
        trainer.run()
    assert trainer.steps == 0


def test_mlflow_holds_curves_and_hyperparameters(mlflow: Any, tmp_path: Path) -> None:
    ppo_trainer(tmp_path / "mine", callbacks=[stop_after(2), MLflowTracker()]).run()
    again = ppo_trainer(tmp_path / "mine", callbacks=[MLflowTracker()], target_success_rate=1.0)
    again.restore()
    again.run()
    (run,) = mlflow.search_runs(experiment_names=["rmc-agents"], output_format="list")
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["agent/core"] == "gru"
    assert run.data.params["ppo/gamma"] == str(again.config.gamma)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == STEPS
    assert mlflow.active_run() is None


def test_mlflow_gets_all_figures_of_quick_iterations(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("an iteration reads the run that a thread writes to")

    ppo_trainer(tmp_path / "mine", callbacks=[stop_after(1)]).run()
    trainer = ppo_trainer(tmp_path / "mine")
    trainer.restore()
    tracker = MLflowTracker("quick")
    tracker.on_start(trainer)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "get_run", refuse)
        for i in range(40):
            trainer.steps = i
            tracker.on_iteration(trainer, {"a": float(i), "b": 2.0 * i})
        tracker.on_end(trainer, {})
    assert not tracker.has_failed
    (run,) = mlflow.search_runs(experiment_names=["quick"], output_format="list")
    for name, factor in (("a", 1), ("b", 2)):
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == [
            (i, factor * i) for i in range(40)
        ]


def test_failed_training_is_a_failed_run_of_mlflow(mlflow: Any, tmp_path: Path) -> None:
    class Broken(Callback):
        def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        ppo_trainer(tmp_path / "mine", callbacks=[MLflowTracker("other", "name"), Broken()]).run()
    (run,) = mlflow.search_runs(experiment_names=["other"], output_format="list")
    assert (run.info.run_name, run.info.status) == ("name", "FAILED")


def test_run_that_mlflow_has_begun_is_used_and_stays_open(mlflow: Any, tmp_path: Path) -> None:
    mlflow.set_experiment("sweep")
    with mlflow.start_run() as own:
        ppo_trainer(tmp_path / "mine", callbacks=[MLflowTracker()]).run()
        assert mlflow.active_run().info.run_id == own.info.run_id
    assert mlflow.get_run(own.info.run_id).data.metrics["time/total_timesteps"] == 512


def test_mlflow_that_fails_during_training_is_one_warning(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise mlflow.MlflowException("the server is gone")

    class Gone(Callback):
        def on_start(self, trainer: Any) -> None:
            monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)

    trainer = ppo_trainer(tmp_path, callbacks=[MLflowTracker(), Gone()])
    with pytest.warns(UserWarning, match="figures were not sent to MLflow: the server is gone") as caught:
        trainer.run()
    assert len(caught) == 1
    assert trainer.done


def test_mlflow_that_cannot_start_is_one_message_before_training(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    mlflow.set_tracking_uri(str(tmp_path / "file"))
    trainer = ppo_trainer(tmp_path / "mine", callbacks=[MLflowTracker()])
    with pytest.raises(UsageError, match="MLflow does not start: "):
        trainer.run()
    assert trainer.steps == 0


@pytest.mark.parametrize("chosen", [None, "5"])
def test_mlflow_gives_up_a_silent_server_soon_unless_the_user_chose_retries(
    chosen: str | None, mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, seen = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", []
    monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv(name, chosen)

    def refuse(*_: Any, **__: Any) -> None:
        seen.append(os.environ[name])
        raise mlflow.MlflowException("no answer")

    monkeypatch.setattr(mlflow, "get_experiment_by_name", refuse)
    with pytest.raises(UsageError, match="MLflow does not start: no answer"):
        ppo_trainer(tmp_path / "mine", callbacks=[MLflowTracker()]).run()
    assert seen == [chosen or "2"]
    assert os.environ.get(name) == chosen


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mlflow": 3}', '{"mlflow": "no such run"}'])
def test_damaged_ids_start_a_new_run(text: str, mlflow: Any, tmp_path: Path) -> None:
    ppo_trainer(tmp_path / "mine", callbacks=[stop_after(2)]).run()
    (tmp_path / "mine" / "trackers.json").write_text(text)
    again = ppo_trainer(tmp_path / "mine", callbacks=[MLflowTracker()])
    again.restore()
    again.run()
    (run,) = mlflow.search_runs(experiment_names=["rmc-agents"], output_format="list")
    assert run.data.metrics["time/total_timesteps"] == 512


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_is_one_message(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    message = rf"{name} is not installed: pip install 'rmc-agents\[{name}\]'"
    with pytest.raises(UsageError, match=message):
        make_trackers(name)


def test_names_of_trackers() -> None:
    assert make_trackers("none") == []
    assert [type(each) for each in make_trackers("wandb")] == [WandbTracker]
    assert [type(each) for each in make_trackers("mlflow")] == [MLflowTracker]
    with pytest.raises(UsageError, match="track=tensorbored: expected none or wandb or mlflow"):
        make_trackers("tensorbored")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert trackers.PROJECT == "rmc-agents"

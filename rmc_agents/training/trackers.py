"""Trackers of experiments: callbacks that send hyperparameters and figures to Weights & Biases or MLflow.

A resumed run continues the same run of the tracker; trackers.json in the run folder remembers which one.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from rmc_agents.errors import UsageError, shown
from rmc_agents.runs.files import read_regular, write_json
from rmc_agents.training.callbacks import Callback
from rmc_agents.training.hyperparameters import flattened, hyperparameters

TrackerName = Literal["none", "wandb", "mlflow"]

PROJECT = "rmc-agents"
"""Default name of a project of W&B, or of an experiment of MLflow."""
MAX_PARAMS = 100
"""Largest number of parameters in a request to MLflow."""


def make_trackers(name: TrackerName) -> list[Callback]:
    """Return the tracker of this name, or nothing for "none".

    Raises:
        UsageError: an unknown name, or its package is not installed.
    """
    if name not in get_args(TrackerName):
        raise UsageError(f"track={shown(name, 40)}: expected {' or '.join(get_args(TrackerName))}")
    return {"none": list, "wandb": lambda: [WandbTracker()], "mlflow": lambda: [MLflowTracker()]}[name]()


class WandbTracker(Callback):
    """Tracker for Weights & Biases: a run with the hyperparameters as its config, and figures by step.

    W&B's environment variables take precedence over the arguments and decide the rest: WANDB_PROJECT,
    WANDB_NAME, WANDB_ENTITY, WANDB_DIR, WANDB_MODE=offline, ... If `wandb.init` has been called before, its
    run is used, and stays open at the end.

    Args:
        project: name of the project.
        name: name of the run; that of the run folder if None.

    Raises:
        UsageError: wandb is not installed.
    """

    def __init__(self, project: str = PROJECT, name: str | None = None) -> None:
        _require_package("wandb")
        self.project, self.name = project, name
        self.run: Any = None
        self.is_own = False

    def on_start(self, trainer: Any) -> None:
        try:
            wandb: Any = importlib.import_module("wandb")
            self.is_own = wandb.run is None
            self.run = self._start(wandb, trainer) if self.is_own else wandb.run
        except Exception as error:  # of W&B, its settings or its connection
            raise UsageError(
                f"W&B does not start: {error} (`wandb login` stores a key; WANDB_MODE=offline needs none)"
            ) from error
        self.run.config.update(hyperparameters(trainer.to_json()), allow_val_change=True)

    def _start(self, wandb: Any, trainer: Any) -> Any:
        """Continue the run of a resumed run folder, or start one."""
        known = _read_id(trainer.run_dir, "wandb") if trainer.restored else None
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", self.project),
            name=os.environ.get("WANDB_NAME", self.name or trainer.run_dir.resolve().name),
            id=known,
            resume=None if known is None else "allow",
        )
        _write_id(trainer.run_dir, "wandb", run.id)
        return run

    def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
        self.run.log(dict(figures), step=trainer.count)

    def on_end(self, trainer: Any, figures: dict[str, float]) -> None:
        if self.is_own:
            self.run.finish()

    def on_error(self, trainer: Any, error: BaseException) -> None:
        if self.is_own:
            self.run.finish(exit_code=1)


class MLflowTracker(Callback):
    """Tracker for MLflow: a run with the hyperparameters as its params, and figures as metrics by step.

    MLflow's environment variables decide where: MLFLOW_TRACKING_URI (by default mlflow.db, a file of SQLite
    in the current folder), MLFLOW_EXPERIMENT_NAME, ... If `mlflow.start_run` has been called before, its run
    is used, and stays open at the end. A server that fails later costs figures and a warning, but does not
    stop training.

    Args:
        experiment: name of the experiment.
        name: name of the run; that of the run folder if None.

    Raises:
        UsageError: mlflow is not installed.
    """

    def __init__(self, experiment: str = PROJECT, name: str | None = None) -> None:
        _require_package("mlflow")
        self.experiment, self.name = experiment, name
        self.run_id = ""
        self.is_own = self.has_failed = False
        self.latest: Any = None

    def on_start(self, trainer: Any) -> None:
        try:
            with _few_retries():
                self._begin(trainer)
        except Exception as error:  # of MLflow, its database or its connection
            raise UsageError(f"MLflow does not start: {error}") from error

    def _begin(self, trainer: Any) -> None:
        """Find the run and log its params."""
        # Threads that write one metric at a time break MLflow's file of it; one thread keeps the order.
        os.environ.setdefault("MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE", "1")
        mlflow: Any = importlib.import_module("mlflow")
        self.is_own = mlflow.active_run() is None
        run = self._start(mlflow, trainer) if self.is_own else mlflow.active_run()
        self.run_id = run.info.run_id
        known = mlflow.get_run(self.run_id).data.params  # the params of a run can't change
        flat = flattened(hyperparameters(trainer.to_json()))
        params = [(name, value) for name, value in flat.items() if name not in known]
        for first in range(0, len(params), MAX_PARAMS):
            mlflow.log_params(dict(params[first : first + MAX_PARAMS]))

    def _start(self, mlflow: Any, trainer: Any) -> Any:
        """Continue the run of a resumed run folder, if MLflow still has it, or start one."""
        known = _read_id(trainer.run_dir, "mlflow") if trainer.restored else None
        if known is not None:
            with contextlib.suppress(mlflow.MlflowException):
                return mlflow.start_run(run_id=known)
        experiment = None
        # The user's choice, also by `mlflow.set_experiment`, which sets the second one.
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
            found = mlflow.get_experiment_by_name(self.experiment)
            experiment = mlflow.create_experiment(self.experiment) if found is None else found.experiment_id
        name = self.name or trainer.run_dir.resolve().name
        run = mlflow.start_run(run_name=name, experiment_id=experiment)
        _write_id(trainer.run_dir, "mlflow", run.info.run_id)
        return run

    def on_iteration(self, trainer: Any, figures: dict[str, float]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        now, step = time.time_ns() // 1_000_000, trainer.count
        # In a thread, since a server may take its time. `mlflow.log_metrics` would first read the run, here,
        # while that thread writes to it.
        with self._tolerating_failures():
            metrics = [Metric(name, value, now, step) for name, value in figures.items()]
            self.latest = MlflowClient().log_batch(self.run_id, metrics, synchronous=False)

    def on_end(self, trainer: Any, figures: dict[str, float]) -> None:
        self._finish("FINISHED")

    def on_error(self, trainer: Any, error: BaseException) -> None:
        self._finish("FAILED")

    def _finish(self, status: str) -> None:
        import mlflow

        with self._tolerating_failures():
            if self.latest is not None:
                self.latest.wait()  # and so for all before it
        if self.is_own:
            with self._tolerating_failures():
                mlflow.end_run(status)

    @contextlib.contextmanager
    def _tolerating_failures(self) -> Iterator[None]:
        """Warn of the first failure."""
        try:
            yield
        except Exception as error:  # of MLflow, its database or its connection
            if not self.has_failed:
                warnings.warn(f"figures were not sent to MLflow: {error}", stacklevel=2)
            self.has_failed = True


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Let MLflow give up a server that does not answer after seconds, not minutes, unless the user chose."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    if name in os.environ:
        yield
        return
    os.environ[name] = "2"
    try:
        yield
    finally:
        del os.environ[name]


def _require_package(name: str) -> None:
    """Raise UsageError unless the package of a tracker is installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a folder of results has that name, too
        raise UsageError(f"{name} is not installed: pip install 'rmc-agents[{name}]'")


def _read_ids(run_dir: Path) -> dict[str, str]:
    """Return which run of which tracker follows a run folder; empty if the file is damaged."""
    try:
        found = json.loads(read_regular(run_dir / "trackers.json"))
        return {str(name): each for name, each in found.items() if isinstance(each, str)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _read_id(run_dir: Path, tracker: str) -> str | None:
    return _read_ids(run_dir).get(tracker)


def _write_id(run_dir: Path, tracker: str, run_id: str) -> None:
    with contextlib.suppress(OSError):  # training needs no tracker
        write_json(run_dir / "trackers.json", {**_read_ids(run_dir), tracker: run_id})

"""A study of Optuna on which several processes work, and the folder of its trials.

runs/studies/NAME/study.db                        Optuna's storage, unless another one is named
runs/studies/NAME/trial-0003/seed-700000000/      run folder
runs/studies/NAME/trial-0003/output.txt           what training printed
runs/studies/NAME/best.json                       the best settings, as a preset

A process holds the lock of its trial's folder, and the operating system releases it when the process ends,
however it ends: whatever is running without a lock was killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rmc_agents.errors import UsageError, shown
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.lock import run_lock
from rmc_agents.tuning.search import SearchSpace, Values

if TYPE_CHECKING:
    import optuna

PrunerName = Literal["median", "hyperband", "none"]

FIRST_SEED = 700_000_000
"""First seed of tuning; each trial uses this one and those that follow. Results are reported with others."""
STARTUP_TRIALS = 10
"""Trials whose settings are drawn at random, before the sampler learns from them."""
MAX_ATTEMPTS = 3
"""How often settings are tried whose process was killed: they may need too much memory."""
SETTINGS = "settings"
"""User attribute of a study: what must be equal in all commands that continue it."""


@dataclass(frozen=True)
class Plan:
    """How a study continues; may differ from one command to the next."""

    trials: int
    """Number of trials of the whole study, those of earlier commands included."""
    pruner: PrunerName = "median"
    points: int = 10
    """Points of a learning curve."""
    seeds: int = 1
    """Runs of each trial."""
    sampler_seed: int = 0


def require_optuna() -> None:
    """Raise UsageError unless Optuna is installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("optuna is not installed: pip install 'rmc-agents[tune]'")


def study_folder(name: str) -> Path:
    """Return the folder of a study."""
    return Path("runs") / "studies" / portable_name(name)


def storage_url(storage: str | None, folder: Path) -> str:
    """Return the URL of a storage, which may be given as a file; by default study.db in the folder."""
    if storage is not None and "://" in storage:
        return storage
    path = folder / "study.db" if storage is None else Path(storage)
    return f"sqlite:///{path.absolute()}"


class Sweep:
    """A study that this process works on; made by the first process, and continued by all others.

    Args:
        name: of the study.
        folder: for its trials.
        url: of the storage.
        space: to draw from.
        settings: what must be equal in all commands that continue the study, by name.
        plan: how it continues.

    Raises:
        UsageError: the storage cannot be opened, or the study has other settings.
    """

    def __init__(
        self, name: str, folder: Path, url: str, space: SearchSpace, settings: Mapping[str, Any], plan: Plan
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.folder, self.space, self.plan = name, folder, space, plan
        self._held = contextlib.ExitStack()
        try:
            with self.lock():
                self.study = self._open(url)
                self._require_same(settings)
        except UsageError:
            with contextlib.suppress(OSError):  # not empty
                for made in (folder, *folder.parents[:2]):
                    made.rmdir()
            raise

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the study inside this context, once the other processes have released it."""
        with contextlib.ExitStack() as stack:
            while True:
                with contextlib.suppress(UsageError):
                    stack.enter_context(run_lock(self.folder))
                    break
                time.sleep(0.02)
            yield

    def claim(self) -> tuple[optuna.Trial, Values] | None:
        """Start the next trial in this process; return None if all of the study's trials have started.

        The trials of processes that were killed count as failed, and are repeated first.
        """
        import optuna

        with self.lock():
            for trial in self.study.get_trials(deepcopy=False):
                if trial.state == optuna.trial.TrialState.RUNNING and self._is_killed(trial.number):
                    self._repeat(trial.number, trial.user_attrs.get("attempt", 1) + 1, trial.params)
            started = self._count_started()
            if started >= self.plan.trials:
                return None
            # A sampler of its own for each trial: a study that was stopped continues as if it had not been.
            seed = self.plan.sampler_seed + started
            self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
            trial = self.study.ask()
            self._held.enter_context(run_lock(self.trial_folder(trial.number)))
            return trial, self.space.suggest(trial)

    def finish(self, trial: optuna.Trial, score: float | None) -> None:
        """Record the score of a trial; None for one that was pruned, or whose numbers were not finite."""
        import optuna

        with self.lock():
            state = optuna.trial.TrialState.PRUNED if score is None else None
            self.study.tell(trial, score, state=state)
            self._held.close()

    def delete_run_folders(self) -> None:
        """Delete the folders of all trials that have ended, except the best one."""
        import optuna

        with self.lock():
            best = self.best()
            for trial in self.study.get_trials(deepcopy=False):
                if trial.state != optuna.trial.TrialState.RUNNING and (
                    best is None or trial.number != best.number
                ):
                    shutil.rmtree(self.trial_folder(trial.number), ignore_errors=True)

    def give_up(self, trial: optuna.Trial, repeat: bool) -> None:
        """Record that a trial did not end; `repeat` lets the next process start it again."""
        import optuna

        with self.lock():
            self._held.close()
            if repeat:
                self._repeat(trial.number, trial.user_attrs.get("attempt", 1), trial.params)
            else:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def best(self) -> optuna.trial.FrozenTrial | None:
        """Return the trial with the best score; None if no trial has one."""
        complete = self.complete()
        return max(complete, key=lambda trial: (trial.value, -trial.number)) if complete else None

    def complete(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that have a score."""
        import optuna

        return self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    def counts(self) -> dict[str, int]:
        """Return the number of trials by their state, such as "complete" and "pruned"."""
        states = [trial.state.name.lower() for trial in self.study.get_trials(deepcopy=False)]
        return {state: states.count(state) for state in sorted(set(states))}

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    def values_of(self, trial: optuna.trial.FrozenTrial) -> Values:
        """Return the values of the settings in a finished trial."""
        import optuna

        return self.space.suggest(optuna.trial.FixedTrial(trial.params))

    def _open(self, url: str) -> optuna.Study:
        import optuna

        waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}  # for another writer
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=waiting)
            return optuna.create_study(
                storage=storage,
                study_name=self.name,
                direction="maximize",
                load_if_exists=True,
                pruner=make_pruner(self.plan),
            )
        except Exception as error:  # of Optuna, SQLAlchemy, the database or its driver
            reason = shown(str(error).partition("\n")[0])
            raise UsageError(f"storage {shown(url)} cannot be opened: {reason}") from error

    def _require_same(self, settings: Mapping[str, Any]) -> None:
        """Record the settings of a new study; compare them with those of one that is continued."""
        saved = self.study.user_attrs.get(SETTINGS)
        if saved is None:
            if any(self.folder.glob("trial-*")):
                raise UsageError(
                    f"{self.folder} holds trials of another study: give this one another name, or delete "
                    "that folder"
                )
            self.study.enqueue_trial(self.space.start())
            self.study.set_user_attr(SETTINGS, dict(settings))
            return
        changed = [
            f"{name} was {shown(saved.get(name, 'fixed'), 80)}, now {shown(settings.get(name, 'fixed'), 80)}"
            for name in {**saved, **settings}
            if saved.get(name) != settings.get(name)
        ]
        if changed:
            mistake = UsageError(
                f"study {shown(self.name)} was started with other settings: {'; '.join(changed)}. Continue "
                "it with the same ones, or give the new study another name"
            )
            mistake.names_options = True  # the settings have their flags' names already
            raise mistake

    def _count_started(self) -> int:
        """Return the number of trials that have ended or are running, without those to be repeated."""
        import optuna

        given_up = optuna.trial.TrialState.FAIL
        counted = (
            optuna.trial.TrialState.COMPLETE,
            optuna.trial.TrialState.PRUNED,
            optuna.trial.TrialState.RUNNING,
        )
        return sum(
            trial.state in counted
            or (trial.state == given_up and trial.user_attrs.get("attempt", 1) >= MAX_ATTEMPTS)
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _is_killed(self, number: int) -> bool:
        """Return whether the process of a running trial is gone."""
        try:
            with run_lock(self.trial_folder(number)):
                return True
        except UsageError:
            return False

    def _repeat(self, number: int, attempt: int, params: Mapping[str, Any]) -> None:
        """Record that a trial failed; queue its settings again, unless they were tried too often."""
        import optuna

        self.study.tell(number, state=optuna.trial.TrialState.FAIL)
        shutil.rmtree(self.trial_folder(number), ignore_errors=True)
        if attempt <= MAX_ATTEMPTS:
            self.study.enqueue_trial(dict(params), user_attrs={"attempt": attempt, "repeats": number})


def make_pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """Return the pruner of a plan. None prunes in the first quarter of a trial's first run."""
    import optuna

    patience = max(plan.points // 4, 1)
    if plan.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=patience)
    if plan.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(patience, plan.points * plan.seeds, reduction_factor=3)
    return optuna.pruners.NopPruner()

"""Context shared by all training loops: run folder, log, progress, interruption, checkpoints.

    with training_loop(trainer, title, total, columns) as loop:
        while loop.running:
            loop.report(figures, shown, messages)

The context writes config.json, saves every `checkpoint_seconds` and at the end, and turns Ctrl-C and SIGTERM
into `Interrupted` after the iteration has ended and been saved. Several processes run the same loop: they end
it, and save, after the same iteration. Process 0 alone logs, shows progress, calls callbacks, and writes the
run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rmc_agents.errors import Interrupted, TrainingError
from rmc_agents.runs.checkpoint import newest_intact
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import (
    cannot_write,
    read_config,
    require_no_run,
    require_readable,
    write_config,
)
from rmc_agents.runs.lock import require_unlocked, run_lock
from rmc_agents.runs.versions import versions
from rmc_agents.training.callbacks import Callback, Callbacks
from rmc_agents.training.hyperparameters import flattened, hyperparameters
from rmc_agents.training.processes import Processes, ProcessLost
from rmc_agents.training.progress import Progress
from rmc_agents.training.run_log import RunLog
from rmc_agents.training.signals import Interruption


class Trainable(Protocol):
    """Interface of a trainer for `training_loop`."""

    run_dir: Path
    checkpoint_seconds: float
    processes: Processes
    """The processes that train."""
    restored: bool
    """Whether the trainer continues a run of its run folder."""
    opened: bool
    """Whether the trainer has written config.json: set by `open_run_folder`."""

    @property
    def count(self) -> int:
        """Environment steps, or samples, so far."""
        ...

    @property
    def done(self) -> bool:
        """Whether training has reached its end."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Describe the run for config.json."""
        ...

    def wording(self, message: str) -> str:
        """Return a note or warning as it is shown and logged."""
        ...

    def save(self) -> Path:
        """Write a checkpoint; called in all processes, of which process 0 writes.

        Raises:
            OSError: it could not be written.
        """
        ...


class TrainingLoop:
    """A running training loop; see `training_loop`."""

    def __init__(
        self,
        trainer: Trainable,
        unit: str,
        interruption: Interruption,
        log: RunLog | None = None,
        progress: Progress | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.trainer, self.unit = trainer, unit
        self.log, self.progress, self.interruption = log, progress, interruption
        self.callbacks = callbacks or Callbacks(trainer, ())
        self.figures: dict[str, float] = {}
        self.stopped = False
        self.saved_at = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether another iteration is due; read once per iteration, in all processes."""
        return not self.trainer.done and not self.stopped and self.interruption.agree() is None

    def report(
        self,
        figures: dict[str, float],
        shown: Mapping[str, float],
        messages: Sequence[str] = (),
        save: bool = False,
    ) -> None:
        """Log and show an iteration, call the callbacks, and save a checkpoint if one is due.

        Args:
            figures: for TensorBoard and log.jsonl, by tag; callbacks may add some.
            shown: for the person at the terminal, by column.
            messages: notes for the user.
            save: whether to save a checkpoint even if none is due; equal in all processes.

        Raises:
            Exception: of a callback, after saving.
        """
        failure = None
        stop = False
        if self.log is not None and self.progress is not None:
            self.figures = figures
            try:
                stop = self.callbacks.iteration(figures)
            except Exception as error:
                failure = error
            else:
                self.log.figures(self.trainer.count, figures)
            self.progress.show(shown)
        messages = list(messages)
        processes = self.trainer.processes
        due = processes.rank == 0 and time.monotonic() - self.saved_at >= self.trainer.checkpoint_seconds
        due, self.stopped, failed = processes.any(due, stop, failure is not None)
        path = None
        if due or save or failed:
            try:
                path = self.trainer.save()
            except OSError as error:  # the disk may have room again later
                messages.append(f"warning: {self._not_saved(error)}; training continues")
            self.saved_at = time.monotonic()
        if failed and path is not None:
            messages.append(f"saved: {path}")
        self.tell(messages)
        if failed:
            raise failure or ProcessLost("a callback failed in process 0; training stopped")
        if path is not None:
            self.callbacks.checkpoint(path)

    def tell(self, messages: Sequence[str], shown: Callable[[str], bool] = bool) -> None:
        """Log messages for the user, and show those for which `shown` returns true."""
        if self.log is None or self.progress is None:
            return
        for message in map(self.trainer.wording, messages):
            if shown(message):
                self.progress.note(message)
            self.log.message(self.trainer.count, message)

    def save_after_failure(self) -> None:
        """Save a checkpoint of the last complete iteration, and say so."""
        try:
            path = self.trainer.save()
        except OSError as error:
            self.tell([f"warning: {self._not_saved(error)}"])
        else:
            self.tell([f"saved: {path}"])
            self.callbacks.checkpoint(path)

    def save_end(self) -> Path:
        """Save the final checkpoint.

        Raises:
            TrainingError: it could not be written.
        """
        try:
            path = self.trainer.save()
        except OSError as error:
            raise TrainingError(
                f"{self._not_saved(error)}; make room, and resume {self.trainer.run_dir}"
            ) from error
        self.callbacks.checkpoint(path)
        return path

    def ends_by_signal(self, error: Exception) -> bool:
        """Return whether an error may come from a signal to all processes: to those of environments, too."""
        lost = isinstance(error, ProcessLost) or not isinstance(error, TrainingError)
        return self.interruption.signal is not None and lost

    def interrupted(self, path: Path | None = None) -> Interrupted:
        """Return the error that reports a signal."""
        assert self.interruption.signal is not None
        first = self.trainer.processes.rank == 0
        saved = path or (self._last_checkpoint() if first else None) or "nothing yet"
        return Interrupted(
            f"interrupted after {self.trainer.count:,} {self.unit}; saved: {saved}", self.interruption.signal
        )

    def _not_saved(self, error: OSError) -> str:
        last = self._last_checkpoint()
        kept = f"the last intact checkpoint is {last}" if last else "nothing has been saved yet"
        return (
            f"the checkpoint after {self.trainer.count} {self.unit} could not be saved "
            f"({error.strerror or error}); {kept}"
        )

    def _last_checkpoint(self) -> Path | None:
        return newest_intact(self.trainer.run_dir)


@contextmanager
def training_loop(
    trainer: Trainable,
    title: str,
    total: int,
    columns: Mapping[str, str],
    unit: str = "steps",
    callbacks: Sequence[Callback] = (),
    metrics: Sequence[str] = (),
) -> Iterator[TrainingLoop]:
    """Open the run folder and everything that a training loop needs around it.

    Args:
        trainer: what is trained.
        title: of the progress table.
        total: the budget, in `unit`.
        columns: columns of the progress table, with their formats.
        unit: what `trainer.count` counts.
        callbacks: of the user's.
        metrics: tags of the figures by which TensorBoard compares hyperparameters.

    Raises:
        UsageError: the run folder holds another run, is in use, or cannot be written.
        TrainingError: raised inside, or the final checkpoint could not be saved.
        Interrupted: by Ctrl-C or SIGTERM, after saving.
    """
    if trainer.processes.rank:
        yield from _following(trainer, unit)
        return
    called = Callbacks(trainer, callbacks)
    with run_lock(trainer.run_dir), Interruption(trainer.processes) as interruption:
        open_run_folder(trainer)
        with called.started():  # a tracker may ask for a password, so before the display
            path = None
            with Progress(title, total, columns) as progress:
                try:
                    log = RunLog(trainer.run_dir, trainer.count, progress.note)
                    log.hyperparameters(flattened(hyperparameters(trainer.to_json())), metrics)
                except OSError as error:
                    raise cannot_write(trainer.run_dir, error) from error
                loop = TrainingLoop(trainer, unit, interruption, log, progress, called)
                try:
                    yield loop
                    path = loop.save_end()
                except Exception as error:
                    log.message(trainer.count, trainer.wording(f"stopped: {error}"))
                    if loop.ends_by_signal(error):
                        raise loop.interrupted() from error
                    if not isinstance(error, TrainingError):
                        write_diagnostic(trainer.run_dir, {"error": repr(error), unit: trainer.count})
                    raise
                finally:
                    log.close()
            called.end(loop.figures)
    if interruption.signal is not None and not trainer.done:
        raise loop.interrupted(path)


def _following(trainer: Trainable, unit: str) -> Iterator[TrainingLoop]:
    """Yield the loop of a process other than process 0, which writes nothing."""
    with Interruption(trainer.processes) as interruption:
        loop = TrainingLoop(trainer, unit, interruption)
        try:
            yield loop
            path = loop.save_end()
        except Exception as error:
            if loop.ends_by_signal(error):
                raise loop.interrupted() from error
            raise
    if interruption.signal is not None and not trainer.done:
        raise loop.interrupted(path)


def open_run_folder(trainer: Trainable) -> None:
    """Write config.json, before the first checkpoint of a trainer.

    Raises:
        UsageError: the run folder holds another run, is in use by another process, or cannot be written.
    """
    require_unlocked(trainer.run_dir)
    described = trainer.to_json()
    if not trainer.restored and not trainer.opened:
        require_no_run(trainer.run_dir)
    elif (trainer.run_dir / "config.json").exists():
        # What the trainer does not know (how a script built the environments, say) stays as it was.
        saved = read_config(trainer.run_dir)
        imports = dict.fromkeys([*saved.get("imports", ()), *described.get("imports", ())])
        described = {**saved, **described, "imports": list(imports)}
    require_readable(described, trainer.run_dir / "config.json")
    write_config(trainer.run_dir, described)
    trainer.opened = True


def require_run_arguments(seed: int, checkpoint_seconds: float, **target: float | None) -> None:
    """Raise ValueError for arguments of a trainer that are out of range.

    Args:
        seed: of the run.
        checkpoint_seconds: seconds between checkpoints.
        target: the share at which training stops, under the name of its argument.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r:.60}")
    if not isinstance(checkpoint_seconds, int | float) or not checkpoint_seconds >= 0:
        raise ValueError(f"checkpoint_seconds must be 0 or more, got {checkpoint_seconds!r:.60}")
    for name, share in target.items():
        if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
            raise ValueError(f"{name} must be above 0 and at most 1, got {share!r:.60}")


def write_diagnostic(run_dir: Path, facts: Mapping[str, Any]) -> Path | None:
    """Write diagnostic.json into a run folder; return None if it cannot be written."""
    path = run_dir / "diagnostic.json"
    try:
        if run_dir.is_dir():  # of a trainer whose `run` was called
            write_json(path, {**facts, "versions": versions()})
            return path
    except OSError:
        pass
    return None

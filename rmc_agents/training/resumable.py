"""Checkpoints of a trainer: saved, and continued from bit for bit, in one process or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from rmc_agents.runs.folder import checkpoint_path
from rmc_agents.training.loop import open_run_folder
from rmc_agents.training.processes import Processes
from rmc_agents.training.snapshot import load_all_or_nothing, load_newest, own_part, with_other_parts
from rmc_agents.tree import clone, to_device


class Resumable(ABC):
    """What both trainers share: `state_dict`, `load_state_dict`, `save` and `restore`.

    A subclass says what its state consists of, and how to continue from it.
    """

    run_dir: Path
    checkpoint_seconds: float
    processes: Processes
    own_parts: Collection[str]
    """Parts of a state that each process has for itself; all others are equal in all processes."""
    restored: bool
    """Whether the trainer continues a run of its run folder."""
    opened: bool
    """Whether the trainer has written config.json."""
    translate: Callable[[str], str] | None = None
    """Changes notes and warnings before they are shown and logged: scripts put flags for Python arguments."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Environment steps, or samples, so far."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether training has reached its end."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the network is."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Describe the run for config.json."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return everything that the next iteration of this process depends on; it may change later."""

    @abstractmethod
    def _load(self, state: dict[str, Any], saved_by: int | None = None) -> list[str]:
        """Continue this process from a state; return notes for the user.

        Args:
            state: as `_state` returns it, without `own_parts` if another number of processes saved it.
            saved_by: that number; None for a state of this process.
        """

    @abstractmethod
    def _write(self, payload: dict[str, Any]) -> Path:
        """Write a checkpoint with `save_checkpoint`."""

    @abstractmethod
    def _arithmetic(self) -> dict[str, str]:
        """Describe the arithmetic of this process."""

    def wording(self, message: str) -> str:
        """Return a note or warning as it is shown and logged."""
        return message if self.translate is None else self.translate(message)

    def _require_same_run(self) -> None:  # noqa: B027 - optional
        """Raise UsageError unless the trainer fits the run folder, as far as its checkpoints cannot say."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything that the next iteration depends on.

        It consists of tensors, numbers, and containers of them, and does not change as training continues.
        Several processes all call it; the state of process 0 holds the parts of the others, too.
        """
        return with_other_parts(clone(self._state()), self.own_parts, self.processes)

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Continue from a `state_dict`; return notes for the user.

        If the state does not fit, the trainer is as it was before. Several processes all call it; process 0
        passes the state that counts.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: the state belongs to another configuration.
        """
        return self._load_shared(self.processes.broadcast(dict(state)))

    def _load_shared(self, state: Mapping[str, Any]) -> list[str]:
        """Continue from a state that process 0 saved, and that is known to all processes."""
        own, saved_by = own_part(state, self.own_parts, self.processes)
        if self.processes.size > 1:
            own = to_device(own, self.device)
        before = clone(self._state())
        return load_all_or_nothing(
            lambda: self._load(clone(own), saved_by), lambda: self._load(before), self.processes
        )

    def save(self) -> Path:
        """Write a checkpoint from which `restore` continues bit for bit, and config.json before the first.

        Several processes all call it, and process 0 writes.

        Raises:
            UsageError: the run folder holds another run, is in use by another process, or cannot be written.
            TrainingError: the weights or moments are not finite.
            OSError: it could not be written. Earlier ones are intact.
        """
        state = self.state_dict()
        if self.processes.rank:
            return checkpoint_path(self.run_dir, self.count)
        if not self.opened:
            open_run_folder(self)
        return self._write({**state, "arithmetic": self._arithmetic()})

    def restore(self) -> list[str]:
        """Continue from the newest intact checkpoint of the run folder; return notes for the user.

        Damaged files that are newer are renamed. Several processes all call it, and process 0 reads. If
        another number of them saved the checkpoint, what each of them had for itself starts anew.

        Raises:
            UsageError: no checkpoint, or one of another configuration.
        """
        processes = self.processes
        processes.from_first(self._require_same_run)
        notes = load_newest(self.run_dir, self.device, self._load_shared, self._arithmetic(), processes)
        self.restored = True
        return notes

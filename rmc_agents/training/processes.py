"""Processes that train one agent together, each on its own part of the environments or samples.

A trainer exchanges sums of gradients and figures through a `Processes`, whether there is one process
(`ALONE`) or many (`group.Group`). All processes hold equal parameters, and make equal decisions, because they
decide on equal sums. All of them call the same methods in the same order.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from rmc_agents.errors import TrainingError

T = TypeVar("T")

SEED_STRIDE = 2**20
"""Distance of the seeds of two processes. Environments with own generators take consecutive seeds."""


class ProcessLost(TrainingError):
    """Another process of the run failed, died, or does not answer."""


class Processes(ABC):
    """The processes of a run, seen from one of them; a context manager that leaves the others at its end."""

    rank: int
    """Number of this process, from 0. Process 0 logs, and writes the run folder."""
    size: int
    """Number of processes."""

    @abstractmethod
    def sum(self, x: Tensor) -> Tensor:
        """Replace `x` by its sum over all processes, bit-equal in each, and return it."""

    @abstractmethod
    def gather(self, item: T) -> list[T] | None:
        """Return the items of all processes in process 0, and None in the others."""

    @abstractmethod
    def broadcast(self, item: Any) -> Any:
        """Return the item of process 0."""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - a process that is alone tells nobody
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the other processes why this one ends, if it fails, and leave them."""

    def any(self, *flags: bool) -> list[bool]:
        """Return, for each flag, whether it is true in at least one process."""
        return (self.sum(torch.tensor(flags, dtype=torch.float32)) > 0).tolist()

    def together(self, function: Callable[[], T]) -> T:
        """Call a function in every process; if it raises in one of them, raise in all.

        A process raises its own error, or else that of the first process that has one.
        """
        if self.size == 1:
            return function()
        error, result = None, None
        try:
            result = function()
        except Exception as own:
            error = own
        errors = self.gather(_portable(error))
        first = self.broadcast(next((each for each in errors or () if each is not None), None))
        if error is not None:
            raise error
        if first is not None:
            raise first
        return result  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    def from_first(self, function: Callable[[], T]) -> T:
        """Call a function in process 0 only, and return its result, or raise its error, in all."""
        own = self.together(lambda: function() if self.rank == 0 else None)
        return self.broadcast(own)

    def seed(self, seed: int) -> int:
        """Return the seed of this process, for a seed of the run."""
        return (seed + self.rank * SEED_STRIDE) % 2**63


class Alone(Processes):
    """A single process."""

    rank, size = 0, 1

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather(self, item: T) -> list[T] | None:
        return [item]

    def broadcast(self, item: Any) -> Any:
        return item


ALONE = Alone()


def share_of(count: int, processes: int, name: str) -> int:
    """Return the part of a number of environments or samples that each of several processes has.

    Raises:
        ValueError: it cannot be divided.
    """
    if count % processes:
        raise ValueError(f"{name}={count} cannot be divided among {processes} processes")
    return count // processes


def _portable(error: Exception | None) -> Exception | None:
    """Return an error that other processes can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

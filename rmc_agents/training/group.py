"""Processes connected by torch.distributed: gloo between CPUs, NCCL between GPUs.

`torchrun` and `cli.processes` start the processes and describe them in environment variables (RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rmc_agents.environment import EnvironmentFailed
from rmc_agents.errors import Interrupted, TrainingError, UsageError, shown
from rmc_agents.training.processes import Processes, ProcessLost
from rmc_agents.training.shared_sum import SharedSum, create, path_of, supported
from rmc_agents.tree import to_device

T = TypeVar("T")

TIMEOUT = 120.0
"""Seconds that processes wait for each other; longer than any of them needs to save a checkpoint."""
TIMEOUT_VARIABLE = "RMC_AGENTS_TIMEOUT"
"""Environment variable with another number of seconds."""
LEAST_SHARED = 2**18
"""Smallest number of float32 numbers that memory is shared for: the gradients of small networks."""
MAX_TIMEOUT = 1e6
"""Largest number of seconds; torch.distributed accepts not many more."""
_FAILED = "failed"
"""Key of the store under which a process that fails says why."""


def size_of_launch(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that this one was started with, 1 if by itself.

    Raises:
        UsageError: the environment variables describe no such processes.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return 1
    size = _number(environment, "WORLD_SIZE", 1, 2**31 - 1)
    _number(environment, "RANK", 0, size - 1)
    _number(environment, "LOCAL_RANK", 0, size - 1)
    _number(environment, "MASTER_PORT", 0, 2**16 - 1)
    return size


def _number(environment: Mapping[str, str], name: str, least: int, most: int) -> int:
    """Return the number in an environment variable; the least one if it is not set."""
    text = environment.get(name, str(least))
    with suppress(ValueError):
        if least <= (number := int(text)) <= most:
            return number
    raise UsageError(
        f"the environment variable {name} is {shown(text, 40)!r}, expected {least} to {most}: it is for "
        "processes that torchrun starts"
    )


def rank_of_launch(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process among those it was started with, 0 if by itself."""
    return int(environment["RANK"]) if size_of_launch(environment) > 1 else 0


def local_rank() -> int:
    """Return the number of this process among those on this machine: the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size_of_launch() > 1 else 0


def timeout_of_launch() -> float:
    """Return the seconds that processes wait for each other.

    Raises:
        ValueError: the environment variable holds no positive number.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT))
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= MAX_TIMEOUT:
            return seconds
    raise ValueError(
        f"{TIMEOUT_VARIABLE} is {shown(text, 40)!r}, expected a number of seconds above 0, "
        f"up to {MAX_TIMEOUT:,.0f}"
    )


def started_key(rank: int) -> str:
    """Return the key of the store that a process sets when it has started."""
    return f"rmc_agents/started/{rank}"


def join_launched() -> Group:
    """Join the processes that this one was started with; blocks until all have joined.

    Raises:
        ProcessLost: some did not join in time.
    """
    seconds = timeout_of_launch()
    with _exchanging(lambda error: ProcessLost(f"the processes of this run did not meet: {_brief(error)}")):
        store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=seconds)))
        store.set(started_key(rank), "")
    local = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    return Group(store, rank, size, timeout=seconds, one_machine=local)


class Group(Processes):
    """The processes of a run, connected.

    Args:
        store: where they meet.
        rank: number of this process.
        size: number of processes.
        timeout: seconds to wait for the others.
        one_machine: whether all run on this machine.
        why_lost: called in process 0 when another one no longer answers; returns what happened to it, if that
            is known, and prints what it has written about that.
        at_end: called when this process has left the others, with the seconds that they may need to end.

    Raises:
        ProcessLost: some did not join in time.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        size: int,
        *,
        timeout: float = TIMEOUT,
        one_machine: bool = False,
        why_lost: Callable[[], str | None] = lambda: None,
        at_end: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.rank, self.size, self.timeout = rank, size, timeout
        self._store = dist.PrefixStore("rmc_agents", store)
        self._why_lost, self._at_end = why_lost, at_end
        self._shares_memory = one_machine
        self._memory: SharedSum | None = None
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with self._exchanging():
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
            )

    def sum(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        with self._exchanging():
            if self._shares_memory and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
                self._reserve(x.nbytes // 4)
            if self._memory is not None and self._memory.fits(x):
                self._memory.sum_(x)
            else:
                dist.all_reduce(x)
        return x

    def _reserve(self, numel: int) -> None:
        """Share memory for sums of so many float32 numbers, if it can be shared; called in all processes."""
        if self._memory is not None and numel <= self._memory.max_numel:
            return
        self._release()
        numel = max(2 * numel, LEAST_SHARED)
        memory: int | str = -1
        with suppress(OSError):
            memory = create(self.size, numel) if self.rank == 0 and supported() else -1
        path = self.broadcast(path_of(memory) if memory != -1 else "")
        if all(self._all_items(supported() and os.access(path, os.R_OK | os.W_OK))):
            self._memory = SharedSum(path if self.rank else memory, self.rank, self.size, numel, self.timeout)
        else:
            self._shares_memory = False
            if memory != -1:
                os.close(memory)

    def _release(self) -> None:
        if self._memory is not None:
            self._memory.close()
        self._memory = None

    def _all_items(self, item: T) -> list[T]:
        """Return the items of all processes in each of them."""
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item)
        return items

    def gather(self, item: T) -> list[T] | None:
        items: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with self._exchanging():
            dist.gather_object(to_device(item, "cpu"), items)
        return items

    def broadcast(self, item: Any) -> Any:
        items = [to_device(item, "cpu")]
        with self._exchanging():
            dist.broadcast_object_list(items)
        return items[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, ProcessLost):
            self._tell(f"process {self.rank} failed: {_brief(error)}")
        self._release()
        with suppress(RuntimeError):
            dist.destroy_process_group()
        self._at_end(5.0 if error is None or isinstance(error, Interrupted) else 0.0)

    def _exchanging(self) -> Any:
        return _exchanging(self._lost)

    def _lost(self, error: RuntimeError) -> ProcessLost:
        """Return the error that reports what happened to another process."""
        ended = self._why_lost() if self.rank == 0 else None
        what = self._message_of_failure() or ended
        if what is None and "imed out" in str(error):
            what = f"another process of this run did not answer for {self.timeout:g} s"
            if self.rank:
                self._tell(f"process {self.rank}: {what}")
        what = what or f"another process of this run ended ({_brief(error)})"
        return ProcessLost(f"{what}; training stopped. Checkpoints saved before are intact")

    def _tell(self, what: str) -> None:
        """Let the other processes know why this one ends."""
        with suppress(RuntimeError):  # process 0 may be gone
            self._store.set(_FAILED, what)

    def _message_of_failure(self) -> str | None:
        """Return what a process that failed has said about it."""
        with suppress(RuntimeError):
            if self._store.check([_FAILED]):
                return self._store.get(_FAILED).decode()
        return None


@contextmanager
def _exchanging(lost: Callable[[RuntimeError], ProcessLost]) -> Iterator[None]:
    """Turn errors of torch.distributed into `ProcessLost`."""
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from error


def _brief(error: BaseException) -> str:
    """Return the first line of an error, for a message."""
    own = (
        ""
        if isinstance(error, TrainingError | EnvironmentFailed | ValueError)
        else f"{type(error).__name__}: "
    )
    return shown(f"{own}{str(error).partition(chr(10))[0]}", 1000)

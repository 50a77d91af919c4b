"""Number of processes of a training run, and starting them: copies of the command, which print nothing."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
import torch.distributed as dist

from rmc_agents.environment import EnvironmentFailed
from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.training.group import (
    TIMEOUT,
    Group,
    join_launched,
    local_rank,
    rank_of_launch,
    size_of_launch,
    started_key,
    timeout_of_launch,
)
from rmc_agents.training.processes import ALONE, Processes, ProcessLost

LEAST_SEQUENCES, LEAST_ENVS = 8, 16
"""Sequences of a minibatch, and environments, that auto leaves to each process at least."""
LEAST_STEPS = 100_000
"""Steps of a run from which auto starts several processes; starting them takes some seconds."""
GRACE = 10.0
"""Seconds that process 0 has to notice that another one failed."""
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files of Linux, in two versions of it, with the CPU time that a container may use, and in which time."""
_CHILD = "RMC_AGENTS_CHILD"
"""Environment variable of processes started here: they end when their standard input does."""


def is_first() -> bool:
    """Return whether this process prints and writes: it is alone, or process 0 of several."""
    return rank_of_launch() == 0


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _limit_of_container() or cores)


def _limit_of_container() -> int | None:
    """Return the number of cores whose time the container of this process may use, None for all."""
    for names in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            words = [word for name in names for word in (_CGROUP / name).read_text().split()]
            time_per_period, period = map(int, words)
            if time_per_period > 0 and period > 0:
                return max(time_per_period // period, 1)
    return None


def choose_processes(
    asked: int,
    *,
    saved: int | None,
    sequences: int,
    envs: int | None,
    steps: int,
    threads: int,
    helpful: bool,
) -> tuple[int, list[str]]:
    """Return the number of processes of a run, and a note if there are several.

    Args:
        asked: the number of --processes; 0 leaves the choice to this function.
        saved: the number of processes of the run that is resumed; None for a new run.
        sequences: sequences of a minibatch.
        envs: number of environments; None for samples that come from a generator.
        steps: steps or samples of the run.
        threads: CPU threads of each process; 0 for torch's choice.
        helpful: whether more processes make such a run faster.

    Raises:
        UsageError: another number of processes was started by torchrun.
    """
    started = size_of_launch()
    if started > 1:
        if asked not in (0, saved, started):
            raise UsageError(f"--processes {asked}: torchrun has started {started}; leave the flag out")
        return started, [f"{started} processes"]
    if asked:
        return asked, [f"{asked} processes"] if asked > 1 else []
    cores = usable_cores() // threads if threads else 1
    if not helpful or steps < LEAST_STEPS or not _can_restart():
        return 1, []
    number = next(n for n in range(max(cores, 1), 0, -1) if _fits(n, sequences, envs))
    if number == 1:
        return 1, []
    which = "one per core" if number == cores else f"for which there is enough work, on {cores} cores"
    return number, [f"{number} processes, {which}; --processes 1 for one"]


def _fits(number: int, sequences: int, envs: int | None) -> bool:
    """Return whether so many processes divide the work, and each has enough of it."""
    if number == 1:
        return True
    counts = [(sequences, LEAST_SEQUENCES), *([] if envs is None else [(envs, LEAST_ENVS)])]
    return all(count % number == 0 and count // number >= least for count, least in counts)


def processes_of_run(number: int) -> Processes:
    """Return the processes of a run: those that torchrun started, or copies of this command, started here."""
    if size_of_launch() > 1:
        return join()
    if number == 1:
        return ALONE
    if not _can_restart():
        raise UsageError(
            f"processes={number} needs a script that was started by a command, without a debugger; "
            "use torchrun instead"
        )
    children = _Children(number)
    try:
        return children.join()
    except BaseException:
        children.end(0)
        raise


def follow(run: Callable[[Processes], object]) -> NoReturn:
    """Run a process other than process 0, and exit. Process 0 reports its errors, once they have met."""
    code = _followed(run)
    if os.environ.get(_CHILD):  # process 0 waits, and Python takes a second to end
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _followed(run: Callable[[Processes], object]) -> int:
    """Run a process other than process 0; return its exit code."""
    try:
        joined = join()
    except (TrainingError, ValueError) as error:  # process 0 cannot be told
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), joined as processes:
            run(processes)
    except Interrupted as interruption:
        return 128 + interruption.signal
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (TrainingError, UsageError, EnvironmentFailed):
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def device_of(device: torch.device, processes: Processes) -> torch.device:
    """Return the device of this process: the GPU with its number, if there are several processes.

    Raises:
        UsageError: this machine has fewer GPUs than processes.
    """
    if device.type != "cuda" or device.index is not None or processes.size == 1:
        return device
    number, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", processes.size)), torch.cuda.device_count()
    if number > gpus:
        raise UsageError(
            f"{number} processes need a GPU each, and this machine has {gpus}: --processes {gpus}, "
            "or --device cpu"
        )
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


def join() -> Group:
    """Join the processes that this one was started with."""
    if os.environ.get(_CHILD):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    return join_launched()


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when process 0, however it ends, no longer holds the other end of the pipe
    os._exit(1)


def _can_restart() -> bool:
    """Return whether the command line of this process starts the script again, and not a debugger."""
    if sys.gettrace() is not None:
        return False
    given = sys.argv[1:]
    return os.path.exists(sys.argv[0]) and sys.orig_argv[len(sys.orig_argv) - len(given) :] == given


class _Children:
    """Processes 1, 2, ... of a run whose process 0 is this one.

    Args:
        number: of all processes.
    """

    def __init__(self, number: int) -> None:
        self.number, self.seconds, self.ending = number, timeout_of_launch(), False
        if sys.platform.startswith("linux"):  # the name of the host may have no address
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.running: list[subprocess.Popen[bytes]] = []
        self.errors: list[IO[Any]] = []
        shared = {
            **{"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), _CHILD: "1"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)},
            # The stacks that torch's sockets print would hide why a process failed.
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "FATAL"),
        }
        for rank in range(1, number):
            self.errors.append(tempfile.TemporaryFile())  # noqa: SIM115 - read when the process has ended
            child = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self.errors[-1],
            )
            self.running.append(child)

    def join(self) -> Group:
        """Wait until all have started, and connect them."""
        keys = [started_key(rank) for rank in range(1, self.number)]
        seconds = max(self.seconds, TIMEOUT)
        until = time.monotonic() + seconds
        while not self.store.check(keys):
            dead = self.how_ended()
            if dead or time.monotonic() > until:
                raise ProcessLost(dead or f"the processes of this run did not start within {seconds:g} s")
            time.sleep(0.02)
        group = Group(
            self.store,
            0,
            self.number,
            timeout=self.seconds,
            one_machine=True,
            why_lost=lambda: self.how_ended(wait=2.0),
            at_end=self.end,
        )
        threading.Thread(target=self._watch, daemon=True).start()
        return group

    def how_ended(self, wait: float = 0.0) -> str | None:
        """Say which child ended and how, None if none did; print its errors, if it wrote any.

        Args:
            wait: seconds to wait for one to end.
        """
        until = time.monotonic() + wait
        while not (ended := self._ended()) and time.monotonic() < until:
            time.sleep(0.02)
        if not ended:
            return None
        rank, code = ended[0]
        file = self.errors[rank - 1]
        file.seek(0)
        if text := file.read().decode(errors="replace").strip():
            print(f"process {rank}:\n{text}", file=sys.stderr, flush=True)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"process {rank} {how}"

    def _ended(self) -> list[tuple[int, int]]:
        """Return number and exit code of the children that have ended."""
        codes = [(rank, child.poll()) for rank, child in enumerate(self.running, 1)]
        return [(rank, code) for rank, code in codes if code is not None]

    def _watch(self) -> None:
        """End this process if a child fails and this one, which hangs, does not notice."""
        while not any(code == 1 or code < 0 for _, code in self._ended()):
            time.sleep(1)
            if self.ending:
                return
        time.sleep(GRACE)
        if not self.ending:
            text = f"error: {self.how_ended()}, and process 0 does not answer; training stopped\n"
            os.write(2, text.encode())
            os._exit(1)

    def end(self, wait: float) -> None:
        """Give the children some seconds to end, and kill those that have not."""
        self.ending = True
        until = time.monotonic() + wait
        for child in self.running:
            try:
                child.wait(max(until - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

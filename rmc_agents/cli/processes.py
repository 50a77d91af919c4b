"""Number of processes of a training run, and what each of them does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from rmc_agents.cli.children import CHILD, Children
from rmc_agents.cli.script import checking
from rmc_agents.environment import EnvironmentFailed
from rmc_agents.errors import Interrupted, TrainingError, UsageError
from rmc_agents.training.group import Group, join_launched, local_rank, rank_of_launch, size_of_launch
from rmc_agents.training.processes import ALONE, Processes

LEAST_SEQUENCES, LEAST_ENVS = 8, 16
"""Sequences of a minibatch, and environments, that auto leaves to each process at least."""
LEAST_STEPS = 100_000
"""Steps of a run from which auto starts several processes; starting them takes some seconds."""
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files of Linux, in two versions of it, with the CPU time that a container may use, and in which time."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """A training run, as process 0 has read it from the flags."""

    config: object
    """The configuration."""
    device: torch.device
    """Where to train."""
    restore: bool
    """Whether to continue from a checkpoint."""
    number: int
    """Number of processes."""
    notes: Sequence[str]
    """Notes for the user, printed by process 0."""
    saved: object = None
    """Configuration of the resumed run, if there is one."""


def follow_process_0(train: Callable[..., object]) -> None:
    """Train in this process if it is not process 0 of the run, and exit; call it before flags are parsed.

    Args:
        train: called with the processes of the run, and the configuration, device and `restore` of the plan.
    """
    if rank_of_launch() > 0:
        follow(lambda processes: train(processes, *processes.broadcast(None)))


def train_by_plan(train: Callable[..., Result], plan: Plan) -> Result:
    """Start the processes of a run, and train in this one, process 0; return what `train` returns.

    Args:
        train: as in `follow_process_0`, called also with the notes and the saved configuration of the plan.
        plan: the run.
    """
    with checking():
        processes = processes_of_run(plan.number)
    shared = (plan.config, plan.device, plan.restore)
    with processes:
        processes.broadcast(shared)
        return train(processes, *shared, plan.notes, plan.saved)


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
    children = Children(number)
    try:
        return children.join()
    except BaseException:
        children.end(0)
        raise


def follow(run: Callable[[Processes], object]) -> NoReturn:
    """Run a process other than process 0, and exit. Process 0 reports its errors, once they have met."""
    code = _followed(run)
    if os.environ.get(CHILD):  # process 0 waits, and Python takes a second to end
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
    if os.environ.get(CHILD):
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

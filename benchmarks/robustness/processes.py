"""Small training runs in separate processes, which can be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.flags import parse
from rmc_agents.runs.folder import checkpoints
from train import ppo

TINY = [
    *("--env", "rmc/Recall-v0", "--num-envs", "4", "--num-steps", "8", "--bptt-length", "4"),
    *("--minibatch-size", "32", "--epochs", "1", "--features", "8", "--hidden-size", "8"),
    *("--total-steps", "100_000_000"),
]
"""Flags of train/ppo.py for a training run whose iterations take milliseconds."""
SMALL_CORES = {
    "rmc": ["num_slots=2", "num_heads=2", "head_size=4"],
    "gru": ["hidden_size=8"],
    "lstm": ["hidden_size=8"],
}
"""Options of each core."""
STEPS = 4 * 8
"""Environment steps of an iteration of `TINY`."""


def start(args: list[str], output: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start `train/ppo.py` in a process of its own, and return its id.

    The process is a fork of this one, because importing torch again would take seconds.

    Args:
        args: the command line.
        output: file to which stdout and stderr are appended.
        prepare: called in the new process before training.
    """
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about a fork in a process with threads
        process = os.fork()
    if process:
        return process
    code = 70
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        sys.argv = ["train/ppo.py", *args]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        prepare()
        ppo.cli()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = 120  # as Python does
        os._exit(code)


def configure(args: list[str]) -> RunConfig:
    """Return the configuration of a training run with these flags."""
    return parse(RunConfig, None, args, prog="soak")


def exit_code(process: int) -> int:
    """Wait for a process, and return its exit code: negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not hold within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition did not hold within {seconds:g} seconds")
        time.sleep(0.005)


def newest_step(run_dir: Path) -> int:
    """Return the step of the newest checkpoint, -1 if there is none."""
    return next((int(path.stem.removeprefix("step_")) for path in checkpoints(run_dir)), -1)


def tiny_run(folder: Path, core: str = "gru") -> Path:
    """Train for two iterations, and return the run folder."""
    run_dir = folder / f"tiny-{core}"
    args = [*TINY, "--core", core, "--core-options", *SMALL_CORES[core], "--run-dir", str(run_dir)]
    process = start([*args, "--total-steps", str(2 * STEPS)], folder / "tiny.txt")
    if exit_code(process):
        raise RuntimeError((folder / "tiny.txt").read_text())
    return run_dir

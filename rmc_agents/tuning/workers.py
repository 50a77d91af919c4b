"""Worker processes of a sweep: copies of the command, each of which makes trials until none is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from rmc_agents.training.signals import SIGNALS

WORKER = "RMC_AGENTS_TUNE_WORKER"
"""Environment variable of worker processes: their number, from 1."""


def is_worker() -> bool:
    """Return whether this process is a worker that `run_workers` started."""
    return WORKER in os.environ


def run_workers(number: int, args: Sequence[str]) -> tuple[list[int], int | None]:
    """Start workers and wait for them; signals to this process are passed on to them.

    Args:
        number: of workers.
        args: command line of the script that this process runs.

    Returns:
        their exit codes, and the first signal that arrived, if any did.
    """
    command = [sys.executable, os.path.abspath(sys.argv[0]), *args]
    workers: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signum)

    with _handling(pass_on):
        for rank in range(1, number + 1):
            if received:
                break
            worker = subprocess.Popen(
                command,
                env={**os.environ, WORKER: str(rank)},
                stdin=subprocess.PIPE,  # closes when this process ends: see `follow_parent`
                start_new_session=True,  # so that Ctrl-C reaches them once, through this process
            )
            workers.append(worker)
        codes = [worker.wait() for worker in workers]
    for worker in workers:
        if worker.stdin is not None:
            worker.stdin.close()
    return codes, received[0] if received else None


def follow_parent() -> None:
    """In a worker: end as by SIGTERM when the process that started it is gone."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _handling(handler: object) -> Iterator[None]:
    """Handle the signals that end a process inside this context; those that were ignored stay so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

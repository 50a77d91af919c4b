"""Copies of a training command: the other processes of its run, which print nothing."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

import torch.distributed as dist

from rmc_agents.training.group import TIMEOUT, Group, started_key, timeout_of_launch
from rmc_agents.training.processes import ProcessLost

GRACE = 10.0
"""Seconds that process 0 has to notice that another one failed."""
CHILD = "RMC_AGENTS_CHILD"
"""Environment variable of processes started here: they end when their standard input does."""


class Children:
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
            **{"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), CHILD: "1"},
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

"""Our trainings divided among processes of one machine, in turns with other candidates of a measurement."""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.distributed import TCPStore

from benchmarks.speed.timed_training import OurTraining, Seconds, Sizes
from rmc_agents.training.group import Group
from rmc_agents.training.processes import Processes, share_of

Make = Callable[[Sizes, Processes], dict[str, OurTraining]]
"""Builds the trainings of one process, by name; a function of a module, so that other processes find it."""


class ParallelTrainings:
    """Trainings whose processes stop between iterations, so that other candidates can be timed meanwhile.

    A context manager: the other processes run within its `with` block.

    Args:
        make: builds the trainings of a process, with its share of the environments.
        sizes: of the whole trainings.
        number: of processes, this one included; each computes on one thread.
    """

    def __init__(self, make: Make, sizes: Sizes, number: int) -> None:
        self.make, self.sizes, self.number = make, sizes, number
        self._stack = ExitStack()

    def __enter__(self) -> ParallelTrainings:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("spawn")
        self._others: list[Connection] = []
        for rank in range(1, self.number):
            ours, theirs = context.Pipe()
            arguments = self.make, self.sizes, store.port, rank, self.number, theirs
            process = context.Process(target=_follow, args=arguments, daemon=True)
            process.start()
            self._stack.callback(process.join, 30)
            self._others.append(ours)
        group = self._stack.enter_context(Group(store, 0, self.number, one_machine=True))
        self._stack.callback(self._send, None)
        self.trainings = self.make(_share(self.sizes, self.number), group)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _send(self, name: str | None) -> None:
        for other in self._others:
            other.send(name)

    def iterate(self, name: str) -> Seconds:
        """Make one iteration of a training; the parts are those of this process, the sum is that of all."""
        started = time.perf_counter()
        self._send(name)
        seconds = self.trainings[name].iterate()
        return seconds._replace(update=time.perf_counter() - started - seconds.environment - seconds.policy)


def _share(sizes: Sizes, number: int) -> Sizes:
    return replace(sizes, num_envs=share_of(sizes.num_envs, number, "num_envs"))


def _follow(make: Make, sizes: Sizes, port: int, rank: int, number: int, first: Connection) -> None:
    """Take part in the iterations that process 0 names, until it names none."""
    torch.set_num_threads(1)
    with Group(TCPStore("127.0.0.1", port), rank, number, one_machine=True) as group:
        trainings = make(_share(sizes, number), group)
        while (name := first.recv()) is not None:
            trainings[name].iterate()

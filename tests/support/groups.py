"""Functions run by several connected processes at once."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rmc_agents.training.group import Group
from rmc_agents.training.processes import Processes


def in_processes(function: Callable[[Processes], Any], size: int = 2, timeout: float = 20.0) -> list[Any]:
    """Call a function in each of several processes that form a group; return their results.

    The processes are forks of this one, because importing torch again would take seconds. The result of a
    process that raises is its error as text; that of one that dies is None.

    Args:
        function: returns tensors, numbers, strings and containers of them.
        size: number of processes.
        timeout: seconds that they wait for each other.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about a fork in a process with threads
        children = []
        for rank in range(size):
            child = os.fork()
            if not child:
                _run(function, rank, size, timeout, Path(folder))
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        files = [Path(folder) / f"{rank}.pt" for rank in range(size)]
        return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def _run(function: Callable[[Processes], Any], rank: int, size: int, timeout: float, folder: Path) -> None:
    """Call the function in one of the processes, which then ends."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        store = dist.FileStore(str(folder / "store"), size)  # pyright: ignore[reportPrivateImportUsage]
        with Group(store, rank, size, timeout=timeout, one_machine=True) as group:
            result = function(group)
    except BaseException as error:
        if not isinstance(error, Exception | KeyboardInterrupt):
            traceback.print_exc()
        result = f"{type(error).__name__}: {error}"
    torch.save(result, folder / f"{rank}.partial")
    os.replace(folder / f"{rank}.partial", folder / f"{rank}.pt")
    os._exit(0)

"""Sums over the processes of one machine, through memory that they share.

Usage, in all processes at the same time:

    memory = create(size, max_numel) if rank == 0 else -1
    path = processes.broadcast(path_of(memory))
    sums = SharedSum(memory if rank == 0 else path, rank, size, max_numel, timeout)
    sums.sum_(gradient)
"""

from __future__ import annotations

import ctypes
import mmap
import os

import torch
from torch import Tensor

from rmc_agents.cores.kernels.build import library
from rmc_agents.cores.kernels.call import run

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LINE = 64
"""Bytes of a cache line; `STRIDE` in barrier.c is as long."""
_SLICE = 0.05
"""Seconds between looks at whether the others are alive."""


class _Barrier(ctypes.Structure):
    """`struct call` of barrier.c."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("rank", "size", "number", "microseconds")),
        ("arrived", ctypes.c_void_p),
    )


def supported() -> bool:
    """Return whether this machine can share memory and has the compiled kernels."""
    return fcntl is not None and hasattr(os, "memfd_create") and library() is not None


def create(size: int, max_numel: int) -> int:
    """Reserve memory in one of the processes; return its file descriptor.

    The memory is not in the file system, and disappears with the processes. This process gives the descriptor
    to its `SharedSum`, the others `path_of(descriptor)`.

    Raises:
        OSError: there is not enough memory.
    """
    descriptor = os.memfd_create("rmc_agents", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, _bytes(size, max_numel))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def path_of(descriptor: int) -> str:
    """Return the path under which the other processes of this machine can open memory of this one."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


class SharedSum:
    """Sums over all processes of a machine, bit-equal in each.

    Numbers are added in the order of the ranks. A process that dies is noticed within a fraction of a second.

    Args:
        memory: the file descriptor in the process that called `create`, its path in the others.
        rank: number of this process.
        size: number of processes.
        max_numel: largest number of float32 elements of a tensor; half as many float64.
        timeout: seconds to wait for the others.

    Raises:
        OSError: the memory cannot be opened, because it belongs to another machine, container or user.
        RuntimeError: another process died, or did not come within `timeout`.
    """

    def __init__(self, memory: int | str, rank: int, size: int, max_numel: int, timeout: float) -> None:
        self.rank, self.size, self.max_numel, self.timeout = rank, size, max_numel, timeout
        assert fcntl is not None
        self._file = os.open(memory, os.O_RDWR | os.O_CLOEXEC) if isinstance(memory, str) else memory
        # Held until this process dies, or closes any descriptor of this memory.
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
        shared = mmap.mmap(self._file, _bytes(size, max_numel))
        self._memory = torch.frombuffer(shared, dtype=torch.uint8)
        self._meeting = 0
        header = size * _LINE
        *self._parts, self._result = self._memory[header:].view(size + 1, -1).unbind(0)
        self._meet()

    def close(self) -> None:
        """Release the memory; no `sum_` may follow."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def fits(self, x: Tensor) -> bool:
        """Return whether `sum_` accepts a tensor."""
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and x.is_contiguous()
            and x.nbytes <= 4 * self.max_numel
        )

    @torch.no_grad()
    def sum_(self, x: Tensor) -> Tensor:
        """Replace `x` by its sum over all processes, and return it.

        Args:
            x: float32 or float64, contiguous, on the CPU, of the same shape in all processes.

        Raises:
            ValueError: the tensor does not fit.
            RuntimeError: another process died, or did not come within the timeout.
        """
        if not self.fits(x):
            raise ValueError(
                f"expected a contiguous float32 or float64 tensor on the CPU of at most {4 * self.max_numel} "
                f"bytes, got {x.dtype} of {x.nbytes} bytes on {x.device}"
            )
        flat = x.view(-1)
        parts = [part[: x.nbytes].view(x.dtype) for part in (*self._parts, self._result)]
        parts[self.rank].copy_(flat)
        self._meet()
        # Each process adds a share of the numbers.
        begin, end = (flat.numel() * k // self.size for k in (self.rank, self.rank + 1))
        *shares, result = (part[begin:end] for part in parts)
        result.copy_(shares[0])
        for share in shares[1:]:
            result.add_(share)
        self._meet()
        flat.copy_(parts[-1])
        return x

    def _meet(self) -> None:
        """Wait until all processes are here."""
        self._meeting += 1
        call = _Barrier(self.rank, self.size, self._meeting, int(1e6 * _SLICE), self._memory.data_ptr())
        if not run("barrier_wait", call):
            return
        waited = 0.0  # no clock: one continues while these processes are stopped, as by Ctrl-Z
        while run("barrier_wait", call):
            waited += _SLICE
            dead = [other for other in range(self.size) if other != self.rank and self._died(other)]
            # One that ended after this meeting has arrived at it, and so have all others.
            if dead and run("barrier_wait", call):
                raise RuntimeError(f"process {dead[0]} of {self.size} ended")
            if waited >= self.timeout:
                raise RuntimeError(f"timed out after {self.timeout:g} s of waiting for another process")

    def _died(self, other: int) -> bool:
        """Return whether a process that had arrived at the first meeting no longer holds its lock."""
        assert fcntl is not None
        if self._meeting == 1:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, other)
        except OSError:
            return False
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, other)
        return True


def _bytes(size: int, max_numel: int) -> int:
    """Return the size of the memory: counters, a part for each process, and the result."""
    part = -(-4 * max_numel // _LINE) * _LINE
    return size * _LINE + (size + 1) * part

"""Lock of a run folder: one process at a time trains in it.

The operating system releases the lock when the process ends, however it ends. Where the file system has no
locks, or the folder cannot be written, nothing is locked. Reading a run folder needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from rmc_agents.errors import UsageError

NAME = ".lock"
"""File in a run folder that is locked while a process trains in it; it says which process."""
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_held: dict[str, int] = {}  # the run folders that this process holds; a fork does not hold its parent's


@contextlib.contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made.

    Raises:
        UsageError: another process holds it, or this one does.
    """
    key = os.path.realpath(run_dir)
    if _held.get(key) == os.getpid():
        raise UsageError(f"{run_dir} is in use: another trainer of this process trains in it")
    file = _acquire(run_dir)
    _held[key] = os.getpid()
    try:
        yield
    finally:
        del _held[key]
        if file is not None:
            with contextlib.suppress(OSError):
                (run_dir / NAME).unlink()
            with contextlib.suppress(OSError):
                os.close(file)


def require_unlocked(run_dir: Path) -> None:
    """Raise UsageError if another process holds the lock of a run folder."""
    if run_dir.is_dir() and _held.get(os.path.realpath(run_dir)) != os.getpid():
        with run_lock(run_dir):
            pass


def _acquire(run_dir: Path) -> int | None:
    """Return the locked file; None where nothing can be locked."""
    path = run_dir / NAME
    for _ in range(100):
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError:
            return None
        try:
            _lock(file)
            mine = os.path.samestat(os.fstat(file), os.stat(path))
        except FileNotFoundError:  # its holder has just deleted it
            mine = False
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno not in _TAKEN:
                return None
            raise UsageError(
                f"{run_dir} is in use by {holder}: wait until it has ended, or choose another run_dir"
            ) from None
        if mine:
            with contextlib.suppress(OSError):
                process = {"pid": os.getpid(), "host": platform.node(), "command": " ".join(sys.argv)[:500]}
                os.ftruncate(file, 0)
                os.write(file, json.dumps(process).encode())
            return file
        os.close(file)
    return None


def _lock(file: int) -> None:
    """Lock a file for this process, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        # A byte behind the contents: others cannot read what is locked.
        os.lseek(file, 2**20, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        # Not `flock`, whose locks live on in worker processes.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: int) -> str:
    """Describe the process that holds a lock, as it described itself."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        process = json.loads(os.read(file, 4096))
        pid, host, command = process["pid"], process["host"], process["command"]
        return f"process {int(pid)} on {str(host)[:60]!r} ({str(command)[:100]!r})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"

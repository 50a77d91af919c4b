"""Cache of compiled libraries: `FOLDER/STEM-CHECKSUM.so`.

A library runs with the user's rights. It is loaded only if its content has the checksum in its name, which a
truncated or damaged file does not have, and if nobody but the user and root could have written it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

UNFINISHED = ".building-"
"""Prefix of the files that compilers write, in the folder of the library."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Return the folder of compiled libraries: $XDG_CACHE_HOME/rmc_agents or ~/.cache/rmc_agents.

    Raises:
        RuntimeError: the user has no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    # Relative paths are invalid according to the XDG specification, and must be ignored.
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "rmc_agents"


def own_cache_folder() -> Path:
    """Return the cache folder, created if missing, where only this user may write.

    Raises:
        PermissionError: another user owns it or can replace it, and may have put libraries there.
    """
    folder = cache_folder()
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status, above = folder.stat(), folder.resolve().parent.stat()
    if not _owner_is_trusted(status):
        raise PermissionError(f"{folder} belongs to another user")
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX and hasattr(os, "geteuid"):
        raise PermissionError(f"any user can replace {folder}")
    if status.st_mode & _WRITABLE_BY_OTHERS and hasattr(os, "geteuid"):
        folder.chmod(stat.S_IMODE(status.st_mode) & ~_WRITABLE_BY_OTHERS)
    return folder


def find(folder: Path, stem: str) -> Path | None:
    """Return the intact library with this stem, if there is one; remove those that are not intact."""
    for path in sorted(folder.glob(f"{stem}-*.so")):
        if path.name == _name(stem, path):
            return path
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def store(unfinished: Path, stem: str) -> Path:
    """Give a finished library its name in the cache; return its path."""
    unfinished.chmod(0o644)
    target = unfinished.with_name(_name(stem, unfinished) or f"{stem}.so")
    unfinished.replace(target)
    return target


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[bool]:
    """Hold the folder's lock; yield False if it is not available within `seconds`, or not supported."""
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _acquire(descriptor, time.monotonic() + seconds)
    finally:
        os.close(descriptor)  # releases the lock


def remove_unfinished(folder: Path) -> None:
    """Remove the files of builds that were killed. The caller holds the folder's lock, so none is running."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _acquire(descriptor: int, deadline: float) -> bool:
    assert fcntl is not None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:  # another process is building
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        except OSError:  # not supported by this file system
            return False


def _name(stem: str, path: Path) -> str | None:
    """Return the name of a library with the content of this file; None if it is not to be trusted."""
    # Without following links, nor waiting for the writer of a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _owner_is_trusted(status):
            return None
        if status.st_mode & _WRITABLE_BY_OTHERS and hasattr(os, "geteuid"):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return f"{stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.so"
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _owner_is_trusted(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid in (0, os.geteuid())

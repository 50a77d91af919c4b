"""Atomic file writes: at any moment either the old file or the complete new one exists."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace a file; its folder is made.

    Args:
        path: the file.
        write: writes the contents into an open binary file.

    Raises:
        OSError: it could not be written; an older file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            _sync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync(file: int) -> None:
    """Wait until a file is on the disk, where the file system can say so."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def _sync_folder(folder: Path) -> None:
    """Let new names in a folder survive a power cut, where that is possible: the file itself is complete."""
    with contextlib.suppress(OSError):  # Windows and some network file systems
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; what JSON does not know (paths) is written as text."""
    text = json.dumps(value, indent=2, default=str) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8; what UTF-8 cannot hold (bytes of a file name) is escaped."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def read_regular(path: Path) -> bytes:
    """Return the contents of a regular file; a pipe or a device might never end.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    require_regular(path)
    return path.read_bytes()


def require_regular(path: Path) -> None:
    """Raise OSError unless a path is that of a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


MAX_NAME = 100
"""Characters of a file name, so that an ending and a number still fit."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of devices on Windows."""


def portable_name(text: str) -> str:
    """Return text as the name of a file or folder, in characters that every file system accepts.

    ASCII letters, digits and `+`, `.`, `-`, `_` stay; runs of anything else become a hyphen. Names that are
    long or lost letters end in a checksum, so that different texts have different names.
    """
    name = re.sub(r"[^A-Za-z0-9+._-]+", "-", text).lstrip("-.").rstrip(".") or "unnamed"
    if len(name) > MAX_NAME or not text.isascii():
        name = f"{name[: MAX_NAME - 9]}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"
    return f"_{name}" if _RESERVED.fullmatch(name) else name

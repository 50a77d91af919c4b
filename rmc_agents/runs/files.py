"""Atomic file writes: at any moment either the old file or the complete new one exists."""

from __future__ import annotations

import json
import os
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
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; what JSON does not know (paths) is written as text."""
    text = json.dumps(value, indent=2, default=str) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))

"""Atomic writes: the old file or the new one, never half of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmc_agents.runs.files import write_atomically, write_json, write_text


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file) -> None:  # type: ignore[no-untyped-def]
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_makes_the_folder_and_writes_paths_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": 1.5, "path": tmp_path})
    assert json.loads(path.read_text()) == {"x": 1.5, "path": str(tmp_path)}
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_write_text_writes_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "95 % ± 1")
    assert (tmp_path / "text").read_bytes() == "95 % ± 1".encode()

"""Atomic writes: the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from rmc_agents.runs.files import MAX_NAME, portable_name, write_atomically, write_json, write_text


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


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES, errno.EIO, errno.ENOTSUP, errno.EBADF])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_folder_that_cannot_be_synced_does_not_fail_the_write(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows opens no folders (PermissionError), and some network file systems sync none."""
    original = getattr(os, call)

    def refuse(target: str | int, *args: int) -> int | None:
        if os.path.isdir(target):
            raise OSError(code, os.strerror(code))
        return original(target, *args)

    monkeypatch.setattr(os, call, refuse)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_that_syncs_nothing_does_not_fail_the_write(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_file_that_did_not_reach_the_disk_fails_the_write(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        write_text(tmp_path / "file", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_clean_up_that_fails_does_not_hide_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    def fail(file) -> None:  # type: ignore[no-untyped-def]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(tmp_path / "file", fail)


def test_text_of_a_file_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "text", os.fsdecode(b"run-\xff"))
    assert (tmp_path / "text").read_text() == "run-\\udcff"
    write_json(tmp_path / "json", {"run": os.fsdecode(b"run-\xff")})
    assert json.loads((tmp_path / "json").read_text())["run"] == os.fsdecode(b"run-\xff")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MiniGrid-MemoryS13-v0", "MiniGrid-MemoryS13-v0"),
        ("popgym:popgym-RepeatPreviousEasy-v0", "popgym-popgym-RepeatPreviousEasy-v0"),
        ('a/b\\c:d*e?f"g<h>i|j', "a-b-c-d-e-f-g-h-i-j"),
        ("a, b\n\x1b[31m\x00", "a-b-31m-"),
        ("../../etc/passwd", "etc-passwd"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com1", "_com1"),
        ("console", "console"),
        ("trailing. . .", "trailing.-.-"),
        ("", "unnamed"),
        ("...", "unnamed"),
    ],
)
def test_names_are_portable(text: str, name: str) -> None:
    assert portable_name(text) == name


def test_long_names_and_lost_letters_stay_different() -> None:
    names = [portable_name(text) for text in ("x" * 5000, "x" * 4999, "記憶", "言語", "é", "e")]
    assert len(set(names)) == len(names)
    assert all(len(name) <= MAX_NAME and name.isascii() for name in names)

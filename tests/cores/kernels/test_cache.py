"""Cache of compiled libraries: what is damaged, or may come from another user, is never loaded."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rmc_agents.cores.kernels import cache

STEM = "kernels-0123"
CONTENT = bytes(range(256)) * 300
"""Content of a library, for tests that do not load it."""

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, which is that of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.own_cache_folder()


def stored(folder: Path, content: bytes = CONTENT) -> Path:
    """Put a library into the cache; return its path."""
    unfinished = folder / f"{cache.UNFINISHED}x.so"
    unfinished.write_bytes(content)
    return cache.store(unfinished, STEM)


def own_by(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every file belong to this user, as far as `os.fstat` and `Path.stat` tell."""

    def changed(call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def call_and_change(*arguments: object, **options: object) -> os.stat_result:
            values = list(call(*arguments, **options))
            values[stat.ST_UID] = uid
            return os.stat_result(values)

        return call_and_change

    monkeypatch.setattr(os, "fstat", changed(os.fstat))
    monkeypatch.setattr(Path, "stat", changed(Path.stat))


def test_stored_library_is_found_by_its_stem(folder: Path) -> None:
    assert cache.find(folder, STEM) is None
    path = stored(folder)
    assert path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]
    assert cache.find(folder, STEM) == path
    assert cache.find(folder, "kernels-4567") is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("percent", [0, 1, 5, 25, 50, 75, 90, 95, 99])
def test_truncated_library_is_removed(percent: int, folder: Path) -> None:
    path = stored(folder)
    os.truncate(path, len(CONTENT) * percent // 100)
    assert cache.find(folder, STEM) is None
    assert not path.exists()
    assert cache.find(folder, STEM) is None


@pytest.mark.parametrize("at", [0, 1, 63, 4096, len(CONTENT) // 2, len(CONTENT) - 1])
@pytest.mark.parametrize("flipped", [0x01, 0x80, 0xFF])
def test_library_with_a_changed_byte_is_removed(at: int, flipped: int, folder: Path) -> None:
    path = stored(folder)
    damaged = bytearray(CONTENT)
    damaged[at] ^= flipped
    path.write_bytes(damaged)
    assert cache.find(folder, STEM) is None
    assert not path.exists()


@pytest.mark.parametrize("content", [CONTENT + b"\0", b"", CONTENT[::-1], b"\0" * len(CONTENT)])
def test_library_with_other_content_is_removed(content: bytes, folder: Path) -> None:
    path = stored(folder)
    path.write_bytes(content)
    assert cache.find(folder, STEM) is None
    assert not path.exists()


def test_damaged_library_does_not_hide_an_intact_one(folder: Path) -> None:
    first, second = stored(folder, b"first"), stored(folder, b"second")
    for damaged, intact in ((first, second), (second, first)):
        (content,) = [b"first" if damaged == first else b"second"]
        damaged.write_bytes(b"damaged")
        assert cache.find(folder, STEM) == intact
        damaged.write_bytes(content)


@needs_users
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o777])
def test_library_that_others_may_write_is_removed(mode: int, folder: Path) -> None:
    path = stored(folder)
    path.chmod(mode)
    assert cache.find(folder, STEM) is None
    assert not path.exists()


@needs_users
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_library_is_stored_with_safe_permissions_under_any_umask(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    (tmp_path / "new").mkdir()
    before = os.umask(umask)
    try:
        folder = cache.own_cache_folder()
        path = stored(folder)
    finally:
        os.umask(before)
    assert cache.own_cache_folder() == folder
    assert cache.find(folder, STEM) == path
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


@needs_users
def test_library_of_another_user_is_not_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(folder)
    own_by(os.geteuid() + 1000, monkeypatch)
    assert cache.find(folder, STEM) is None


@needs_users
def test_library_of_root_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    own_by(0, monkeypatch)
    assert cache.find(folder, STEM) == path


def test_links_pipes_and_folders_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    path = stored(folder)
    path.rename(tmp_path / "elsewhere.so")
    path.symlink_to(tmp_path / "elsewhere.so")
    assert cache.find(folder, STEM) is None
    assert (tmp_path / "elsewhere.so").read_bytes() == CONTENT, "only the link is removed"
    path.symlink_to(tmp_path / "missing.so")
    assert cache.find(folder, STEM) is None
    os.mkfifo(path)
    assert cache.find(folder, STEM) is None
    path.mkdir()
    assert cache.find(folder, STEM) is None
    assert path.is_dir()


@needs_users
def test_folder_that_others_may_write_is_closed_to_them(folder: Path) -> None:
    path = stored(folder)
    folder.chmod(0o777)
    assert cache.own_cache_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert cache.find(folder, STEM) == path


@needs_users
def test_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_by(os.geteuid() + 1000, monkeypatch)
    with pytest.raises(PermissionError, match="belongs to another user"):
        cache.own_cache_folder()


@needs_users
def test_folder_that_anyone_can_replace_is_refused(folder: Path) -> None:
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="any user can replace"):
        cache.own_cache_folder()
    folder.parent.chmod(0o1777)  # as /tmp: entries belong to those who made them
    assert cache.own_cache_folder() == folder


@pytest.mark.parametrize("given", ["", "relative", "./here"])
def test_relative_cache_home_is_ignored(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/somebody")
    assert cache.cache_folder() == Path("/somebody/.cache/rmc_agents")


def test_lock_is_held_by_one_at_a_time(folder: Path) -> None:
    with cache.locked(folder, 0) as first:
        started = time.monotonic()
        with cache.locked(folder, 0.1) as second:
            pass
    assert (first, second) == (True, False)
    assert time.monotonic() - started < 5
    with cache.locked(folder, 0) as again:
        assert again
    assert not list(folder.iterdir())


def test_lock_ends_with_its_process(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from rmc_agents.cores.kernels import cache\n"
        "with cache.locked(Path(sys.argv[1]), 0) as held: print(held, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "True\n"
        with cache.locked(folder, 0) as held:
            assert not held
        process.kill()
        process.wait()
        with cache.locked(folder, 10) as held:
            assert held


def test_folder_that_cannot_be_locked_is_used_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "not supported")

    if cache.fcntl is not None:
        monkeypatch.setattr(cache.fcntl, "flock", refuse)
    with cache.locked(folder, 60) as held:
        assert not held
    monkeypatch.setattr(cache, "fcntl", None)
    with cache.locked(folder, 60) as held:
        assert not held


def test_unfinished_files_are_removed(folder: Path) -> None:
    path = stored(folder)
    for name in ("a.so", "b.so", "c.tmp"):
        (folder / f"{cache.UNFINISHED}{name}").write_text("killed")
    cache.remove_unfinished(folder)
    assert list(folder.iterdir()) == [path]

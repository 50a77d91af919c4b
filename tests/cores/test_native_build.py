"""Compiling the native kernels, doing without them, and the memory they use."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rmc_agents.cores import HoistedCore
from rmc_agents.cores.native import build, gated, rmc, workspace
from tests.cores.core_support import assert_equal, sequence, tiny_core, values_and_gradients

needs_native = pytest.mark.skipif(build.library() is None, reason="no native kernels here")


def assert_computes(name: str) -> None:
    """The core still gives the plain loop's values and gradients."""
    core = tiny_core(name, dtype=torch.float32)
    seq = sequence(core)
    expected = values_and_gradients(core, lambda *s: HoistedCore.unroll(core, *s), seq)
    assert_equal(values_and_gradients(core, core.unroll, seq), expected)


@pytest.fixture
def fresh_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As in a new process with an empty cache."""
    monkeypatch.setattr(build, "_found", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    for module in (rmc, gated):
        module._works.cache_clear()
    yield tmp_path
    for module in (rmc, gated):
        module._works.cache_clear()


def set_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str | None) -> None:
    """The only program on the path is that compiler; None for none at all."""
    programs = folder / "programs"
    programs.mkdir()
    if script is not None:
        (programs / "cc").write_text("#!/bin/sh\n" + script)
        (programs / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "no C compiler found"),
        ("echo 'license expired' >&2; exit 1", "license expired"),
        ("case $* in *-dM*) exit 0;; *) echo 'cannot link' >&2; exit 1;; esac", "cannot link"),
        ("exit 0", "file too short"),
    ],
)
def test_without_a_working_compiler_pytorch_does_it_and_says_so_once(
    script: str | None,
    reason: str,
    fresh_build: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    runs: list[str],
) -> None:
    set_compiler(monkeypatch, fresh_build, script)
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        for name in ("rmc", "lstm"):
            assert_computes(name)
    assert runs == []
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert build.SWITCH in caplog.text


@needs_native
@pytest.mark.parametrize(("name", "module", "field"), [("rmc", rmc, "d_qkv"), ("lstm", gated, "d_hidden")])
def test_a_library_that_computes_something_else_is_not_used(
    name: str,
    module: Any,
    field: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = module.run

    def wrong(function: str, call: Any) -> int:
        result = run(function, call)
        if function.endswith("backward"):
            ctypes.memset(getattr(call, field), 0, 4)
        return result

    monkeypatch.setattr(build, "_found", list(build._found))
    monkeypatch.setattr(module, "run", wrong)
    module._works.cache_clear()
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        assert_computes(name)
    module._works.cache_clear()
    assert len(caplog.records) == 1
    assert "something else" in caplog.text


def test_switched_off_in_silence(
    fresh_build: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    runs: list[str],
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    for name in ("rmc", "lstm"):
        assert_computes(name)
    assert runs == []
    assert not caplog.records
    assert not (fresh_build / "cache").exists()


@needs_native
def test_many_build_at_once(fresh_build: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        libraries = list(pool.map(lambda _: build._load(), range(3)))
    assert all(library.rmc_forward for library in libraries)
    (built,) = build.cache_folder().iterdir()  # and nothing unfinished is left
    written = built.stat().st_mtime_ns
    assert build._load().rmc_forward
    assert built.stat().st_mtime_ns == written


@needs_native
def test_a_library_cut_short_is_built_again(fresh_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build._load()
    (built,) = build.cache_folder().iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh_build / "other"))
    damaged = build.cache_folder() / built.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(built.read_bytes()[:100])
    assert build._load().rmc_forward
    assert damaged.stat().st_size == built.stat().st_size


@needs_native
def test_a_cache_that_cannot_be_written(fresh_build: Path) -> None:
    (fresh_build / "cache").write_text("a file where the folder should be")
    assert build._load().rmc_forward


def test_workspace_is_used_again_once_nobody_has_it() -> None:
    first = workspace.workspace(100_000)
    address = first.data_ptr()
    assert address % 64 == 0
    assert workspace.workspace(100_000).data_ptr() != address
    view = first[5:].view(-1)
    del first
    gc.collect()
    assert workspace.workspace(100_000).data_ptr() != address
    del view
    gc.collect()
    assert workspace.workspace(90_000).data_ptr() == address


def test_workspace_keeps_little_that_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_free", {})
    monkeypatch.setattr(workspace, "MAX_BYTES", 1_000_000)
    pieces = [workspace.workspace(100_000) for _ in range(4)]  # 400 kB each
    del pieces
    gc.collect()
    assert len(workspace._free) == 2
    large = workspace.workspace(500_000)
    del large
    gc.collect()
    assert sum(piece.nbytes for piece in workspace._free.values()) <= 1_000_000

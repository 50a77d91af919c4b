"""Compilation of the native kernels, and the fallback to PyTorch."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.cores.kernels import build, gated_native, rmc_native
from tests.support.cores import assert_equal, float32_core, plain_unroll, sequence, values_and_gradients

needs_native = pytest.mark.skipif(
    build.library() is None, reason="the native kernels cannot be compiled here"
)


def assert_computes(name: str) -> None:
    """Assert that the core gives the values and gradients of the plain loop."""
    core = float32_core(name)
    seq = sequence(core)
    expected = values_and_gradients(core, plain_unroll(core), seq)
    assert_equal(values_and_gradients(core, core.unroll, seq), expected)


@pytest.fixture
def fresh_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Reset the module to the state of a new process, with an empty cache folder."""
    monkeypatch.setattr(build, "_loaded", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    for module in (rmc_native, gated_native):
        module._works.cache_clear()
    yield tmp_path
    for module in (rmc_native, gated_native):
        module._works.cache_clear()


def set_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str | None) -> None:
    """Make this shell script the only program on the path, as `cc`; None for no program at all."""
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
def test_pytorch_runs_after_one_warning_if_the_compiler_fails(
    script: str | None,
    reason: str,
    fresh_build: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    native_calls: list[str],
) -> None:
    set_compiler(monkeypatch, fresh_build, script)
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        for name in ("rmc", "lstm"):
            assert_computes(name)
    assert native_calls == []
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert build.SWITCH in caplog.text


@needs_native
@pytest.mark.parametrize(
    ("name", "module", "field"), [("rmc", rmc_native, "d_qkv"), ("lstm", gated_native, "d_hidden")]
)
def test_library_with_wrong_results_is_disabled(
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

    monkeypatch.setattr(build, "_loaded", list(build._loaded))
    monkeypatch.setattr(module, "run", wrong)
    module._works.cache_clear()
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        assert_computes(name)
    module._works.cache_clear()
    assert len(caplog.records) == 1
    assert "differ" in caplog.text


def test_environment_variable_disables_the_kernels_without_a_warning(
    fresh_build: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    native_calls: list[str],
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    for name in ("rmc", "lstm"):
        assert_computes(name)
    assert native_calls == []
    assert not caplog.records
    assert not (fresh_build / "cache").exists()


@needs_native
def test_concurrent_builds_leave_one_complete_library(fresh_build: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        libraries = list(pool.map(lambda _: build._load(), range(3)))
    assert all(library.rmc_forward for library in libraries)
    (built,) = build.cache_folder().iterdir()  # no unfinished file is left
    written = built.stat().st_mtime_ns
    assert build._load().rmc_forward
    assert built.stat().st_mtime_ns == written


@needs_native
def test_truncated_library_is_rebuilt(fresh_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build._load()
    (built,) = build.cache_folder().iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh_build / "other"))
    damaged = build.cache_folder() / built.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(built.read_bytes()[:100])
    assert build._load().rmc_forward
    assert damaged.stat().st_size == built.stat().st_size


@needs_native
def test_unwritable_cache_folder_does_not_prevent_a_build(fresh_build: Path) -> None:
    (fresh_build / "cache").write_text("a file where the folder should be")
    assert build._load().rmc_forward

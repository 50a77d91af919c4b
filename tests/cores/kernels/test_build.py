"""Compilation of the native kernels, and the fallback to PyTorch."""

from __future__ import annotations

import ctypes
import logging
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rmc_agents.cores.kernels import build, cache, diagonal_native, gated_native, hadamard_native, rmc_native
from rmc_agents.cores.kernels.active import active_kernels
from tests.support.cores import (
    assert_correct,
    float32_core,
    require_instructions,
    sequence,
    values_and_gradients,
)

needs_native = pytest.mark.skipif(
    build.library() is None, reason="the native kernels cannot be compiled here"
)


def assert_computes(name: str) -> None:
    """Assert that the core gives the right values and gradients."""
    core = float32_core(name)
    seq = sequence(core)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))


@pytest.fixture
def fresh_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Reset the module to the state of a new process, with an empty cache folder."""
    monkeypatch.setattr(build, "_loaded", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    for module in (rmc_native, gated_native, diagonal_native, hadamard_native):
        module.works.cache_clear()
    yield tmp_path
    for module in (rmc_native, gated_native, diagonal_native, hadamard_native):
        module.works.cache_clear()


@pytest.fixture(scope="module")
def compiled_library() -> Path:
    """The library for this processor, in the user's cache: `needs_native` has compiled it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XDG_CACHE_HOME", raising=False)
        return Path(build.load()._name)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, compiled_library: Path) -> list[str]:
    """Output files of the compilations so far; each copies a library that is compiled already."""
    outputs: list[str] = []
    run = build._run

    def run_or_copy(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        if "-o" not in command:
            return run(command)
        outputs.append(command[command.index("-o") + 1])
        shutil.copyfile(compiled_library, outputs[-1])
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(build, "_run", run_or_copy)
    return outputs


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
    module.works.cache_clear()
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        assert_computes(name)
    module.works.cache_clear()
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
def test_concurrent_builds_compile_one_library(
    fresh_build: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(3) as pool:
        libraries = list(pool.map(lambda _: build.load(), range(3)))
    assert all(library.rmc_forward for library in libraries)
    (built,) = cache.cache_folder().iterdir()  # no unfinished file is left
    written = built.stat().st_mtime_ns
    assert build.load().rmc_forward
    assert built.stat().st_mtime_ns == written
    assert len(compilations) == 1


@needs_native
@pytest.mark.parametrize("percent", [0, 5, 30, 60, 90, 99])
def test_truncated_library_is_rebuilt(percent: int, fresh_build: Path, compilations: list[str]) -> None:
    build.load()
    (built,) = cache.cache_folder().iterdir()
    size = built.stat().st_size
    replacement = built.with_suffix(".cut")  # a library that is in use must not be changed in place
    replacement.write_bytes(built.read_bytes()[: size * percent // 100])
    replacement.replace(built)
    assert build.load().rmc_forward
    assert built.stat().st_size == size
    assert len(compilations) == 2


@needs_native
def test_files_of_killed_builds_are_removed(fresh_build: Path, compilations: list[str]) -> None:
    unfinished = cache.own_cache_folder() / f"{cache.UNFINISHED}abc.so"
    for _ in range(2):  # with and without a library
        unfinished.write_text("killed")
        assert build.load().rmc_forward
        assert not unfinished.exists()
    assert len(compilations) == 1


@needs_native
def test_file_of_a_running_build_is_kept(fresh_build: Path, compilations: list[str]) -> None:
    build.load()
    folder = cache.cache_folder()
    unfinished = folder / f"{cache.UNFINISHED}abc.so"
    with cache.locked(folder, 0) as held:
        assert held
        unfinished.write_text("running")
        assert build.load().rmc_forward
    assert unfinished.exists()


def no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_text("a file where the folder should be")


def read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, dir: Path, **options: object) -> tuple[int, str]:
        if dir.name == "rmc_agents":
            raise PermissionError(13, "Permission denied")
        return made(dir=dir, **options)

    made: Any = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", refuse)


def no_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", refuse)


def of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rmc_agents").mkdir(parents=True)
    monkeypatch.setattr(cache, "_owner_is_trusted", lambda status: False)


def replaceable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build._run

    def fail(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        if "-o" in command and "rmc_agents/" in command[command.index("-o") + 1]:
            return subprocess.CompletedProcess(command, 1, b"", b"No space left on device")
        return run(command)

    monkeypatch.setattr(build, "_run", fail)


def not_executable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = ctypes.CDLL

    def refuse(name: str) -> ctypes.CDLL:
        if "rmc_agents/" in name:
            raise OSError(f"{name}: failed to map segment from shared object")
        return load(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)


@needs_native
@pytest.mark.parametrize(
    "prepare", [no_folder, read_only, no_home, of_another_user, replaceable, full, not_executable]
)
def test_unusable_cache_folder_does_not_prevent_a_build(
    prepare: Callable[[Path, pytest.MonkeyPatch], None],
    fresh_build: Path,
    compilations: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare(fresh_build / "cache", monkeypatch)
    assert build.library() is not None
    assert not caplog.records
    assert "rmc_agents-" in compilations[-1]  # a temporary folder
    assert not list(fresh_build.glob("cache/rmc_agents/*"))


@needs_native
def test_private_build_whose_library_cannot_run_is_one_warning(
    fresh_build: Path,
    compilations: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert build.library() is None
    assert build.library() is None
    assert len(caplog.records) == 1
    assert "failed to map segment" in caplog.text
    assert not list(cache.cache_folder().iterdir())


# ---- instruction sets


@pytest.mark.parametrize("name", build.INSTRUCTIONS)
def test_library_is_compiled_for_the_instruction_set_asked_for(
    name: str, fresh_build: Path, monkeypatch: pytest.MonkeyPatch, native_calls: list[str]
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")  # the user's cache, which may hold it already
    require_instructions(name)
    monkeypatch.setenv(build.SWITCH, name)
    assert active_kernels() == name
    for core in ("rmc", "lstm"):
        assert_computes(core)
    assert native_calls


def test_default_is_the_best_instruction_set_of_the_processor(
    fresh_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    if build.library() is None:
        assert active_kernels().startswith("off (")
        return
    found = active_kernels()
    if platform.machine() in ("x86_64", "AMD64"):
        better = list(build.INSTRUCTIONS)[: list(build.INSTRUCTIONS).index(found)]
        for name in better:
            with pytest.raises(build.BuildError, match="this processor has no"):
                build.load(name)
    else:
        assert found in ("neon", "plain")


@pytest.mark.parametrize("value", ["avx3", "2", "true", "-march=native", "AVX2"])
def test_unknown_instruction_set_is_one_warning(
    value: str, fresh_build: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(build.SWITCH, value)
    assert build.library() is None
    assert len(caplog.records) == 1
    assert "expected 0, 1, avx512, avx2, sse2" in caplog.text
    assert active_kernels().startswith("off (RMC_AGENTS_NATIVE=")


def test_instruction_set_that_the_processor_lacks_is_one_warning(
    fresh_build: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_compiler(monkeypatch, fresh_build, "echo '#define __AVX2__ 1'")
    monkeypatch.setenv(build.SWITCH, "avx512")
    assert build.library() is None
    assert "this processor has no avx512f and no avx512dq" in caplog.text
    assert len(caplog.records) == 1


def test_state_of_disabled_kernels_says_why(fresh_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    assert active_kernels() == "off (RMC_AGENTS_NATIVE=0)"
    monkeypatch.setattr(build, "_loaded", [])
    monkeypatch.setenv(build.SWITCH, "1")
    set_compiler(monkeypatch, fresh_build, None)
    assert active_kernels() == "off (no C compiler found, looked for cc, gcc, clang)"

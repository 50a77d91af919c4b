"""Fixtures of the tests of the native kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from rmc_agents.cores.kernels import build, diagonal_native, gated_native, hadamard_native, rmc_native
from tests.support.cores import narrower_instructions, require_instructions


@pytest.fixture(scope="module", params=["1", *narrower_instructions()])
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with the kernels for this processor, and with those for each older one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_loaded", [require_instructions(request.param)])
        yield request.param


@pytest.fixture
def native_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the library functions that have been called, in order."""
    names: list[str] = []
    run = rmc_native.run

    def record(name: str, call: ctypes.Structure) -> int:
        names.append(name)
        return run(name, call)

    for module in (rmc_native, gated_native, diagonal_native, hadamard_native):
        monkeypatch.setattr(module, "run", record)
    return names

"""Fixtures of the tests of the native kernels."""

from __future__ import annotations

import ctypes

import pytest

from rmc_agents.cores.kernels import gated_native, rmc_native


@pytest.fixture
def native_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the library functions that have been called, in order."""
    names: list[str] = []
    run = rmc_native.run

    def record(name: str, call: ctypes.Structure) -> int:
        names.append(name)
        return run(name, call)

    for module in (rmc_native, gated_native):
        monkeypatch.setattr(module, "run", record)
    return names

"""What the tests of the native kernels share."""

from __future__ import annotations

import ctypes

import pytest

from rmc_agents.cores.native import gated, rmc


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions of the library that are called, as they are called."""
    names: list[str] = []
    run = rmc.run

    def record(name: str, call: ctypes.Structure) -> int:
        names.append(name)
        return run(name, call)

    for module in (rmc, gated):
        monkeypatch.setattr(module, "run", record)
    return names

"""Reusable memory of the native kernels."""

from __future__ import annotations

import gc

import pytest

from rmc_agents.cores.kernels import workspace


def test_memory_is_reused_after_all_its_tensors_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_free", {})
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


def test_unused_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_free", {})
    monkeypatch.setattr(workspace, "MAX_BYTES", 1_000_000)
    blocks = [workspace.workspace(100_000) for _ in range(4)]  # 400 kB each
    del blocks
    gc.collect()
    assert len(workspace._free) == 2
    large = workspace.workspace(500_000)
    del large
    gc.collect()
    assert sum(block.nbytes for block in workspace._free.values()) <= 1_000_000

"""Reusable memory of the native kernels."""

from __future__ import annotations

import gc
import sys

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


def test_garbage_collector_may_return_memory_at_any_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector runs after each number of new objects in turn, also while blocks are searched."""
    failures: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", failures.append)
    monkeypatch.setattr(workspace, "_free", {})
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # only what is made here is searched
    try:
        for new_objects in range(1, 100):
            workspace._free.clear()
            gc.collect()
            gc.disable()
            unused = [workspace.workspace(1000 * size) for size in range(2, 42)]
            cycle: list[object] = [workspace.workspace(77)]
            cycle.append(cycle)
            del unused, cycle
            gc.set_threshold(gc.get_count()[0] + new_objects, 10, 10)
            gc.enable()
            workspace.workspace(900_000)
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
        gc.unfreeze()
    assert not failures

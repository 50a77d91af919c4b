"""Counts of what a GPU would do, on torch's meta device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._dynamo

from benchmarks.speed.counts import CODES, PRESET, QUICK, gradient_step, make_trainer
from benchmarks.speed.operations import counting
from rmc_agents.rl.rollout import collect
from rmc_agents.tree import upload

META = torch.device("meta")


def test_kernels_and_bytes_are_those_of_the_operations() -> None:
    a, b = torch.empty(100, device=META), torch.empty(100, device=META)
    with counting() as count:
        c = (a + b).view(10, 10).t()
        c.expand(5, 10, 10).neg()
    assert dict(count.operations) == {"add": 1, "neg": 1}
    assert count.bytes == 3 * 400 + (400 + 5 * 400)


def test_picked_rows_count_as_what_they_return() -> None:
    table, ids = torch.empty(10_000, 4, device=META), torch.empty(3, dtype=torch.int64, device=META)
    with counting() as count:
        table.index_select(0, ids)
    assert count.bytes == 2 * 3 * 4 * 4 + 3 * 8


def test_peak_memory_is_that_of_live_tensors() -> None:
    with counting() as count:
        for _ in range(3):
            torch.empty(1000, device=META).add(1)
        kept = [torch.empty(250, device=META) for _ in range(4)]
    assert count.peak_bytes == 2 * 4000
    del kept


def test_waits_are_reads_and_copies_of_memory_that_is_not_pinned() -> None:
    x = torch.zeros(3, device=META)
    with counting() as count:
        upload([1.0, 2.0], META)
        assert count.waits == 0
        assert x.tolist() == [1.0, 1.0, 1.0]
        torch.ones(2).to(META)
    assert count.waits == 2
    with counting(), pytest.raises(RuntimeError):
        x.sum().item()


def test_triton_kernels_take_the_place_of_most_others() -> None:
    rows = {code.name: gradient_step(code, PRESET) for code in CODES if code.core == "rmc"}
    assert rows["RMC, Triton"]["kernels"] <= 300 < rows["RMC"]["kernels"]
    assert rows["RMC, Triton"]["peak MB"] < rows["RMC"]["peak MB"]


def test_each_step_of_a_rollout_runs_the_core_once() -> None:
    """And the value of the last observation."""
    trainer = make_trainer(CODES[1], QUICK)
    with counting(triton=True) as count:
        collect(trainer.agent, trainer.env, trainer.carry, trainer.rollout, None)
    assert count.operations["triton rmc_forward"] == QUICK.num_steps + 1


@pytest.mark.slow
def test_counts_are_written(tmp_path: Path, run: Callable[..., None]) -> None:
    run("speed.counts", "--quick", "--out", str(tmp_path))
    results = json.loads((tmp_path / "counts.json").read_text())
    assert {row["part"] for row in results["Collecting"]} == {"act", "env.step", "collect", "final values"}
    assert all(row["kernels"] > 0 and row["MB"] > 0 for row in results["Collecting"])
    assert [row["core"] for row in results["Iteration"]] == [code.name for code in CODES]
    assert all(row["waits"] == 2 for row in results["Iteration"])
    reached = {row["quantity"].split()[0]: row["reached"] for row in results["Targets"]}
    assert reached == {"kernels": "not measured", "waits": "yes", "peak": "not measured"}
    assert "<!-- --8<-- [start:gradient-step] -->" in (tmp_path / "counts.md").read_text()

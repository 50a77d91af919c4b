"""Speed benchmarks: each runs, at sizes whose figures mean nothing, and writes its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import rmc_envs
from benchmarks.speed import device_checks, pictures
from benchmarks.speed.arithmetic import iteration_flops
from benchmarks.speed.cores import INPUT_SIZE
from benchmarks.speed.ported_rmc import PortedRMC, require_same
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.cores import RMC
from tests.benchmarks.conftest import Benchmark


def test_cores_are_timed(benchmark: Benchmark) -> None:
    results = benchmark("cores")
    assert {row["core"] for row in results["RMC"]} == {"rmc 4x64", "rmc 8x256"}
    assert {"lstm", "gru", "rnn"} <= {row["core"] for row in results["Other cores"]}
    assert all(row["speed-up over port"] > 0 for row in results["RMC"])


def test_environments_are_timed(benchmark: Benchmark) -> None:
    results = benchmark("environments", "--tasks", "rmc/Recall-v0", "rmc/MemoryS7-v0")
    rows = {(row["task"], row["environments"]): row for row in results["Steps per second"]}
    assert rows["rmc/Recall-v0", 16]["sync steps/s"] is None
    assert rows["rmc/MemoryS7-v0", 16]["speed-up over sync"] > 0
    assert rows["rmc/MemoryS7-v0", 16]["async steps/s"] > 0


@pytest.mark.slow
def test_training_is_timed(benchmark: Benchmark) -> None:
    rows = {row["agent"]: row for row in benchmark("training")["Training"]}
    assert {"RMC 4x64", "LSTM(128)"} < set(rows)
    for row in rows.values():
        assert min(row[f"{part} (s)"] for part in ("environment", "policy", "update")) > 0
    assert rows["RMC 4x64"]["speed-up over sb3 shared"] > 0


@pytest.mark.slow
def test_training_on_pictures_is_timed(tmp_path: Path, run: Callable[..., None]) -> None:
    run("speed.pictures", "--quick", "--out", str(tmp_path))
    results = json.loads((tmp_path / "pictures.json").read_text())
    rows = {row["agent"]: row for row in results["Training"]}
    assert {pictures.SB3, pictures.EQUAL, "RMC"} < set(rows)
    for row in rows.values():
        assert min(row[f"{part} (µs per step)"] for part in ("environment", "policy", "update")) > 0
    assert [row["target"] for row in results["Targets"]] == ["at least 1"] * 2


@pytest.mark.slow
def test_memory_of_an_update_is_linear(benchmark: Benchmark) -> None:
    results = benchmark("scaling")
    linear = {r["quantity"]: r for r in results["Targets"] if r["quantity"].endswith(("in T", "in B"))}
    assert len(linear) == 4
    assert all(row["reached"] == "yes" for row in linear.values())  # bytes are counted, not timed
    assert len(results["Peak memory of an RMC update"]) == 1


def test_device_checks_detect_a_difference() -> None:
    here, there = {"a": torch.ones(3)}, {"a": torch.tensor([1.0, 1.0, 1.01])}
    assert device_checks.require_close(here, here) == "largest relative difference 0.0e+00"
    for wrong in (there, {"a": torch.tensor([1.0, 1.0, float("nan")])}):
        with pytest.raises(device_checks.CheckFailed, match="a differs by"):
            device_checks.require_close(wrong, here)


def test_failed_check_becomes_a_row() -> None:
    def broken() -> str:
        raise RuntimeError("no such kernel\nat line 3")

    assert device_checks.attempt("x", broken) == {
        "check": "x",
        "passed": "no",
        "detail": "RuntimeError: no such kernel",
    }


def test_port_computes_the_same_as_rmc() -> None:
    rmc = RMC(INPUT_SIZE, num_slots=3, num_heads=2, head_size=4)
    port = PortedRMC(rmc)
    require_same(rmc, port)
    with torch.no_grad():
        port.memory_gates.bias.add_(0.1)
    with pytest.raises(AssertionError, match="outputs"):
        require_same(rmc, port)


def test_flops_of_an_iteration_match_a_count_by_hand() -> None:
    """An agent without memory is small enough to count its products by hand."""
    num_envs, config = 4, PPOConfig(num_steps=32, bptt_length=16, minibatch_size=64, epochs=3)
    env = rmc_envs.make("MiniGrid-MemoryS7-v0", num_envs)
    agent = ActorCritic(env.observation_space, env.action_space, "feedforward")
    layers = {
        name: module.weight.numel() for name, module in agent.named_modules() if isinstance(module, nn.Linear)
    }
    (embedding,) = (name for name in layers if "embedding" in name)
    steps = num_envs * config.num_steps
    forward = 2 * (sum(layers.values()) + 48 * layers[embedding])  # once for each of 49 cells
    acting, learning = iteration_flops("MiniGrid-MemoryS7-v0", "feedforward", {}, num_envs, config)
    assert acting == (steps + num_envs) * forward  # with the value of the observation after the last step
    # Backward costs each product twice, for its weights and its input; the codes need no gradient.
    assert learning == config.epochs * steps * (3 * forward - 2 * 49 * layers[embedding])

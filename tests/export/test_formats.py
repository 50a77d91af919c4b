"""Exported files: ONNX in onnxruntime and programs of torch.export compute what `predict` does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gymnasium import spaces

from rmc_agents import UsageError
from rmc_agents.export import formats
from rmc_agents.export.formats import open_exported, to_bytes
from rmc_agents.export.step import ExportedStep
from rmc_agents.export.verification import compare
from tests.support.exports import EVERY_OBSERVATION, agent_for

ACTIONS: dict[str, spaces.Space[Any]] = {
    "rmc": spaces.Discrete(3, start=2),
    "lstm": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 5]]),
    "gru": spaces.MultiBinary((2, 2)),
    "rnn": spaces.Box(-0.1, 0.2, (2, 2), np.float64),
    "dnc": spaces.Box(-2, 3, (2,), np.int32),
    "feedforward": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
}
"""A space of actions for each core, so that every kind is exported once."""
OPTIONS: dict[str, dict[str, Any]] = {
    "rmc": {"previous_action": True, "previous_reward": True},
    "lstm": {"critic_memory": "separate"},
    "gru": {"previous_action": True, "start_flag": True, "clock": 6, "critic_memory": "none"},
    "rnn": {"scale_actions": True, "normalize_observations": True},
}
SAMPLED = ("lstm", "gru", "rnn")


@pytest.fixture(scope="module")
def onnx_file() -> bytes:
    step = ExportedStep(agent_for())
    return to_bytes(step, "onnx", {"sample": False, "figures": {"x": 0.5}})


@pytest.mark.slow
def test_onnx_computes_a_thousand_steps_with_resets_as_predict_does(any_core: str) -> None:
    agent = agent_for(
        action_space=ACTIONS.get(any_core, spaces.Discrete(3)), core=any_core, **OPTIONS.get(any_core, {})
    )
    step = ExportedStep(agent, sample=any_core in SAMPLED)
    file = open_exported(to_bytes(step, "onnx", {"sample": step.sample}))
    agreement = compare(file, agent, steps=125, rows=8)
    assert agreement.episodes > 50
    assert agreement.error < 1e-5
    assert agreement.state_error < 1e-5
    if any_core != "dnc":  # it sorts its rows by use, and rounding decides between rows that are used equally
        # Units of delta_rmc that keep what is written for 150 steps collect the rounding of all of them.
        limit = 1e-4 if any_core == "delta_rmc" else 1e-5
        assert compare(file, agent, steps=125, rows=8, carry=True).error < limit


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_file_reads_observations_of_every_kind_in_batches_of_any_size(kind: formats.Format) -> None:
    agent = agent_for(EVERY_OBSERVATION)
    file = open_exported(to_bytes(ExportedStep(agent), kind, {"sample": False}))
    for rows in (1, 2, 150):
        assert compare(file, agent, steps=2, rows=rows).error < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("core", ["rmc", "dnc"])
def test_program_of_torch_computes_what_predict_does(core: str) -> None:
    agent = agent_for(action_space=spaces.Box(-1, 1, (2,)), core=core, previous_reward=True)
    file = open_exported(to_bytes(ExportedStep(agent, sample=True), "torch", {"sample": True}))
    agreement = compare(file, agent, steps=40, rows=3)
    assert max(agreement.error, agreement.state_error) < 1e-5


def test_onnx_file_describes_itself_and_names_no_path_of_this_machine(onnx_file: bytes) -> None:
    model = onnx.load_from_string(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert open_exported(onnx_file).about == {"sample": False, "figures": {"x": 0.5}}
    inputs = {x.name: x.type.tensor_type.shape.dim for x in model.graph.input}
    assert {name: dim[0].dim_param for name, dim in inputs.items()} == dict.fromkeys(inputs, "batch")
    assert [x.dim_value for x in inputs["state.memory.h"]][1:] == [32]
    assert b".py" not in onnx_file


@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"PK" + data[100:]]
)
def test_damaged_files_are_refused(kind: str, damage: Any, onnx_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    path.write_bytes(damage(onnx_file if kind == "onnx" else b"PK\3\4" + onnx_file))
    with pytest.raises(UsageError, match="agent is damaged, or no exported agent"):
        open_exported(path)


def test_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.onnx cannot be read: No such file"):
        open_exported(tmp_path / "none.onnx")


def test_foreign_onnx_file_is_refused() -> None:
    x = onnx.helper.make_tensor_value_info("x", 1, [1])
    y = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    with pytest.raises(UsageError, match="no exported agent"):
        open_exported(model.SerializeToString())


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ONNX needs onnx, .*: pip install 'rmc-agents\[export\]'"):
        formats.require_installed("onnx")
    formats.require_installed("torch")


def test_format_follows_the_ending() -> None:
    assert (formats.format_of(Path("a.onnx")), formats.format_of(Path("a.pt2"))) == ("onnx", "torch")
    with pytest.raises(
        UsageError, match=r"a\.pt names no kind of exported file: expected one of \.onnx, \.pt2"
    ):
        formats.format_of(Path("a.pt"))

"""Export of an agent as a file: compared before it is written, or refused in one message."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rmc_agents import UsageError, export_file
from rmc_agents.cores import CORES, MemoryCore
from rmc_agents.export import files
from rmc_agents.export.formats import open_exported
from rmc_agents.export.verification import Mismatch, compare
from tests.support.exports import agent_for


class CountState(NamedTuple):
    count: Tensor
    """[B] int64."""
    h: Tensor
    """[B, 4]."""


class Counting(MemoryCore):
    """A user's core, with a state of two types."""

    def __init__(self, input_size: int, *, branches: bool = False) -> None:
        super().__init__(input_size)
        self.linear, self.branches = nn.Linear(input_size, 4), branches

    @property
    def output_size(self) -> int:
        return 4

    def initial_state(self, batch_size: int) -> CountState:
        zeros = self.linear.weight.new_zeros(batch_size, 4)
        return CountState(torch.full((batch_size,), 7), zeros + 1)

    def step(self, inputs: Tensor, state: CountState) -> tuple[Tensor, CountState]:
        h = torch.tanh(self.linear(inputs) + state.h / state.count.unsqueeze(-1))
        if self.branches and bool(h.sum() > 0):
            h = -h
        return h, CountState(state.count + 1, h)


@pytest.fixture
def _counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORES, "counting", Counting)


@pytest.mark.slow
@pytest.mark.usefixtures("_counting")
def test_core_of_a_user_is_exported(tmp_path: Path) -> None:
    agent = agent_for(core="counting", previous_action=True)
    export = export_file(agent, tmp_path / "new" / "agent.onnx", about={"figures": {"x": 1}})
    assert export.path == tmp_path / "new" / "agent.onnx"
    assert export.inputs["state.memory.count"].dtype == "int64"
    assert export.agreement.error < 1e-5
    file = open_exported(export.path)
    assert file.about["figures"] == {"x": 1}
    assert file.about["observation_space"]["type"] == "Box"
    assert list(file.about["inputs"]) == list(export.inputs)
    assert compare(file, agent, steps=5).error < 1e-5


@pytest.mark.usefixtures("_counting")
def test_core_with_branches_on_values_is_refused(tmp_path: Path) -> None:
    agent = agent_for(core="counting")
    agent.core.branches = True  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"the core 'counting' cannot be exported .*no Python branches"):
        export_file(agent, tmp_path / "agent.pt2")
    assert list(tmp_path.iterdir()) == []


def test_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.pt2"
    path.write_text("an older file")
    other = open_exported(files.to_bytes(files.ExportedStep(agent_for()), "torch", {"sample": False}))
    monkeypatch.setattr(files, "open_exported", lambda data: other)
    with pytest.raises(Mismatch):
        export_file(agent_for(), path)
    assert path.read_text() == "an older file"


def test_path_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"agent\.pt2 cannot be written: "):
        export_file(agent_for(core="feedforward"), tmp_path / "file" / "agent.pt2")
    with pytest.raises(UsageError, match="names no kind of exported file"):
        export_file(agent_for(), tmp_path / "agent.pth")

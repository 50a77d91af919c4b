"""`python train/report.py --scores`: the scores of runs in rliable's shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmc_agents.runs.files import write_json
from tests.support.agents import MAZE
from tests.support.commands import Command, in_process
from tests.support.runs import saved_run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return in_process("report", monkeypatch, capfd)


def evaluated_run(folder: Path, core: str, success: float) -> Path:
    run = saved_run(folder, core=core, actions=3)
    figures = {"success_rate": success, "mean_return": success, "mean_length": 9.0, "episodes": 100}
    write_json(run / "evaluation.json", {MAZE: {**figures, "first_seed": 0, "checkpoint": "step_7.pt"}})
    return run


def test_scores_of_runs_are_written_by_core(tmp_path: Path, command: Command) -> None:
    rates = {"gru": (0.5, 0.75), "lstm": (1.0, 0.25)}
    runs = [
        str(evaluated_run(tmp_path / f"{core}-{i}", core, rate))
        for core, both in rates.items()
        for i, rate in enumerate(both)
    ]
    path = tmp_path / "scores.json"
    result = command(*runs, "--scores", str(path))
    assert result.code == 0, result.errors
    assert f"scores: {path}" in result.out
    scores = {"gru": [[0.5], [0.75]], "lstm": [[1.0], [0.25]]}
    assert json.loads(path.read_text()) == {"tasks": [MAZE], "scores": scores}


def test_runs_that_were_not_evaluated_have_no_scores(tmp_path: Path, command: Command) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    result = command(str(run), "--scores", str(tmp_path / "scores.json"))
    assert result.code == 2
    assert result.errors.startswith("error: none of these runs has been evaluated: python train/evaluate.py")
    assert not (run / "report.html").exists()

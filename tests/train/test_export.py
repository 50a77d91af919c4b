"""`python train/export.py`, from a run folder or a model of SB3 to a file or a folder to share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gymnasium import spaces

import rmc_agents
from rmc_agents.export.formats import open_exported
from rmc_agents.export.verification import Mismatch, compare
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import checkpoints
from tests.support.agents import MAZE
from tests.support.commands import Command, in_process
from tests.support.runs import saved_run
from tests.support.sb3 import RandomObservations, small_model
from train import evaluate, export


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return in_process("export", monkeypatch, capfd)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("runs") / "maze", core="gru", actions=3)


def test_export_writes_a_file_that_agrees_with_the_agent(run: Path, command: Command) -> None:
    result = command(str(run))
    assert result.code == 0, result.errors
    for line in (
        "input: obs.image uint8 [batch, 7, 7, 3]",
        "input: episode_start bool [batch]",
        "input: state.memory.h float32 [batch, 32]",
        "output: action int64 [batch]",
        "compared with the agent over 100 steps of 8 rows",
        f"file: {run / 'agent.onnx'}",
    ):
        assert line in result.out
    file = open_exported(run / "agent.onnx")
    assert file.about["environment"]["env"] == MAZE
    assert (file.about["run"], file.about["checkpoint"]) == ("maze", "step_000000000007.pt")
    assert compare(file, rmc_agents.load(run), steps=5).error < 1e-5


def test_ending_of_the_output_chooses_the_format(run: Path, command: Command, tmp_path: Path) -> None:
    output = tmp_path / "agent.pt2"
    result = command(str(checkpoints(run)[0]), "--output", str(output), "--sample")
    assert result.code == 0, result.errors
    assert "input: noise float32 [batch, 3]" in result.out
    assert open_exported(output).about["noise"] == "exponential"
    result = command(str(run), "--output", str(output), "--format", "onnx")
    assert (result.code, result.out) == (2, "")
    assert f"--output {output} with --format onnx: expected .onnx" in result.errors


def test_best_checkpoint_is_exported(tmp_path: Path, command: Command) -> None:
    run = saved_run(tmp_path / "run", core="gru", actions=3)
    result = command(str(run), "--checkpoint", "best")
    assert result.code == 2
    assert "no best checkpoint: leave out --checkpoint best" in result.errors
    (path,) = checkpoints(run)
    path.with_name("step_000000000009.pt").write_bytes(b"damaged")
    write_json(path.parent / "best.json", {"checkpoint": path.name, "score": [1.0, 1.0]})
    assert command(str(run), "--checkpoint", "best", "--format", "pretrained").code == 0
    assert rmc_agents.load(run / "pretrained").core_name == "gru"


def test_shared_folder_is_evaluated_and_exported_like_a_run(
    run: Path, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    result = command(str(run), "--format", "pretrained", "--output", str(folder))
    assert result.code == 0, result.errors
    assert f"agent: {folder} (model.safetensors, config.json, README.md)" in result.out
    flags = ["--episodes", "2", "--implementation", "batched", "--no-gif"]
    evaluate.main([str(folder), *flags])
    (entry,) = json.loads((folder / "evaluation.json").read_text()).values()
    assert entry["checkpoint"].endswith("model.safetensors")
    assert (folder / "report.html").is_file()
    assert command(str(folder), "--format", "torch").code == 0
    about = open_exported(folder / "agent.pt2").about
    assert about["figures"][MAZE]["episodes"] == 2
    assert command(str(folder), "--format", "pretrained", "--output", str(tmp_path / "again")).code == 0
    assert "model-index" in (tmp_path / "again" / "README.md").read_text()


def test_model_of_sb3_is_exported(tmp_path: Path, command: Command) -> None:
    env = RandomObservations(spaces.Box(-1, 1, (3,)), spaces.Discrete(3))
    small_model(env, "gru").save(tmp_path / "model.zip")
    result = command(str(tmp_path / "model.zip"), "--format", "torch")
    assert result.code == 0, result.errors
    assert f"file: {tmp_path / 'model.pt2'}" in result.out
    assert command(str(tmp_path / "model.zip"), "--format", "pretrained").code == 0
    assert rmc_agents.load(tmp_path / "model").core_name == "gru"


def test_disagreement_is_one_message(run: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(*args: object, **options: object) -> None:
        raise Mismatch("value differs from the agent's by 0.5")

    monkeypatch.setattr(export, "export_file", differ)
    result = command(str(run))
    assert (result.code, result.errors) == (1, "error: value differs from the agent's by 0.5\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "pretrained", "--sample"], "--sample is about files"),
        (["--output", "agent.pth"], "names no kind of exported file"),
        (["--import", "no_such_module"], "cannot import the module"),
    ],
)
def test_bad_flag_is_one_message(run: Path, command: Command, flags: list[str], message: str) -> None:
    result = command(str(run), *flags)
    assert result.code == 2
    assert message in result.errors
    assert len(result.errors.splitlines()) == 1


def test_folder_without_a_run_is_one_message(command: Command, tmp_path: Path) -> None:
    assert command().errors == "error: give a run folder: python train/export.py runs/NAME\n"
    result = command(str(tmp_path / "none"))
    assert result.code == 2
    assert "is not a run folder" in result.errors

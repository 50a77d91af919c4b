"""Folders for results: the run folder, a folder beside shipped agents, or the one asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmc_agents import UsageError
from rmc_agents.evaluation import output
from rmc_agents.evaluation.output import is_shipped, output_folder
from rmc_agents.runs.files import write_json

ROOT = Path(__file__).parents[2]


def run_folder(folder: Path) -> Path:
    write_json(folder / "config.json", {"format": 2, "agent": {"core": "gru"}})
    (folder / "checkpoints").mkdir()
    return folder


def results_of(run: Path, folder: Path) -> None:
    """Write results of a run into a folder."""
    entry = {"success_rate": 0.5, "checkpoint": str(run / "checkpoints" / "step_000000000007.pt")}
    write_json(folder / "evaluation.json", {"Maze-v0": entry})


def test_results_of_a_users_run_go_into_its_folder(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    assert output_folder(run) == run
    checkpoint = run / "checkpoints" / "step_000000000007.pt"
    checkpoint.write_text("")
    assert output_folder(checkpoint) == run


@pytest.mark.parametrize("name", ["memory-s13", "nth-farthest-rmc"])
def test_results_of_a_trained_agent_go_beside_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_shipped(ROOT / "trained" / name)
    assert output_folder(ROOT / "trained" / name) == Path("evaluations") / name
    assert not list(tmp_path.iterdir())


def test_results_of_a_run_that_cannot_be_written_go_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_folder(tmp_path / "read only")

    def refuse(*args: object, dir: Path) -> object:
        raise OSError("read-only file system")

    monkeypatch.setattr(output.tempfile, "TemporaryFile", refuse)
    assert output_folder(run) == Path("evaluations/read-only")


def test_results_of_another_run_are_never_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "TRAINED", tmp_path)
    first, second = (run_folder(tmp_path / folder / "run") for folder in ("a", "b"))
    results_of(first, output_folder(first))
    assert output_folder(first) == Path("evaluations/run")
    assert output_folder(second) == Path("evaluations/run-2")
    with pytest.raises(UsageError, match=r"holds results of another run .*a/run.*; choose another folder"):
        output_folder(second, Path("evaluations/run"))
    with pytest.raises(UsageError, match="holds another run; choose another folder"):
        output_folder(second, first)
    assert output_folder(second, second) == second


def test_several_runs_have_a_folder_each(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run: 1")
    assert output_folder(run, tmp_path / "out") == tmp_path / "out"
    assert output_folder(run, tmp_path / "out", runs=2) == tmp_path / "out" / "run-1"


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "x", Path("/proc/x")):
        with pytest.raises(UsageError, match="no files can be created in"):
            output_folder(run, path)

"""Run folders: which are new, which hold a run, and what their config.json may claim."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
import torch

import rmc_agents
from benchmarks.robustness import mutations, processes
from rmc_agents import UsageError
from rmc_agents.cli.resume import resumed
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.folder import (
    best_checkpoint,
    evaluated_checkpoints,
    free_run_dir,
    read_config,
    require_no_run,
    require_run,
    write_config,
)
from rmc_agents.runs.migrations import CONFIG_FORMAT
from rmc_agents.runs.versions import PACKAGES, versions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two iterations."""
    return processes.tiny_run(tmp_path_factory.mktemp("runs"))


def test_free_run_dir_appends_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("runs/name", "runs/name-2", "runs/name-3"):
        assert free_run_dir("name") == Path(expected)
        Path(expected).mkdir(parents=True)


def test_folder_holds_a_run_once_a_checkpoint_is_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run folder: it has no config\.json"):
        require_run(tmp_path)
    write_config(tmp_path, {"agent": {}})
    require_run(tmp_path)
    require_no_run(tmp_path)
    save_checkpoint(tmp_path, 1, {"x": torch.ones(1)})
    with pytest.raises(UsageError, match="already holds a run: resume it, or choose another run_dir"):
        require_no_run(tmp_path)


def test_write_config_adds_format_and_versions(tmp_path: Path) -> None:
    write_config(tmp_path, {"agent": {"core": "gru"}})
    assert read_config(tmp_path) == {
        "format": CONFIG_FORMAT,
        "agent": {"core": "gru"},
        "versions": versions(),
    }
    assert versions().keys() == {"python", *PACKAGES}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "does not describe a run"),
        ("{}", "does not describe a run"),
        ('{"format": 2}', 'it has neither "agent" nor "classifier"'),
        ('{"format": 2, "agent": 3}', 'it has neither "agent" nor "classifier"'),
        ('{"format": 2, "agent": {}, "imports": "os"}', "imports is 'os', expected names of modules"),
        ('{"format": 2, "agent": {}, "imports": [1]}', "expected names of modules"),
        ('{"format": 2, "agent": {"features": 1e9}}', r"asks for a size of 1e\+09"),
        ('{"format": 3, "agent": {}, "observation_space": {"shape": [99999, 999]}}', "asks for a size of"),
    ],
)
def test_config_json_that_describes_no_run_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path)


@pytest.mark.slow
def test_mutated_configurations_are_loaded_or_refused(tiny: Path) -> None:
    found = mutations.mutate_configs(tiny, 200, seed=1)
    assert mutations.is_clear(found), found


def test_description_of_a_giant_network_is_refused_before_it_is_built(tiny: Path) -> None:
    path = tiny / "config.json"
    good = path.read_text()
    rmc_agents.load(tiny)  # what loading imports takes memory, too
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for change in ({"features": 10**6}, {"hidden_size": 10**6}, {"core_options": {"hidden_size": 10**6}}):
            config = json.loads(good)
            config["agent"] |= change
            path.write_text(json.dumps(config))
            with pytest.raises(UsageError, match="another configuration"):
                rmc_agents.load(tiny)
            with pytest.raises(UsageError, match="another configuration"):
                resumed(tiny)
    finally:
        path.write_text(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("damaged", [None, 5, [], {}, {"checkpoint": None}, {"earlier": {"x": 1}}])
def test_damaged_entry_does_not_hide_other_evaluated_checkpoints(damaged: object, tmp_path: Path) -> None:
    names = {"step_000000000001.pt", "step_000000000002.pt"}
    entry = {"checkpoint": "run/checkpoints/step_000000000002.pt"}
    entries = {"a": damaged, "b": {**entry, "earlier": [damaged, {"checkpoint": "step_000000000001.pt"}]}}
    (tmp_path / "evaluation.json").write_text(json.dumps(entries))
    assert evaluated_checkpoints(tmp_path) >= names


def test_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / "evaluation.json")
    os.mkfifo(tmp_path / "checkpoints" / "best.json")
    assert evaluated_checkpoints(tmp_path) == set()
    assert best_checkpoint(tmp_path) is None


def test_checkpoint_in_the_place_of_a_run_folder_names_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "step_000000000064.pt"
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=f"is a checkpoint: give its run folder, {tmp_path / 'run'}"):
        require_run(path)

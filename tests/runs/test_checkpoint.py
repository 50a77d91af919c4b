"""Checkpoints: atomic, rotated, and refused with one clear message when they cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import rmc_agents
from benchmarks.robustness import mutations
from rmc_agents import TrainingError, UsageError
from rmc_agents.runs.checkpoint import read_checkpoint, read_newest, save_checkpoint
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import best_checkpoint, checkpoints
from tests.support.trainers import ppo_trainer


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = ppo_trainer(tmp_path / "run")
    run.run()
    return tmp_path / "run"


def test_oldest_checkpoints_are_deleted(tmp_path: Path) -> None:
    for step in (5, 7, 20, 100):
        save_checkpoint(tmp_path, step, {"x": torch.ones(1)}, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000000000100.pt", "step_000000000020.pt"]


def test_best_and_evaluated_checkpoints_are_kept(tmp_path: Path) -> None:
    for step, score in [(1, 0.1), (2, 0.9), (3, 0.3), (4, 0.2), (5, 0.1), (6, 0.2)]:
        save_checkpoint(tmp_path, step, {"x": torch.ones(1)}, keep=2, score=(score, 0.0))
        if step == 3:
            evaluated = {"e": {"checkpoint": str(checkpoints(tmp_path)[0])}}
            write_json(tmp_path / "evaluation.json", evaluated)
    assert [int(p.stem[5:]) for p in checkpoints(tmp_path)] == [6, 5, 3, 2]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert best[0].name == "step_000000000002.pt"
    for text in ("", "[]", '{"checkpoint": "../../x", "score": []}'):
        (tmp_path / "checkpoints" / "best.json").write_text(text)
        assert best_checkpoint(tmp_path) is None


def test_leftovers_of_a_killed_process_are_deleted(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / ".step_000000000001.pt.123.tmp"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    save_checkpoint(tmp_path, 2, {"x": torch.ones(1)})
    assert [p.name for p in leftover.parent.iterdir()] == ["step_000000000002.pt"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text"])
def test_damaged_checkpoint_is_skipped_for_an_older_one(run_dir: Path, damage: str) -> None:
    good = checkpoints(run_dir)[0]
    bad = good.with_name("step_000099999999.pt")
    data = bytearray(good.read_bytes())
    if damage == "flipped":
        data[len(data) // 3] ^= 0xFF
    bad.write_bytes(
        {"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello"}.get(damage, bytes(data))
    )
    path, _, skipped = read_newest(run_dir)
    assert path == good
    assert len(skipped) == 1
    assert "damaged" in skipped[0]


def test_messages_name_the_mistake(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        rmc_agents.load(tmp_path / "nowhere")
    path = checkpoints(run_dir)[0]
    torch.save({"format": 99}, path)
    with pytest.raises(UsageError, match="format 99"):
        rmc_agents.load(path)
    path.unlink()
    with pytest.raises(UsageError, match=r"no readable checkpoint .none was saved yet"):
        rmc_agents.load(run_dir)


def test_checkpoint_of_another_configuration_is_refused(run_dir: Path) -> None:
    config = json.loads((run_dir / "config.json").read_text())
    config["agent"]["core_options"] = {"hidden_size": 7}
    (run_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"another configuration.*core"):
        rmc_agents.load(run_dir)
    with pytest.raises(UsageError, match="another configuration"):
        ppo_trainer(run_dir, "lstm").restore()


def test_payload_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    parts = torch.zeros(()).expand(5), torch.arange(6.0)[::2], torch.nn.Parameter(torch.ones(2))
    read = read_checkpoint(save_checkpoint(tmp_path, 1, {"env": parts, "shared": [parts[2]] * 3}))
    assert all(torch.equal(a, b) for a, b in zip(read["env"], parts, strict=True))
    with pytest.raises(TrainingError, match="could not be read back"):
        save_checkpoint(tmp_path, 2, {"env": np.float64(3.0)})
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000000000001.pt"]


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "dangling", "device"])
def test_path_that_is_not_a_regular_file_is_refused(kind: str, run_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "step_1.pt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path, "dangling": tmp_path / "none", "device": Path("/dev/zero")}[kind])
    assert mutations.outcome(lambda: read_checkpoint(path)) == "refused"
    assert mutations.outcome(lambda: rmc_agents.load(path)) == "refused"
    newest = run_dir / "checkpoints" / "step_999999999999.pt"
    path.rename(newest) if kind != "loop" else newest.symlink_to(newest)
    assert read_newest(run_dir)[0] != newest
    assert len(read_newest(run_dir)[2]) == 1

"""Checkpoints: atomic, rotated, and refused with one clear message when they are not what they should be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

import rmc_agents
from rmc_agents import UsageError
from rmc_agents.checkpoint import (
    checkpoints,
    export_agent,
    read_checkpoint,
    read_newest,
    save_checkpoint,
    write_atomically,
)
from tests.test_trainer import trainer


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = trainer(tmp_path / "run")
    run.run()
    return tmp_path / "run"


def test_the_oldest_are_deleted(tmp_path: Path) -> None:
    for step in (5, 100, 20, 7):
        save_checkpoint(tmp_path, step, {"x": torch.ones(1)}, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000000000100.pt", "step_000000000020.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file) -> None:  # type: ignore[no-untyped-def]
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text"])
def test_a_damaged_checkpoint_is_skipped_for_an_older_one(run_dir: Path, damage: str) -> None:
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


def test_no_code_in_a_checkpoint_is_run(run_dir: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "owned",))

    path = checkpoints(run_dir)[0]
    for dump in (lambda: torch.save(Attack(), path), lambda: path.write_bytes(pickle.dumps(Attack()))):
        dump()
        with pytest.raises(UsageError, match="damaged or not a checkpoint"):
            read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_messages_say_what_is_wrong(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        rmc_agents.load(tmp_path / "nowhere")
    path = checkpoints(run_dir)[0]
    torch.save({"format": 99}, path)
    with pytest.raises(UsageError, match="format 99"):
        rmc_agents.load(path)
    path.unlink()
    with pytest.raises(UsageError, match="no checkpoint"):
        rmc_agents.load(run_dir)


def test_a_checkpoint_of_another_configuration_is_refused(run_dir: Path) -> None:
    config = json.loads((run_dir / "config.json").read_text())
    config["agent"]["core_options"] = {"hidden_size": 7}
    (run_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"another configuration.*core"):
        rmc_agents.load(run_dir)
    with pytest.raises(UsageError, match="another configuration"):
        trainer(run_dir, "lstm").restore()


def test_an_exported_agent_is_small_and_nearly_as_it_was(run_dir: Path, tmp_path: Path) -> None:
    path = export_agent(run_dir, tmp_path / "kept" / "agent")
    assert 4 * path.stat().st_size < checkpoints(run_dir)[0].stat().st_size
    before = rmc_agents.load(run_dir).state_dict()
    for name, x in rmc_agents.load(tmp_path / "kept" / "agent").state_dict().items():
        torch.testing.assert_close(x, before[name], atol=1e-4, rtol=1e-3)
    with pytest.raises(UsageError):
        export_agent(tmp_path / "none", tmp_path / "other")

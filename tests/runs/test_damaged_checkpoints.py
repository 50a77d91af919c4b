"""Damaged checkpoints: however many there are, and whatever their numbers, no save deletes the good ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import rmc_agents
from rmc_agents import UsageError
from rmc_agents.runs.checkpoint import newest_intact, read_newest, save_checkpoint
from rmc_agents.runs.folder import best_checkpoint, checkpoint_path, checkpoints
from tests.support.trainers import ppo_trainer, supervised_trainer

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "text": lambda data: b"hello",
    "truncated": lambda data: data[: len(data) // 2],
    "flipped": lambda data: (
        data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 0xFF]) + data[len(data) // 3 + 1 :]
    ),
    "without its start": lambda data: data[100:],
    "zeroed": lambda data: bytes(len(data)),
}


def save(run_dir: Path, step: int, keep: int = 3, **options: object) -> Path:
    return save_checkpoint(run_dir, step, {"agent": {"x": torch.full((9,), float(step))}}, keep, **options)  # type: ignore[arg-type]


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def steps(run_dir: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in checkpoints(run_dir)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("first", [129, 10**11, 10**30])
def test_resume_with_damaged_newer_checkpoints_sets_them_aside(
    damage: str, keep: int, first: int, tmp_path: Path
) -> None:
    run = ppo_trainer(tmp_path / "run", keep_checkpoints=keep)
    run.iterate()
    good = run.save()
    run.iterate()
    bad = [checkpoint_path(tmp_path / "run", first + n) for n in range(keep + 1)]
    for path in bad:
        path.write_bytes(DAMAGES[damage](good.read_bytes()))
    again = ppo_trainer(tmp_path / "run", keep_checkpoints=keep, checkpoint_seconds=0)
    notes = again.restore()
    skipped = [note for note in notes if note.startswith("skipped: ")]
    for path, note in zip(reversed(bad), skipped, strict=True):
        assert f"{path} is damaged or not a checkpoint" in note
        assert note.endswith(f"it was renamed {path.name}.damaged")
    assert not any(path.exists() for path in bad)
    assert all(path.with_name(f"{path.name}.damaged").is_file() for path in bad)
    again.run()
    assert steps(tmp_path / "run")[0] == again.steps == again.config.total_steps
    assert ppo_trainer(tmp_path / "run").restore() == [f"resuming from {newest_intact(tmp_path / 'run')}"]


def test_damaged_checkpoint_of_a_classifier_is_set_aside(tmp_path: Path) -> None:
    run = supervised_trainer(tmp_path)
    run.iterate()
    good = run.save()
    bad = checkpoint_path(tmp_path, 10**9)
    bad.write_bytes(good.read_bytes()[:-1])
    again = supervised_trainer(tmp_path)
    assert f"it was renamed {bad.name}.damaged" in again.restore()[0]
    again.iterate()
    path = again.save()
    assert checkpoints(tmp_path) == [path]


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_that_arrive_between_saves_do_not_count(damage: str, keep: int, tmp_path: Path) -> None:
    data = save(tmp_path, 10, keep).read_bytes()
    for step in (20, 30):
        save(tmp_path, step, keep)
    for step in (31, 32, 33, 99, 98, 97):
        checkpoint_path(tmp_path, step).write_bytes(DAMAGES[damage](data))
    save(tmp_path, 40, keep)
    good = [step for step in steps(tmp_path) if step in (10, 20, 30, 40)]
    assert good == [40, 30, 20, 10][:keep]
    assert {31, 32, 33, 99, 98, 97} < set(steps(tmp_path)), "a save deletes no file that it cannot read"
    assert newest_intact(tmp_path) == checkpoint_path(tmp_path, 40)


def test_checkpoint_damaged_after_it_was_saved_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1, keep=2)
    newer = save(tmp_path, 2, keep=2)
    newer.write_bytes(newer.read_bytes()[:-9])
    save(tmp_path, 3, keep=2)
    assert steps(tmp_path) == [3, 2, 1]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_checkpoint_that_was_just_written_is_kept_although_its_number_is_lower(
    keep: int, tmp_path: Path
) -> None:
    for step in (100, 101, 102, 103, 7, 5, 6):
        path = save(tmp_path, step, keep)
        assert path.is_file()
    assert len(checkpoints(tmp_path)) == keep


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"checkpoint": 3, "score": [1]}', '{"checkpoint": "../x", "score": [1]}',
        '{"checkpoint": "step_000000000099.pt", "score": [1e400, 0]}',
        '{"checkpoint": "step_000000000099.pt", "score": [NaN, 0]}',
        '{"checkpoint": "step_000000000099.pt", "score": ["x"]}',
        '{"checkpoint": "step_000000000099.pt", "score": 1}',
        '{"checkpoint": "step_000000000099.pt", "score": [1' + "0" * 400 + "]}",
        '{"checkpoint": "step_000000000099.pt", "score": [1, 1]}',
        "[" * 100_000, "\x00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("keep", [1, 3])
def test_damaged_best_json_is_replaced(text: str, keep: int, tmp_path: Path) -> None:
    save(tmp_path, 1, keep, score=(0.5, 1.0))
    (tmp_path / "checkpoints" / "best.json").write_text(text)
    checkpoint_path(tmp_path, 99).write_bytes(b"damaged")
    path = save(tmp_path, 2, keep, score=(0.4, 1.0))
    assert best_checkpoint(tmp_path) == (path, [0.4, 1.0])
    assert newest_intact(tmp_path) == path


def test_best_json_that_cannot_be_written_does_not_fail_the_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "best.json" / "in the way").mkdir(parents=True)
    for step in (1, 2, 3):
        save(tmp_path, step, keep=1, score=(0.5, 0.0))
    assert steps(tmp_path) == [3]


@pytest.mark.parametrize(
    "name", ["step_x.pt", "step_.pt", "step_-1.pt", "step_1.pt.damaged", "step_1.PT", ".step_1.pt"]
)
def test_files_of_other_names_are_not_checkpoints(name: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.copy(checkpoints(tmp_path)[0], tmp_path / "checkpoints" / name)
    assert steps(tmp_path) == [1]


def test_damaged_file_that_cannot_be_renamed_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    run = ppo_trainer(tmp_path)
    run.iterate()
    good = run.save()
    bad = checkpoint_path(tmp_path, 10**6)
    bad.write_bytes(b"")
    monkeypatch.setattr(Path, "rename", refuse)
    notes = ppo_trainer(tmp_path).restore()
    assert notes[0].startswith(f"skipped: {bad} is damaged")
    assert notes[1:] == [f"resuming from {good}"]


def test_name_of_a_file_set_aside_is_free(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path)
    run.iterate()
    run.save()
    for _ in range(3):
        checkpoint_path(tmp_path, 10**6).write_bytes(b"")
        ppo_trainer(tmp_path).restore()
    damaged = [name for name in names(tmp_path) if "damaged" in name]
    assert damaged == [f"step_000001000000.pt.damaged{n}" for n in ("", 1, 2)]


def test_loading_renames_nothing(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path)
    run.iterate()
    run.save()
    checkpoint_path(tmp_path, 10**6).write_bytes(b"")
    before = names(tmp_path)
    rmc_agents.load(tmp_path)
    read_newest(tmp_path)
    assert names(tmp_path) == before


def test_folder_without_an_intact_checkpoint_keeps_its_files(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path)
    run.iterate()
    path = run.save()
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="holds no readable checkpoint"):
        ppo_trainer(tmp_path).restore()
    assert names(tmp_path) == [path.name]


def test_checkpoint_of_a_later_format_is_not_set_aside(tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path)
    run.iterate()
    run.save()
    later = checkpoint_path(tmp_path, 10**6)
    torch.save({"format": 99}, later)
    assert "has format 99" in ppo_trainer(tmp_path).restore()[0]
    assert later.is_file()
    assert json.loads((tmp_path / "config.json").read_text())["format"]


def test_old_checkpoint_that_cannot_be_deleted_does_not_fail_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".step_000000000001.pt.9.tmp").touch()
    for step in (1, 2, 3):
        assert save(tmp_path, step, keep=1).is_file()
    assert steps(tmp_path) == [3, 2, 1]

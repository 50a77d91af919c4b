"""Training loop: run folder, checkpoints, interruption and failures, alike for both trainers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.robustness import growth
from rmc_agents import SupervisedTrainer, Trainer, TrainingError, UsageError
from rmc_agents.errors import Interrupted
from rmc_agents.runs.checkpoint import read_newest, save_checkpoint
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.runs.migrations import CONFIG_FORMAT
from rmc_agents.training.loop import training_loop, write_diagnostic
from rmc_agents.training.processes import ALONE, Processes
from tests.support.trainers import ppo_trainer, supervised_trainer

Build = Callable[..., Trainer | SupervisedTrainer]
BUILDERS = {"ppo": ppo_trainer, "supervised": supervised_trainer}
UNITS = {"ppo": "steps", "supervised": "samples"}


@pytest.fixture(params=BUILDERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Name of a trainer; a test that uses this runs for both."""
    return request.param


class Counter:
    """Smallest thing that the loop can train: it counts to three."""

    checkpoint_seconds = 1e9
    restored = opened = False
    processes: Processes = ALONE

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.count, self.broken = run_dir, 0, False

    @property
    def done(self) -> bool:
        return self.count >= 3

    def wording(self, message: str) -> str:
        return message

    def to_json(self) -> dict[str, Any]:
        return {"agent": {"core": "counter"}, "imports": ["math"]}

    def save(self) -> Path:
        if self.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_checkpoint(self.run_dir, self.count, {"agent": {"x": torch.ones(1)}})


def test_messages_are_shown_and_logged_in_the_wording_of_the_trainer(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = BUILDERS[kind](tmp_path)
    trainer.translate = lambda message: message.replace("num_envs=3", "--num-envs 3")

    def fail() -> None:
        with training_loop(trainer, "title", 3, {}) as loop:
            loop.tell(["note on num_envs=3"])
            loop.report({}, {}, ["warning: num_envs=3"])
            raise TrainingError("num_envs=3")

    with pytest.raises(TrainingError):
        fail()
    shown, logged = capsys.readouterr().out, (tmp_path / "log.jsonl").read_text()
    assert "note on --num-envs 3" in shown
    assert "warning: --num-envs 3" in shown
    assert logged.count("--num-envs 3") == 3
    assert "num_envs=3" not in shown + logged


def count(counter: Counter, during: Callable[[int], None] = lambda count: None) -> None:
    """Run the loop; `during` is called with the count after each iteration, before it is reported."""
    with training_loop(counter, "counter", 3, {"steps": "{:.0f}"}) as loop:
        while loop.running:
            counter.count += 1
            during(counter.count)
            loop.report({"time/fps": 1.0}, {"steps": counter.count}, [f"message {counter.count}"])


def logged(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def saved(run_dir: Path) -> list[int]:
    """Return the steps of a run's checkpoints, newest first."""
    return [int(path.stem.removeprefix("step_")) for path in checkpoints(run_dir)]


def test_loop_writes_config_log_and_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count(Counter(tmp_path / "run"))
    assert saved(tmp_path / "run") == [3]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["format"], config["agent"], config["imports"]) == (
        CONFIG_FORMAT,
        {"core": "counter"},
        ["math"],
    )
    assert "torch" in config["versions"]
    lines = logged(tmp_path / "run")
    assert [x["step"] for x in lines if "time/fps" in x] == [1, 2, 3]
    assert [x["note"] for x in lines if "note" in x] == ["message 1", "message 2", "message 3"]
    printed = capsys.readouterr().out
    assert all(f"message {n}" in printed for n in (1, 2, 3))
    assert not (tmp_path / "run" / "diagnostic.json").exists()


def test_loop_saves_whenever_a_checkpoint_is_due(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter.checkpoint_seconds = 0
    count(counter)
    assert saved(tmp_path) == [3, 2, 1]


def test_signal_ends_the_loop_after_the_iteration_was_saved(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    with pytest.raises(
        Interrupted, match=r"interrupted after 2 steps; saved: .*step_000000000002\.pt"
    ) as stop:
        count(counter, lambda n: signal.raise_signal(signal.SIGTERM) if n == 2 else None)
    assert stop.value.signal == signal.SIGTERM
    assert saved(tmp_path) == [2]
    assert logged(tmp_path)[-1] == {"step": 2, "note": "message 2"}


def test_signal_in_the_last_iteration_does_not_interrupt(tmp_path: Path) -> None:
    count(Counter(tmp_path), lambda n: signal.raise_signal(signal.SIGTERM) if n == 3 else None)
    assert saved(tmp_path) == [3]


def test_failure_after_a_signal_counts_as_the_interruption(tmp_path: Path) -> None:
    """A signal to the whole process group ends the environments' processes, too."""

    def broken_pipe(n: int) -> None:
        if n == 2:
            signal.raise_signal(signal.SIGTERM)
            raise BrokenPipeError("environment 3 is gone")

    counter = Counter(tmp_path)
    counter.checkpoint_seconds = 0
    with pytest.raises(Interrupted, match=r"saved: .*step_000000000001\.pt") as stop:
        count(counter, broken_pipe)
    assert isinstance(stop.value.__cause__, BrokenPipeError)
    with pytest.raises(Interrupted, match="saved: nothing yet"):
        count(Counter(tmp_path / "new"), broken_pipe)


def test_checkpoint_that_cannot_be_written_is_a_warning_until_the_end(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter.checkpoint_seconds = 0

    def break_disk(n: int) -> None:
        counter.broken = n >= 2

    with pytest.raises(TrainingError) as error:
        count(counter, break_disk)
    assert str(error.value) == (
        f"the checkpoint after 3 steps could not be saved (No space left on device); the last intact "
        f"checkpoint is {checkpoints(tmp_path)[0]}; make room, and resume {tmp_path}"
    )
    notes = [x["note"] for x in logged(tmp_path) if "note" in x]
    assert sum("warning: the checkpoint after 2 steps could not be saved" in note for note in notes) == 1
    assert notes[-1].startswith("stopped: the checkpoint after 3 steps could not be saved")
    assert saved(tmp_path) == [1]
    counter = Counter(tmp_path / "new")
    counter.broken = True
    with pytest.raises(TrainingError, match="nothing has been saved yet"):
        count(counter)


def test_resumed_run_keeps_what_its_trainer_does_not_describe(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    described = counter.to_json()
    counter.to_json = lambda: {**described, "precision": "bf16"}  # type: ignore[method-assign]
    count(counter)
    again = Counter(tmp_path)
    again.restored = True
    again.to_json = lambda: {"agent": {"core": "other"}, "imports": ["cmath"]}  # type: ignore[method-assign]
    count(again)
    config = read_config(tmp_path)
    assert (config["agent"], config["precision"]) == ({"core": "other"}, "bf16")
    assert config["imports"] == ["math", "cmath"]


def test_run_folder_in_use_is_refused(kind: str, tmp_path: Path) -> None:
    BUILDERS[kind](tmp_path).run()
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(UsageError, match="already holds a run: resume it, or choose another run_dir"):
        BUILDERS[kind](tmp_path).run()
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) == before


def test_run_folder_that_cannot_be_made_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to the run folder"):
        BUILDERS[kind](tmp_path / "file" / "run").run()


def test_foreign_exception_keeps_its_type_and_leaves_a_diagnostic(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = BUILDERS[kind](tmp_path)
    iterate, seen = trainer.iterate, []

    def fail() -> dict[str, float]:
        if seen:
            raise ZeroDivisionError("a bug")
        seen.append(iterate())
        return seen[0]

    monkeypatch.setattr(trainer, "iterate", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        trainer.run()
    facts = json.loads((tmp_path / "diagnostic.json").read_text())
    assert facts["error"] == "ZeroDivisionError('a bug')"
    assert facts[UNITS[kind]] == trainer.count > 0
    assert "torch" in facts["versions"]
    assert logged(tmp_path)[-1] == {"step": trainer.count, "note": "stopped: a bug"}
    assert checkpoints(tmp_path) == [], "the end of a broken run is not saved"


def test_training_error_leaves_no_diagnostic_of_its_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = BUILDERS[kind](tmp_path)

    def fail() -> dict[str, float]:
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(trainer, "iterate", fail)
    with pytest.raises(TrainingError, match="the loss is not finite"):
        trainer.run()
    assert not (tmp_path / "diagnostic.json").exists()
    assert logged(tmp_path)[-1]["note"] == "stopped: the loss is not finite"


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_interrupted_run_resumes_to_the_same_end(
    kind: str,
    number: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    whole, first = BUILDERS[kind](tmp_path / "whole"), BUILDERS[kind](tmp_path / "parts")
    whole.run()
    iterate = first.iterate

    def interrupted() -> dict[str, float]:
        os.kill(os.getpid(), number)
        return iterate()

    monkeypatch.setattr(first, "iterate", interrupted)
    with pytest.raises(Interrupted) as stop:
        first.run()
    signal.signal(signal.SIGINT, before)
    assert first.count == {"ppo": 128, "supervised": 512}[kind]
    (path,) = checkpoints(tmp_path / "parts")
    assert str(stop.value) == f"interrupted after {first.count:,} {UNITS[kind]}; saved: {path}"
    assert stop.value.signal == number
    assert f"{name}: finishing this iteration" in capfd.readouterr().err
    second = BUILDERS[kind](tmp_path / "parts")
    assert second.restore() == [f"resuming from {path}"]
    second.run()
    a, b = (read_newest(tmp_path / run)[1] for run in ("whole", "parts"))
    assert all(torch.equal(a["agent"][x], b["agent"][x]) for x in a["agent"])
    assert torch.equal(a["generator"], b["generator"])


def test_diagnostic_of_a_trainer_that_was_never_run_is_not_written(tmp_path: Path) -> None:
    assert write_diagnostic(tmp_path / "none", {"x": 1}) is None
    assert not (tmp_path / "none").exists()
    path = write_diagnostic(tmp_path, {"x": 1})
    assert path is not None
    assert json.loads(path.read_text())["x"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Mount a file system of 300 kB; skip where that is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*words: str) -> bool:
        return subprocess.run(["mount", *words, str(folder)], capture_output=True).returncode == 0

    try:
        mounted = mount("-t", "tmpfs", "-o", "size=300k", "tmpfs")
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system takes root")
    yield folder, mount
    subprocess.run(["umount", str(folder)], check=True)


def test_full_or_read_only_disk_keeps_the_last_intact_checkpoint(small_disk: Any) -> None:
    folder, mount = small_disk
    run = ppo_trainer(folder / "run", "gru", checkpoint_seconds=0)
    ballast = folder / "ballast"
    iterate = run.iterate

    def full_later() -> dict[str, float]:
        if run.iterations == 2:
            with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1024)):
                    pass
        return iterate()

    run.iterate = full_later  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"No space left on device.*last intact checkpoint is .*256\.pt"):
        run.run()
    ballast.unlink()
    again = ppo_trainer(folder / "run", "gru")
    again.restore()
    assert again.steps == 256
    assert mount("-o", "remount,ro")
    with pytest.raises(UsageError, match="Read-only file system"):
        ppo_trainer(folder / "other").run()
    with pytest.raises((UsageError, TrainingError), match="Read-only file system"):
        again.run()
    assert read_newest(folder / "run")[1]["steps"] == 256


def test_memory_and_open_files_do_not_grow(tmp_path: Path) -> None:
    seen = growth.measure_growth(tmp_path, 300, points=3)
    assert seen[-1]["memory (MiB)"] < 1.01 * seen[0]["memory (MiB)"]
    assert seen[-1]["open files"] == seen[0]["open files"]

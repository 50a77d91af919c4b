"""Lock of a run folder: one process trains in it, and every other is told which."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rmc_agents
from benchmarks.robustness import processes
from benchmarks.robustness.processes import STEPS, TINY, exit_code, start, wait_until
from rmc_agents import UsageError
from rmc_agents.runs import lock
from rmc_agents.runs.folder import checkpoints
from rmc_agents.runs.lock import NAME, require_unlocked, run_lock
from tests.support.trainers import ppo_trainer, supervised_trainer

BUILDERS = {"ppo": ppo_trainer, "supervised": supervised_trainer}


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Run a function in a process of its own; what still runs at the end is killed."""
    started: list[int] = []

    def run(function: Callable[[], None]) -> int:
        process = os.fork()
        if not process:
            try:
                function()
            finally:
                os._exit(0)
        started.append(process)
        return process

    yield run
    for process in started:
        try:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def held(tmp_path: Path, fork: Callable[[Callable[[], None]], int]) -> int:
    """A process that holds the lock of `tmp_path`."""

    def hold() -> None:
        with run_lock(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)

    process = fork(hold)
    wait_until((tmp_path / "held").exists)
    return process


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", BUILDERS)
def test_run_folder_of_another_process_is_refused(kind: str, held: int, tmp_path: Path) -> None:
    trainer = BUILDERS[kind](tmp_path)
    with pytest.raises(UsageError, match=rf"is in use by process {held} on .*wait until it has ended"):
        trainer.run()
    trainer.iterate()
    with pytest.raises(UsageError, match=f"is in use by process {held}"):
        trainer.save()
    assert not (tmp_path / "config.json").exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_lock_of_a_killed_process_is_free(held: int, tmp_path: Path) -> None:
    os.kill(held, signal.SIGKILL)
    os.waitpid(held, 0)
    assert (tmp_path / NAME).exists()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_worker_process_does_not_keep_the_lock_of_its_killed_parent(
    tmp_path: Path, fork: Callable[[Callable[[], None]], int]
) -> None:
    def hold() -> None:
        with run_lock(tmp_path):
            worker = os.fork()
            if not worker:
                time.sleep(60)
                os._exit(0)
            (tmp_path / "worker").write_text(str(worker))
            time.sleep(60)

    process = fork(hold)
    wait_until(lambda: (tmp_path / "worker").exists() and (tmp_path / "worker").read_text() != "")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    try:
        with run_lock(tmp_path):
            pass
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"pid": "x", "host": 1, "command": []}', "\x00\xff", "9" * 5000]
)
def test_lock_file_that_says_nothing_is_still_a_lock(text: str, held: int, tmp_path: Path) -> None:
    # Written by another process: closing the file here would release nothing of the holder's.
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UsageError, match="is in use by another process"), run_lock(tmp_path):
        pass


def test_two_trainers_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with pytest.raises(UsageError, match="another trainer of this process"), run_lock(tmp_path):
            pass
        with pytest.raises(UsageError, match="in use"):
            ppo_trainer(tmp_path / "." / ".." / tmp_path.name).run()
        require_unlocked(tmp_path)
    with run_lock(tmp_path):
        pass


def test_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_file_system_without_locks_does_not_prevent_training(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock, "_lock", refuse)
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EPERM])
def test_lock_file_that_cannot_be_made_does_not_prevent_training(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_something_else_in_place_of_the_lock_file_does_not_prevent_training(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / NAME
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        os.mkfifo(path)
    with run_lock(tmp_path):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_second_process_exits_with_2_and_changes_nothing(tmp_path: Path) -> None:
    """The same fresh run folder, a resume and --auto-resume while the first process trains."""
    run_dir, output = tmp_path / "run", tmp_path / "output.txt"
    flags = [*TINY, "--core", "gru", "--core-options", "hidden_size=8", "--run-dir", str(run_dir)]
    first = start([*flags, "--checkpoint-seconds", "0"], tmp_path / "first.txt")
    try:
        wait_until(lambda: len(checkpoints(run_dir)) >= 3)
        for second in (flags, ["--resume", str(run_dir)], [*flags, "--auto-resume"]):
            assert exit_code(start(second, output)) == 2, output.read_text()
            message = output.read_text().splitlines()[-1]
            assert message.startswith("error: ")
            assert f"is in use by process {first}" in message or "already holds a run" in message
        assert "Traceback" not in output.read_text()
        rmc_agents.load(run_dir)
        count = processes.newest_step(run_dir)
        wait_until(lambda: processes.newest_step(run_dir) > count)
    finally:
        os.kill(first, signal.SIGTERM)
        assert exit_code(first) == 143
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "note" not in line]
    assert steps == sorted(set(steps))
    assert steps[:2] == [STEPS, 2 * STEPS]
    assert not (run_dir / NAME).exists()

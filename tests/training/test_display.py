"""A display that fails: training continues and is saved, and the exit code says so."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.robustness.processes import STEPS, TINY, exit_code, newest_step, start, wait_until
from rmc_agents.training.progress import Progress, say
from tests.support.trainers import ppo_trainer

COLUMNS = {"steps": "{:,.0f}", "steps/s": "{:,.0f}", "time left": "{}"}
ITERATIONS = 20


class Broken(io.StringIO):
    """Output whose writes fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


ERRORS = {
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
    "terminal gone": OSError(errno.EIO, "Input/output error"),
    "pipe closed": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "bad file": OSError(errno.EBADF, "Bad file descriptor"),
    "file closed": ValueError("I/O operation on closed file."),
}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("reason", ERRORS)
def test_display_that_fails_is_off_after_one_warning(
    reason: str, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings = io.StringIO()
    monkeypatch.setattr(sys, "stderr", warnings)
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Broken(ERRORS[reason]))
        with Progress("title", 100, COLUMNS, every=0) as progress:
            assert (progress.live is not None) == terminal
            for step in range(5):
                progress.show({"steps": step, "steps/s": 1})
                progress.note("message")
    assert progress.failed
    expected = getattr(ERRORS[reason], "strerror", None) or str(ERRORS[reason])
    assert warnings.getvalue() == f"warning: stdout cannot be written ({expected}); output is discarded\n"


def test_failure_of_stderr_too_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdout", "stderr", "__stdout__"):
        monkeypatch.setattr(sys, stream, Broken(ERRORS["full disk"]))
    with Progress("title", 100, COLUMNS, every=0) as progress:
        progress.show({"steps": 1, "steps/s": 1})
    say("the end")


def test_process_without_stdout_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    ppo_trainer(tmp_path).run()
    say("the end")
    assert newest_step(tmp_path) == 512


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b[31mred", "bell\x07", "\x9b5n", "back\x08\x08", "\udcff", "\u202ereversed"]
)
def test_control_characters_are_escaped(text: str) -> None:
    output = io.StringIO()
    progress = Progress(text, 100, COLUMNS)
    progress.console = Console(file=output, force_terminal=False, width=100)
    progress.note(f"first {text}\nsecond")
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in (*lines, progress.title))


def test_text_that_the_encoding_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    progress = Progress("title", 100, COLUMNS)
    progress.console = Console(file=io.TextIOWrapper(raw, "ascii"), width=100)
    progress.note("95 % ± 1")
    assert raw.getvalue() == b"95 % \\xb1 1\n"
    assert not progress.failed


def test_time_left_of_strange_figures_is_a_dash() -> None:
    progress = Progress("title", 100, COLUMNS)
    for speed in (0.0, float("nan"), 1e-300):
        assert progress._cells({"steps": 1, "steps/s": speed})["time left"] == "-"


def flags(run_dir: Path) -> list[str]:
    return [
        *TINY,
        "--core",
        "gru",
        "--core-options",
        "hidden_size=8",
        "--run-dir",
        str(run_dir),
        "--checkpoint-seconds",
        "0",
    ]


def redirect(*descriptors: int, to: Callable[[], int]) -> Callable[[], None]:
    """Return a function that redirects the descriptors of a new process."""

    def prepare() -> None:
        target = to()
        for descriptor in descriptors:
            os.dup2(target, descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)

    return prepare


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("descriptors", [(1,), (1, 2)], ids=["stdout", "stdout and stderr"])
@pytest.mark.parametrize("kind", ["full disk", "pipe"])
def test_training_with_broken_output_ends_with_0_and_is_saved(
    kind: str, descriptors: tuple[int, ...], tmp_path: Path
) -> None:
    to = {"full disk": lambda: os.open("/dev/full", os.O_WRONLY), "pipe": closed_pipe}[kind]
    command = [*flags(tmp_path / "run"), "--total-steps", str(ITERATIONS * STEPS)]
    code = exit_code(start(command, tmp_path / "output.txt", redirect(*descriptors, to=to)))
    assert code == 0, (tmp_path / "output.txt").read_text()
    assert newest_step(tmp_path / "run") == ITERATIONS * STEPS
    if descriptors == (1,):
        assert (tmp_path / "output.txt").read_text().count("stdout cannot be written") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "note" not in line]) == ITERATIONS


@pytest.mark.parametrize("ignored", [True, False], ids=["nohup", "plain"])
def test_terminal_that_vanishes_loses_nothing(ignored: bool, tmp_path: Path) -> None:
    """With nohup training continues; otherwise SIGHUP ends it after the iteration, saved."""
    run_dir = tmp_path / "run"
    master, terminal = os.openpty()

    def prepare() -> None:
        os.setsid()
        os.dup2(terminal, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        os.close(master)
        import fcntl
        import termios

        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    process = start(flags(run_dir), tmp_path / "output.txt", prepare)
    os.close(terminal)
    try:
        wait_until(lambda: newest_step(run_dir) > 0)
        os.close(master)
        if ignored:
            reached = newest_step(run_dir)
            wait_until(lambda: newest_step(run_dir) > reached + 10 * STEPS)
            os.kill(process, signal.SIGTERM)
        code = exit_code(process)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        raise
    errors = (tmp_path / "output.txt").read_text()
    assert code == (143 if ignored else 129), errors
    assert "Traceback" not in errors
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == newest_step(run_dir)

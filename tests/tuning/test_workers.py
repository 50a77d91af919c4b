"""Worker processes of a sweep, with a script in the place of the command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from rmc_agents.tuning import workers
from tests.support import fork_server
from tests.support.commands import ROOT

SCRIPT = """
import os, signal, sys, time
rank = os.environ["RMC_AGENTS_TUNE_WORKER"]
def end(number, frame):
    open(f"ended-{rank}", "w").write(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGINT, end), signal.signal(signal.SIGTERM, end)
open(f"started-{rank}", "w").write(" ".join(sys.argv[1:]))
if "wait" in sys.argv:
    time.sleep(30)
sys.exit(int(rank) - 1)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of the command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", ["script.py"])
    return tmp_path


def wait_until(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def test_workers_run_the_same_command(script: Path) -> None:
    assert workers.run_workers(3, ["--trials", "4"]) == ([0, 1, 2], None)
    assert [(script / f"started-{rank}").read_text() for rank in (1, 2, 3)] == ["--trials 4"] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on_and_handlers_restored(number: int, script: Path) -> None:
    before = signal.getsignal(number)

    def send() -> None:
        for rank in (1, 2):
            wait_until(script / f"started-{rank}")
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    codes, received = workers.run_workers(2, ["wait"])
    sender.join()
    assert received == number
    assert codes == [128 + number] * 2
    assert signal.getsignal(number) is before


PARENT = """
import os, sys, time
from rmc_agents.tuning import workers
if workers.is_worker():
    workers.follow_parent()
    open("started", "w").close()
    time.sleep(60)
else:
    workers.run_workers(1, [])
"""


def test_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = fork_server.start([str(tmp_path / "parent.py")], tmp_path, PYTHONPATH=str(ROOT))
    wait_until(tmp_path / "started")
    parent.kill()
    assert parent.stdout is not None
    parent.stdout.read()  # ends when the worker, which holds the other end, has ended
    parent.communicate()

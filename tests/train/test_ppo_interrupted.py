"""`python train/ppo.py`, killed, interrupted or out of disk space: nothing is lost.

The full counts are those of `python -m benchmarks.robustness.soak`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest

from benchmarks.robustness import kills, processes
from rmc_agents.runs.checkpoint import read_checkpoint
from rmc_agents.runs.folder import checkpoints
from tests.support import fork_server
from tests.support.commands import script_path


@pytest.mark.slow
def test_training_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    result = kills.kill_and_resume(tmp_path, 8, "gru", seed=7)
    assert result["checkpoints lost"] == 0
    assert result["damaged files"] == result["tracebacks"] == 0
    assert result["equal to an uninterrupted run"] == "yes"
    assert result["iterations survived"] > 0
    assert [value for name, value in result.items() if name.startswith("steps ")] == [0] * 4


def started(run_dir: Path, *more: str) -> tuple[int, Path]:
    """Start a training run and wait until it has saved; return its process and the file of its output."""
    output = run_dir.parent / "output.txt"
    words = [*processes.TINY, "--core", "gru", "--run-dir", str(run_dir), "--checkpoint-seconds", "0", *more]
    process = processes.start(words, output)
    processes.wait_until(lambda: bool(checkpoints(run_dir)))
    return process, output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_the_iteration_saves_and_prints_how_to_resume(
    number: int, code: int, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process, output = started(run_dir)
    os.kill(process, number)
    assert processes.exit_code(process) == code
    printed = output.read_text()
    resume = f"resume with: python train/ppo.py --resume {run_dir} --checkpoint-seconds 0.0"
    assert resume in printed
    assert "Traceback" not in printed
    newest = checkpoints(run_dir)[0]
    assert newest.name in printed
    last = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()][-1]
    assert last["step"] == read_checkpoint(newest)["steps"], "the iteration under way is saved"


def test_command_stops_on_sigterm_and_resumes(tmp_path: Path) -> None:
    words = [script_path("ppo"), *processes.TINY, "--core", "gru"]
    words += ["--run-dir", "run", "--auto-resume", "--checkpoint-seconds", "0"]
    reached = []
    for _ in range(2):
        process = fork_server.start(words, tmp_path, keep_stdout=False)
        at = reached[-1] if reached else -1
        processes.wait_until(lambda at=at: processes.newest_step(tmp_path / "run") > at)
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 143, errors
        assert "resume with: python train/ppo.py --resume run" in errors
        reached.append(processes.newest_step(tmp_path / "run"))
    assert reached[1] > reached[0]


def test_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    run_dir = processes.tiny_run(tmp_path)
    for path in checkpoints(run_dir):
        path.unlink()
    process = processes.start(["--resume", str(run_dir)], tmp_path / "again.txt")
    assert processes.exit_code(process) == 0, (tmp_path / "again.txt").read_text()
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "note" not in line] == [32, 64]


def test_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path: Path) -> None:
    """Files cannot grow to a checkpoint's size: writing fails midway, as on a full disk."""
    run_dir = processes.tiny_run(tmp_path)
    good, size = checkpoints(run_dir)[0], checkpoints(run_dir)[0].stat().st_size

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    words = ["--resume", str(run_dir), "--total-steps", "256", "--checkpoint-seconds", "0"]
    process = processes.start(words, tmp_path / "full.txt", fill)
    assert processes.exit_code(process) == 1
    printed = (tmp_path / "full.txt").read_text()
    assert "could not be saved (File too large); the last intact checkpoint is" in printed
    assert "Traceback" not in printed
    assert "the checkpoint after 256 steps" in printed, "it trained to the end all the same"
    assert checkpoints(run_dir)[0] == good
    assert not list((run_dir / "checkpoints").glob(".*"))
    process = processes.start(words, tmp_path / "room.txt")
    assert processes.exit_code(process) == 0, "there is room again"
    assert processes.newest_step(run_dir) == 256

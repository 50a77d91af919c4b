"""Number of processes of a run, and runs of several processes that were started by a command."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.robustness.processes import newest_step, wait_until
from rmc_agents.cli import processes
from rmc_agents.cli.processes import choose_processes
from rmc_agents.errors import UsageError
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.training.processes import ALONE, Alone
from rmc_agents.training.snapshot import OTHERS
from tests.support import fork_server
from tests.support.commands import Result, in_process, run_script, script_path

TINY = [
    *(
        "--env",
        "rmc/Recall-v0",
        "--num-envs",
        "8",
        "--num-steps",
        "16",
        "--bptt-length",
        "8",
        "--epochs",
        "1",
    ),
    *("--minibatch-size", "64", "--core", "gru", "--features", "8", "--hidden-size", "8"),
    *("--checkpoint-seconds", "0"),
]
ENDLESS = [*TINY, "--total-steps", "1e9", "--processes", "2", "--run-dir", "run"]
PRESET = {"saved": None, "sequences": 16, "envs": 64, "steps": 10**6, "threads": 1, "helpful": True}
"""Sizes of a preset."""


@pytest.mark.parametrize(
    ("cores", "changes", "number"),
    [
        (1, {}, 1),
        (2, {}, 2),
        (3, {}, 2),
        (8, {}, 2),
        (8, {"sequences": 64}, 4),
        (8, {"sequences": 64, "envs": 128}, 8),
        (6, {"sequences": 64, "envs": None}, 4),
        (8, {"sequences": 64, "envs": 33}, 1),
        (2, {"threads": 2}, 1),
        (4, {"threads": 2}, 2),
        (2, {"threads": 0}, 1),
        (2, {"steps": 99_999}, 1),
        (2, {"helpful": False}, 1),
    ],
)
def test_auto_chooses_by_cores_and_sizes(
    cores: int, changes: dict[str, object], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    monkeypatch.setattr(processes, "_can_restart", lambda: True)
    chosen, notes = choose_processes(0, **{**PRESET, **changes})  # type: ignore[arg-type] # pyright: ignore
    assert chosen == number
    assert len(notes) == (number > 1)
    if number == cores > 1:
        assert notes == [f"{number} processes, one per core; --processes 1 for one"]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "garbage"}, None),
        ({}, None),
    ],
)
def test_limit_of_a_container_limits_the_cores(
    files: dict[str, str], limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(processes, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert processes.usable_cores() == limit or (limit is None and processes.usable_cores() == 64)


def test_debugger_keeps_auto_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    monkeypatch.setattr(sys, "argv", [__file__, "--env", "x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pdb", *sys.argv])
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    assert choose_processes(0, **PRESET)[0] == 2  # type: ignore[arg-type] # pyright: ignore
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    assert choose_processes(0, **PRESET) == (1, [])  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(UsageError, match="without a debugger"):
        processes.processes_of_run(2)


def test_fewer_gpus_than_processes_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    class Three(Alone):
        size = 3

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="3 processes need a GPU each, and this machine has 2"):
        processes.device_of(torch.device("cuda"), Three())
    assert processes.device_of(torch.device("cuda:0"), Three()) == torch.device("cuda:0")
    assert processes.device_of(torch.device("cuda"), ALONE) == torch.device("cuda")


def test_process_that_cannot_join_says_why(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    launch = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in {**launch, "RMC_AGENTS_TIMEOUT": "0.1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        processes.follow(lambda group: None)
    assert end.value.code == 1
    assert "error: the processes of this run did not meet: " in capfd.readouterr().err


def test_number_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_processes(3, **PRESET) == (3, ["3 processes"])  # type: ignore[arg-type] # pyright: ignore
    assert choose_processes(1, **PRESET) == (1, [])  # type: ignore[arg-type] # pyright: ignore
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for asked, saved in [(0, None), (4, None), (2, 2)]:
        options = {**PRESET, "saved": saved}
        assert choose_processes(asked, **options) == (4, ["4 processes"])  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(UsageError, match="--processes 2: torchrun has started 4"):
        choose_processes(2, **PRESET)  # type: ignore[arg-type] # pyright: ignore


@pytest.mark.parametrize(
    ("script", "words", "error"),
    [
        ("ppo", [*TINY, "--processes", "3"], "--minibatch-size 64 cannot be divided among 3 processes"),
        ("ppo", [*TINY, "--processes", "-1"], "--processes -1: expected 0 to 1024"),
        (
            "ppo",
            [*TINY, "--num-envs", "9", "--minibatch-size", "48", "--processes", "2"],
            "--num-envs 9 cannot",
        ),
        ("nth_farthest", ["--processes", "3"], "--batch-size 256 cannot be divided among 3 processes"),
    ],
)
def test_number_that_does_not_divide_the_work_is_a_mistake(
    script: str,
    words: list[str],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = in_process(script, monkeypatch, capfd)(*words)
    assert result.code == 2
    assert error in result.errors
    assert not list(tmp_path.iterdir())


def started(folder: Path, *words: str, steps: int) -> tuple[fork_server.Process, list[int]]:
    """Start train/ppo.py, wait until it has saved so many steps; return it and the ids of its children."""
    process = fork_server.start([script_path("ppo"), *words], folder)
    wait_until(lambda: newest_step(folder / "run") >= steps or process.poll() is not None, 60)
    assert process.poll() is None, finished(process)
    return process, children(process.pid)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def finished(process: fork_server.Process) -> Result:
    out, errors = process.communicate(timeout=60)
    return Result(process.wait(), out, errors)


@pytest.mark.slow
def test_run_of_two_processes_stops_in_every_way_and_resumes(tmp_path: Path) -> None:
    """Process 1 dies, then receives SIGTERM; process 0 is killed. Nothing that was saved is lost."""
    end = "training stopped. Checkpoints saved before are intact"
    ways = [
        (1, signal.SIGKILL, 1, f"error: process 1 was killed by SIGKILL; {end}\n"),
        (1, signal.SIGTERM, 143, "interrupted after "),
        (0, signal.SIGKILL, -signal.SIGKILL, ""),
    ]
    words, reached = ENDLESS, 0
    for rank, number, code, error in ways:
        process, (other,) = started(tmp_path, *words, steps=reached + 256)
        os.kill(other if rank else process.pid, number)
        result = finished(process)
        assert result.code == code, result.errors
        assert result.errors.startswith(error)
        assert result.errors.count("\n") == error.count("\n") or code == 143
        assert "2 processes" in result.out.splitlines()
        assert "new episodes start" not in result.out
        wait_until(lambda other=other: _ended(other), 20)
        path, payload, _ = read_newest(tmp_path / "run")
        assert path == checkpoints(tmp_path / "run")[0]
        assert len(payload[OTHERS]) == 1
        assert payload["steps"] > reached
        reached = payload["steps"]
        if code == 143:
            assert f"saved: {path.relative_to(tmp_path)}\n" in result.errors
            assert "resume with: python train/ppo.py --resume run --checkpoint-seconds 0.0" in result.errors
        words = ["--resume", "run", "--checkpoint-seconds", "0"]
    config = read_config(tmp_path / "run")
    assert (config["processes"], config["environment"]["num_envs"]) == (2, 8)


def _ended(pid: int) -> bool:
    """Return whether a process has ended; in a container without an init process, nobody waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", script_path("ppo")]
    words = [*TINY, "--total-steps", "256", "--run-dir", "run"]
    result = finished(fork_server.start([*command, *words], tmp_path))
    assert result.code == 0, result.errors
    assert result.out.count("trained for 256 steps") == 1
    assert len(read_newest(tmp_path / "run")[1][OTHERS]) == 1


@pytest.mark.slow
def test_nth_farthest_trains_in_two_processes(tmp_path: Path) -> None:
    words = ["--total-samples", "512", "--batch-size", "32", "--test-samples", "100", "--run-dir", "run"]
    result = run_script("nth_farthest", *words, "--core", "gru", "--processes", "2", cwd=tmp_path)
    assert (result.code, result.errors) == (0, "")
    assert "trained on 512 samples" in result.out
    assert result.out.count("of 100 questions") == 1
    assert len(read_newest(tmp_path / "run")[1][OTHERS]) == 1

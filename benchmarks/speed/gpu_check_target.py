"""Stage of `gpu_check` that trains in MemoryS13 until 99 % of the episodes are solved."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import ROOT
from benchmarks.speed.gpu_check_session import MAZE, Session

COMMON = f"--env {MAZE} --seed 11 --checkpoint-seconds 1000 --processes 1"
SOLVED = f"rollout/success_rate/{MAZE}"
END_SECONDS = 15.0
"""Seconds for a run to finish its iteration and save."""


@dataclass(frozen=True)
class Trial:
    """A training run."""

    name: str
    flags: str
    seconds: float
    """Time limit."""


ONE_BY_ONE = (
    Trial("rmc, x8", "--scale 8 --precision tf32 --graphs", 60),
    Trial("lstm, x8", "--core lstm --scale 8 --precision tf32 --graphs", 45),
    Trial("rmc, x32", "--scale 32 --precision tf32 --graphs", 45),
)
TOGETHER = (
    Trial("rmc, preset", "--graphs", 120),
    Trial("rmc, preset without graphs", "", 120),
    Trial("lstm, preset", "--core lstm --graphs", 120),
)
"""Runs that share the GPU: the host launches kernels one after the other, so that each uses little of it."""
QUICK = (Trial("rmc, preset", "--total-steps 1024 --num-envs 8 --num-steps 64 --minibatch-size 64", 60),)


def target(session: Session) -> None:
    """Train to the target with large batches, one after the other, then with the presets, at once."""
    with tempfile.TemporaryDirectory() as folder:
        for trial in ONE_BY_ONE if not session.quick else QUICK:
            _run(session, (trial,), Path(folder))
        if not session.quick:
            _run(session, TOGETHER, Path(folder))


def _run(session: Session, trials: tuple[Trial, ...], folder: Path) -> None:
    """Run some trials at once, and note how each ended."""
    limit = min(max(trial.seconds for trial in trials), session.left - END_SECONDS)
    if limit < END_SECONDS:
        for trial in trials:
            session.note("training", run=trial.name, skipped=f"{session.left:.0f} s are left")
        return
    started = time.monotonic()
    running = []
    for trial in trials:
        run_dir = folder / trial.name.replace(",", "").replace(" ", "-")
        words = shlex.split(f"{COMMON} {trial.flags} --device {session.device} --run-dir {run_dir}")
        command = [sys.executable, "train/ppo.py", *words]
        running.append((trial, run_dir, subprocess.Popen(command, cwd=ROOT)))
    for trial, run_dir, process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(limit - (time.monotonic() - started), 0))
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            process.kill()
        code = process.wait()
        seconds = time.monotonic() - started
        session.note("training", run=trial.name, code=code, wall_s=seconds, **_read_log(run_dir))


def _read_log(run_dir: Path) -> dict[str, Any]:
    """Return the figures of a run: steps, seconds, speed and success rates."""
    path = run_dir / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    figures = [line for line in lines if "time/fps" in line]
    if not figures:
        return {"failed": "no iteration"}
    last = figures[-1]
    return {
        "steps": last["step"],
        "training_s": last["time/total_seconds"],
        "steps_per_s": median(line["time/fps"] for line in figures),
        "solved": last.get(SOLVED, last.get("rollout/success_rate")),
        "frontier": last.get("rollout/frontier"),
    }

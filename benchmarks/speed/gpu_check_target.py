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


TRIALS = (
    Trial("rmc, x8", "--scale 8 --precision tf32", 60),
    Trial("lstm, x8", "--core lstm --scale 8 --precision tf32", 45),
    Trial("rmc, preset", "", 60),
    Trial("lstm, preset", "--core lstm", 60),
    Trial("rmc, x32", "--scale 32 --precision tf32", 45),
)
QUICK = (Trial("rmc, preset", "--total-steps 1024 --num-envs 8 --num-steps 64 --minibatch-size 64", 60),)


def target(session: Session) -> None:
    """Train to the target with the presets and with larger batches, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        for trial in TRIALS if not session.quick else QUICK:
            _run(session, trial, Path(folder))


def _run(session: Session, trial: Trial, folder: Path) -> None:
    """Run a trial, and note how it ended."""
    limit = min(trial.seconds, session.left - END_SECONDS)
    if limit < END_SECONDS:
        session.note("training", run=trial.name, skipped=f"{session.left:.0f} s are left")
        return
    run_dir = folder / trial.name.replace(",", "").replace(" ", "-")
    words = shlex.split(f"{COMMON} {trial.flags} --device {session.device} --run-dir {run_dir}")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "train/ppo.py", *words], cwd=ROOT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(limit)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        process.kill()
    code, seconds = process.wait(), time.monotonic() - started
    session.note(
        "training", run=trial.name, flags=trial.flags, code=code, wall_s=seconds, **_read_log(run_dir)
    )


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

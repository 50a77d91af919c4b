"""All checks and measurements that need a GPU, in one command of at most ten minutes.

    python -m benchmarks.speed.gpu_check                        # on a machine with a GPU
    python -m benchmarks.speed.gpu_check --stages triton graphs --seconds 200
    python -m benchmarks.speed.gpu_check --device cpu --quick   # see whether it runs, anywhere: a minute

Each stage has a process and a time limit of its own: one that breaks or hangs costs its own results only.
Stages that no longer fit into --seconds are skipped. A result is one line of JSON in gpu_check.jsonl, written
at once; gpu_check.log holds what the stages print. Both are in --out, by default $OUT or a temporary folder.
Without a CUDA device it says so and exits with 0. With one, 0 means that no check failed, and that no stage
was ended by its time limit.

A machine without a network needs torch, triton, numpy, scipy, matplotlib, tensorboard, jinja2, rich, pip and
setuptools. Bring the rest along (here for Python 3.12 on x86-64), in the versions of constraints.txt:

    pip download --constraint constraints.txt --no-deps --only-binary=:all: --python-version 3.12 \\
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d wheels gymnasium \\
        Farama-Notifications minigrid pygame-ce stable-baselines3 sb3-contrib tyro docstring-parser typeguard

and there, in the folder of the repository:

    pip install --no-index --no-deps --no-compile wheels/*.whl
    pip install --no-index --no-deps --no-build-isolation -e .
    python -m benchmarks.speed.gpu_check
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch

from benchmarks.common import ROOT
from benchmarks.report import Row
from benchmarks.speed.gpu_check_session import RESULTS_FILE
from benchmarks.speed.gpu_check_stages import STAGES

LOG_FILE = "gpu_check.log"
SECONDS = 570.0
KILL_SECONDS = 5.0
"""Seconds for which an ended stage may still run."""


def run_stages(args: argparse.Namespace) -> None:
    """Run the stages, each in a process of its own, until the time is used up."""
    started = time.monotonic()
    for name in args.stages:
        stage = STAGES[name]
        left = args.seconds - (time.monotonic() - started)
        if left < stage.least_seconds:
            note(args.out, stage=name, what="stage", skipped=f"{left:.0f} s are left")
            continue
        limit = min(stage.seconds, left - KILL_SECONDS)
        before = time.monotonic()
        words = [name, "--device", args.device, "--seconds", str(limit), "--folder", str(args.out)]
        with (args.out / LOG_FILE).open("a") as log:
            code = run_limited([*words, *["--quick"] * args.quick], limit, log)
        note(args.out, stage=name, what="stage", code=code, seconds=round(time.monotonic() - before, 1))


def run_limited(words: Sequence[str], seconds: float, log: IO[str]) -> int | str:
    """Run a stage; return its exit code, or "time limit" if it was ended."""
    command = [sys.executable, "-m", "benchmarks.speed.gpu_check_stages", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "time limit"
    finally:  # what the stage started may be alive, too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def note(folder: Path, **facts: Any) -> None:
    """Write a line of JSON to the results, and print it."""
    line = json.dumps(facts)
    print(line, flush=True)
    with (folder / RESULTS_FILE).open("a") as file:
        file.write(line + "\n")


def read_results(folder: Path) -> list[Row]:
    """Return all results."""
    return [json.loads(line) for line in (folder / RESULTS_FILE).read_text().splitlines()]


def summarise(rows: Sequence[Row]) -> list[str]:
    """Return the results as lines of text, failures last."""
    lines = []
    for row in rows:
        facts = {key: x for key, x in row.items() if key not in ("stage", "what") and x is not None}
        lines.append(f"{row['stage']}: {row['what']}: " + ", ".join(f"{key} {x}" for key, x in facts.items()))
    failures = [line for line, row in zip(lines, rows, strict=True) if has_failed(row)]
    return [*lines, "", *(f"FAILED {line}" for line in failures), f"{len(failures)} failed"]


def has_failed(row: Row) -> bool:
    """Return whether a result is a failed check, an exception, or a stage that did not end by itself."""
    return row.get("passed") is False or "failed" in row or row.get("code", 0) not in (0, 143)


def main() -> None:
    """Check and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to see whether it runs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="run only these")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time for all stages")
    parser.add_argument("--out", type=Path, help="folder for the results")
    args = parser.parse_args()
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device")
        return
    args.quick = args.quick or args.device == "cpu"  # a CPU would take hours
    folder = args.out or os.environ.get("OUT") or tempfile.mkdtemp(prefix="gpu-check-")
    args.out = Path(folder).resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / RESULTS_FILE).write_text("")
    run_stages(args)
    rows = read_results(args.out)
    text = "\n".join(summarise(rows))
    print(f"\n{text}\nresults: {args.out}")
    if any(map(has_failed, rows)):
        sys.exit(1)


if __name__ == "__main__":
    main()

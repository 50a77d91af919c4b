"""Attacks on a run folder: forged archives, damaged files, two writers, broken output, hostile names."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

from benchmarks.robustness.forgeries import FORGED, INTACT, Records, records_of
from benchmarks.robustness.kills import warm_up
from benchmarks.robustness.mutations import outcome, scramble
from benchmarks.robustness.processes import (
    SMALL_CORES,
    STEPS,
    TINY,
    exit_code,
    newest_step,
    start,
    tiny_run,
    wait_until,
)
from rmc_agents.runs.checkpoint import newest_intact, read_checkpoint
from rmc_agents.runs.folder import checkpoint_path, checkpoints

NAMES = (
    "sweep[lr=1e-3]", "[/joint]", "[bold]", "{x}", "50 %", "a b", "$HOME", "'quoted'", '"double"', "-rf", "~",
    "\u00e4", "\u202eright to left", "tab\tand\nnewline", "\x1b[31m", "emoji \U0001f9e0", ":smile:",
    "x" * 200, "*?", "#!",
)  # fmt: skip
"""Names of run folders that a terminal, a shell or a display might take for something else."""
SAVE_OFTEN = ("--checkpoint-seconds", "0")


def attack(folder: Path, rounds: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make every attack, and return how many attempts there were and how many did damage.

    Args:
        folder: for the run folders.
        rounds: attempts of each attack on training; archives are tried once in each form, and four names a
            round.
        seed: fixes the damage.
    """
    rng = random.Random(seed)
    warm_up(folder, "gru")
    run_dir = tiny_run(folder)
    attacks = {
        "forged archives that are loaded, and intact ones that are refused": forge_archives(run_dir),
        "resumes in which damaged files displace a good checkpoint": [
            damage_newest(folder / f"damaged-{n}", rng) for n in range(rounds)
        ],
        "second trainers in a run folder that are not refused": [
            write_twice(folder / f"twice-{n}", auto_resume=bool(n % 2)) for n in range(rounds)
        ],
        "runs with a full disk behind stdout that fail": [
            fill_output(folder / f"output-{n}", also_stderr=bool(n % 2)) for n in range(rounds)
        ],
        "run folders with hostile names that cannot be trained and resumed": [
            train_under(folder / "names" / name) for name in NAMES[: 4 * rounds]
        ],
    }
    return [
        {"attack": name, "attempts": len(withstood), "damage": withstood.count(False)}
        for name, withstood in attacks.items()
    ]


def forge_archives(run_dir: Path) -> list[bool]:
    """Return for each form of an archive whether it is loaded with one reading, and refused with two."""
    path = checkpoints(run_dir)[0]
    good = path.read_bytes()
    records = records_of(good)
    others: Records = [(name, content) for name, content in records]
    try:
        results = []
        for form, forge in {**FORGED, **INTACT}.items():
            path.write_bytes(forge(records, others))
            expected = "loaded" if form in INTACT else "refused"
            results.append(outcome(lambda: read_checkpoint(path)) == expected)
    finally:
        path.write_bytes(good)
    return results


def command(run_dir: Path, steps: int, *more: str) -> list[str]:
    """Return the flags of a tiny run."""
    words = [*TINY, "--core", "gru", "--core-options", *SMALL_CORES["gru"], "--run-dir", str(run_dir)]
    return [*words, "--total-steps", str(steps), *SAVE_OFTEN, *more]


def damage_newest(run_dir: Path, rng: random.Random) -> bool:
    """Put damaged files before a run's checkpoints; return whether resuming keeps what is good."""
    keep, output = rng.randint(1, 3), run_dir.with_suffix(".txt")
    flags = ("--keep-checkpoints", str(keep), "--auto-resume")
    if exit_code(start(command(run_dir, 3 * STEPS, *flags), output)):
        raise RuntimeError(output.read_text())
    good = checkpoints(run_dir)[0]
    data = good.read_bytes()
    for n in range(rng.randint(keep, keep + 2)):
        damaged = rng.choice([b"", data[: rng.randrange(len(data))], bytes(len(data)), scramble(data, rng)])
        if damaged != data:
            checkpoint_path(run_dir, 4 * STEPS + n).write_bytes(damaged)
    code = exit_code(start(command(run_dir, 20 * STEPS, *flags), output))
    newest = newest_intact(run_dir)
    return (
        code == 0 and newest == checkpoint_path(run_dir, 20 * STEPS) and len(checkpoints(run_dir)) <= keep + 2
    )


def write_twice(run_dir: Path, auto_resume: bool) -> bool:
    """Start a second trainer in the folder of a running one; return whether it is refused."""
    output, more = run_dir.with_suffix(".txt"), ["--auto-resume"] if auto_resume else []
    first = start(command(run_dir, 10**9), run_dir.with_suffix(".first.txt"))
    try:
        wait_until(lambda: newest_step(run_dir) > 0)
        refused = exit_code(start(command(run_dir, 10**9, *more), output)) == 2
        reached = newest_step(run_dir)
        wait_until(lambda: newest_step(run_dir) > reached)
    finally:
        os.kill(first, signal.SIGTERM)
        code = exit_code(first)
    return refused and code == 143 and "Traceback" not in output.read_text()


def fill_output(run_dir: Path, also_stderr: bool) -> bool:
    """Train with a full disk behind stdout; return whether the run ends with 0 and is saved."""

    def prepare() -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        for descriptor in (1, 2) if also_stderr else (1,):
            os.dup2(full, descriptor)

    code = exit_code(start(command(run_dir, 10 * STEPS), run_dir.with_suffix(".txt"), prepare))
    return code == 0 and newest_step(run_dir) == 10 * STEPS


def train_under(run_dir: Path) -> bool:
    """Train and resume in a folder of a hostile name; return whether both work."""
    run_dir.parent.mkdir(exist_ok=True)
    output = run_dir.parent.parent / "names.txt"
    codes = [exit_code(start(command(run_dir, n * STEPS, "--auto-resume"), output)) for n in (2, 4)]
    return codes == [0, 0] and newest_step(run_dir) == 4 * STEPS

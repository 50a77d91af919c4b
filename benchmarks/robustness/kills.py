"""Kills: a training run that is killed at random moments and resumed must equal an uninterrupted one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.robustness.processes import (
    SMALL_CORES,
    STEPS,
    TINY,
    configure,
    exit_code,
    newest_step,
    start,
    wait_until,
)
from rmc_agents import Trainer, UsageError
from rmc_agents.cli.resume import resumed
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints
from rmc_agents.tree import leaves
from train import ppo

LONGEST = 1.2
"""Longest time from a start to its kill, in seconds."""


def kill_and_resume(folder: Path, kills: int, core: str, seed: int = 0) -> dict[str, Any]:
    """Kill a training run `kills` times, then compare it with an uninterrupted one.

    Args:
        folder: for the run folders.
        kills: number of kills.
        core: a name in `SMALL_CORES`.
        seed: fixes the moments.

    Returns:
        Counts of what was lost or damaged, and whether both training runs are equal.
    """
    rng = random.Random(seed)
    run_dir, output = folder / "run", folder / "output.txt"
    args = [*TINY, "--core", core, "--core-options", *SMALL_CORES[core]]
    warm_up(folder, core)
    command = [*args, "--run-dir", str(run_dir), "--auto-resume"]
    lost = damaged = during_write = 0
    for _ in range(kills):
        # Checkpoints follow each other closely, so that many kills fall into a write.
        process = start([*command, "--checkpoint-seconds", rng.choice(["0", "0", "0.05"])], output)
        wait_for_a_moment(run_dir, output, rng)
        before = newest_step(run_dir)
        os.kill(process, signal.SIGKILL)
        exit_code(process)
        during_write += any((run_dir / "checkpoints").glob(".*.tmp"))
        if not checkpoints(run_dir):
            lost += before > 0
            continue
        try:
            _, payload, skipped = read_newest(run_dir)
            damaged += len(skipped)
            lost += payload["steps"] < before
        except UsageError:
            lost += 1
    tracebacks = output.read_text().count("Traceback") if output.exists() else 0
    if not checkpoints(run_dir):
        raise TimeoutError("no training reached its first checkpoint: too few kills")
    survivor = ppo.build(resumed(run_dir))
    survivor.restore()
    whole = ppo.build(configure([*args, "--run-dir", str(folder / "whole")]))
    while whole.steps < survivor.steps:
        whole.iterate()
    pairs = zip(collect_state(whole), collect_state(survivor), strict=True)
    equal = all(torch.equal(a, b) for a, b in pairs) and whole.iterations == survivor.iterations
    return {
        "core": core,
        "kills": kills,
        "kills during a write": during_write,
        "checkpoints lost": lost,
        "damaged files": damaged,
        "tracebacks": tracebacks,
        "iterations survived": survivor.iterations,
        "equal to an uninterrupted run": "yes" if equal else "no",
        **check_logs(run_dir, survivor.steps),
    }


def wait_for_a_moment(run_dir: Path, output: Path, rng: random.Random) -> None:
    """Wait for a random moment: after the start of a training run, or after its first checkpoint."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0.02, LONGEST))
        return
    reached = newest_step(run_dir)
    try:
        wait_until(lambda: newest_step(run_dir) > reached)
    except TimeoutError as error:
        raise RuntimeError(output.read_text()) from error
    time.sleep(rng.uniform(0, 0.3))


def collect_state(trainer: Trainer) -> list[torch.Tensor]:
    """Return every tensor that the next iteration depends on."""
    moments = [x for s in trainer.optimizer.state.values() for x in s.values()]
    env_state = trainer.env.state_dict() or {}
    state = [x for x in env_state.values() if isinstance(x, torch.Tensor)]
    assert trainer.generator is not None
    rest = [*leaves(trainer.carry), *leaves(trainer.running), trainer.generator.get_state(), *state]
    return [*trainer.agent.parameters(), *moments, *rest]


def warm_up(folder: Path, core: str) -> None:
    """Import everything that a training run imports, so that forks of this process train at once."""
    args = [*TINY, "--total-steps", str(STEPS), "--run-dir", str(folder / f"warm-{core}"), "--core", core]
    trainer = ppo.build(configure([*args, "--core-options", *SMALL_CORES[core]]))
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run()


def check_logs(run_dir: Path, steps: int) -> dict[str, int]:
    """Train for one more iteration, then count the steps that the logs lack or hold twice.

    Args:
        run_dir: a run that was killed while it wrote figures.
        steps: steps of its newest checkpoint; logs are complete up to there.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    process = start(["--resume", str(run_dir), "--total-steps", str(steps + STEPS)], run_dir / "output.txt")
    if exit_code(process):
        raise RuntimeError((run_dir / "output.txt").read_text())
    expected = list(range(STEPS, steps + 2 * STEPS, STEPS))
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in lines if "note" not in line]
    with contextlib.redirect_stderr(io.StringIO()):
        events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    shown = [event.step for event in events.Scalars("time/fps")]
    return {
        "steps missing in log.jsonl": len(set(expected) - set(logged)),
        "steps doubled in log.jsonl": len(logged) - len(set(logged)),
        "steps missing in TensorBoard": len(set(expected) - set(shown)),
        "steps doubled in TensorBoard": len(shown) - len(set(shown)),
    }

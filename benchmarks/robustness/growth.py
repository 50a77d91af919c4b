"""Growth: memory and open files of a training run over many iterations."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import resource
from pathlib import Path

from benchmarks.robustness.processes import SMALL_CORES, STEPS, TINY, configure
from train import ppo


def measure_growth(
    folder: Path, iterations: int, points: int = 10, core: str = "gru"
) -> list[dict[str, float]]:
    """Train, and return memory and open files at `points` equally spaced iterations.

    Args:
        folder: for the run folder.
        iterations: of the training run.
        points: number of measurements.
        core: a name in `SMALL_CORES`.
    """
    args = [*TINY, "--core", core, "--core-options", *SMALL_CORES[core]]
    args += ["--run-dir", str(folder / f"long-{core}"), "--checkpoint-seconds", "0.5"]
    trainer = ppo.build(configure(args))
    trainer.config = dataclasses.replace(trainer.config, total_steps=iterations * STEPS)
    seen: list[dict[str, float]] = []
    iterate = trainer.iterate

    def measured() -> dict[str, float]:
        figures = iterate()
        if trainer.iterations % (iterations // points) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory = pages * resource.getpagesize() / 2**20
            files = len(os.listdir("/proc/self/fd"))
            seen.append({"iteration": trainer.iterations, "memory (MiB)": memory, "open files": files})
        return figures

    trainer.iterate = measured  # type: ignore[method-assign]
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run()
    return seen

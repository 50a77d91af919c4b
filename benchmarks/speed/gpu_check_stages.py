"""One stage of `gpu_check`, in this process; `gpu_check` calls it.

python -m benchmarks.speed.gpu_check_stages speed --device cuda --seconds 120 --folder results
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed.gpu_check_commands import commands
from benchmarks.speed.gpu_check_device import checks, machine
from benchmarks.speed.gpu_check_kernels import compiled, graphs, triton
from benchmarks.speed.gpu_check_session import Session
from benchmarks.speed.gpu_check_target import target
from benchmarks.speed.gpu_check_tasks import cores, task_speed, tasks
from benchmarks.speed.gpu_check_training import kernels, resume, speed, waits


@dataclass(frozen=True)
class Stage:
    """A part of `gpu_check`."""

    run: Callable[[Session], None]
    seconds: int
    """Time limit."""
    least_seconds: int = 15
    """It is skipped if fewer are left."""


STAGES = {
    "machine": Stage(machine, 45),
    # Before all that trains: it compiles the kernels, which are then read from Triton's cache.
    "triton": Stage(triton, 110),
    "checks": Stage(checks, 90),
    "waits": Stage(waits, 40),
    "resume": Stage(resume, 40),
    "graphs": Stage(graphs, 70),
    "cores": Stage(cores, 150),
    "tasks": Stage(tasks, 120),
    "task-speed": Stage(task_speed, 90),
    "commands": Stage(commands, 120),
    "speed": Stage(speed, 150, least_seconds=30),
    "target": Stage(target, 250, least_seconds=60),
    "kernels": Stage(kernels, 40),
    "compiled": Stage(compiled, 180, least_seconds=90),
}
"""In order of importance: later ones are skipped when the time is used up."""


def run_stage(name: str, device: torch.device, quick: bool, folder: Path, seconds: float) -> None:
    """Run a stage; its results are appended to a file in `folder`."""
    warnings.filterwarnings("ignore", category=UserWarning)  # torch's, about itself
    torch.set_num_threads(1)
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        device = torch.device("cuda", torch.cuda.current_device())
    STAGES[name].run(Session(name, device, quick, folder, seconds))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=STAGES)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--seconds", type=float, default=600.0)
    args = parser.parse_args(arguments)
    run_stage(args.name, args.device, args.quick, args.folder, args.seconds)


if __name__ == "__main__":
    main()

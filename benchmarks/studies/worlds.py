"""Worlds in which a memory relates, binds or is rewritten, from rewards, by memory core.

    python -m benchmarks.studies.worlds                                # all runs without a result: half a day
    python -m benchmarks.studies.worlds --tasks memory-maze --agents gru
    python -m benchmarks.studies.worlds --report                       # from stored results
    python -m benchmarks.studies.worlds --quick                        # tiny runs: a minute

Each run is `python train/ppo.py --env ID`, then `python train/evaluate.py`. Results are stored in
results/worlds/RUN.json. The study can be stopped at any time: the same command resumes it.
"""

from __future__ import annotations

from benchmarks.studies import control_study
from benchmarks.studies.control_runs import SEEDS, Job, Study, Task, by_name

TASKS = {
    "endless-t-maze": Task("rmc/EndlessTMaze-v0", 600_000),
    "memory-maze": Task("rmc/MemoryMaze-9x9-v0", 3_000_000),
    "box-world": Task("rmc/BoxWorldViewport-v0", 10_000_000, options=("max_solution=3",)),
    "memory-maze-gpu": Task(
        "rmc/MemoryMaze-9x9-v0", 60_000_000, gpu=("--scale", "16", "--precision", "tf32")
    ),
    "box-world-teacher": Task(
        "rmc/BoxWorldViewport-v0",
        5_000_000,
        options=("max_solution=3", "targets=chain"),
        teacher=(
            *("--teacher-coef", "10", "--aux-coef", "40", "--num-envs", "128", "--num-steps", "32"),
            *("--bptt-length", "32", "--minibatch-size", "256", "--epochs", "1"),
            *("--learning-rate", "1e-3", "--learning-rate-end", "1e-4"),
        ),
        agents={
            "entity_delta": (
                *("--core-options", "value_size=48", "num_hops=3", "odometer_size=16"),
                *("--cell-size", "24", "--cell-names", "64", "--cell-neighbours"),
            ),
        },
    ),
    "box-world-gpu": Task(
        "rmc/BoxWorldViewport-v0",
        90_000_000,
        options=("max_solution=3",),
        gpu=("--num-envs", "4096", "--minibatch-size", "16384", "--precision", "tf32"),
    ),
}

WITH_CELLS = ("memory-maze", "box-world", "box-world-teacher", "memory-maze-gpu", "box-world-gpu")
"""Tasks whose views are grids of cells."""

STUDY = Study(
    "worlds",
    "Worlds for relational memory",
    TASKS,
    by_name(
        [
            *(Job(task, core, seed) for task in TASKS for seed in SEEDS for core in ("gru", "rmc")),
            *(Job(task, "entity_delta", seed) for task in WITH_CELLS for seed in SEEDS),
            *(Job(task, "feedforward", SEEDS[0]) for task in TASKS),
        ]
    ),
    notes=[
        "On a GPU: trained on one NVIDIA H100 or H200, with six to nine runs on it at the same time, and "
        "evaluated on the CPU of the machine below.",
    ],
)


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    control_study.main(STUDY, __doc__)


if __name__ == "__main__":
    main()

"""POPGym's tasks from rewards, by memory core: those that a recurrent memory solves, and those that are hard.

    python -m benchmarks.studies.popgym                               # all runs without a result: four hours
    python -m benchmarks.studies.popgym --tasks autoencode-easy --agents gru
    python -m benchmarks.studies.popgym --report                      # from stored results
    python -m benchmarks.studies.popgym --quick                       # tiny runs: a minute

Each run is `python train/ppo.py --env popgym-...`, then `python train/evaluate.py`. Results are stored in
results/popgym/RUN.json. The study can be stopped at any time: the same command resumes it.
"""

from __future__ import annotations

from benchmarks.studies import control_study
from benchmarks.studies.control_runs import SEEDS, Job, Study, Task, by_name

SOLVED = {
    "repeat-previous-easy": Task("popgym-RepeatPreviousEasy-v0", 1_500_000, level=0.95),
    "repeat-first-easy": Task("popgym-RepeatFirstEasy-v0", 1_000_000, level=0.95),
    "repeat-first-medium": Task("popgym-RepeatFirstMedium-v0", 1_500_000, level=0.95),
    "cart-pole-easy": Task("popgym-PositionOnlyCartPoleEasy-v0", 1_000_000, level=0.95),
    "cart-pole-medium": Task("popgym-PositionOnlyCartPoleMedium-v0", 1_000_000, level=0.95),
    "cart-pole-hard": Task("popgym-PositionOnlyCartPoleHard-v0", 1_000_000, level=0.95),
}
"""Tasks that published agents solve, too."""
HARD = {
    "autoencode-easy": Task(
        "popgym-AutoencodeEasy-v0",
        1_000_000,
        level=0.495,
        # At first their memories last, too.
        agents={
            "rmc": ("--core-options", "forget_bias=3", "input_bias=-2", "normalize_output=True"),
            "gru": ("--core-options", "update_bias=3"),
        },
    ),
    "autoencode-medium": Task("popgym-AutoencodeMedium-v0", 2_500_000, level=-0.42),
    "autoencode-hard": Task("popgym-AutoencodeHard-v0", 2_500_000, level=-0.448),
    "repeat-previous-medium": Task(
        "popgym-RepeatPreviousMedium-v0", 600_000, level=0.789, agents={"gtrxl": ("--clock", "0")}
    ),
    "repeat-previous-hard": Task("popgym-RepeatPreviousHard-v0", 1_500_000, level=0.191),
    "count-recall-easy": Task("popgym-CountRecallEasy-v0", 2_500_000, level=0.509),
    "count-recall-medium": Task("popgym-CountRecallMedium-v0", 2_500_000, level=-0.516),
    "count-recall-hard": Task("popgym-CountRecallHard-v0", 2_500_000, level=-0.424),
}
"""Tasks on which published agents fail; the levels are the best published scores."""
ON_GPU = {
    "concentration-easy-gpu": Task(
        "popgym-ConcentrationEasy-v0", 60_000_000, gpu=("--scale", "32", "--precision", "tf32")
    ),
}
"""Tasks that need more steps than a CPU makes in an hour."""
CHOSEN = {
    "autoencode-easy": ("gated_delta", "delta_rmc", "shm", "gru", "rmc"),
    "autoencode-medium": ("gated_delta",),
    "autoencode-hard": ("gated_delta",),
    "repeat-previous-medium": ("gated_delta", "gtrxl"),
    "repeat-previous-hard": ("gated_delta",),
    "count-recall-easy": ("lstm",),
    "count-recall-medium": ("gated_delta",),
    "count-recall-hard": ("gated_delta",),
}
"""The best cores of those that were tried, each with seed 101, and what others do on one of the tasks."""

STUDY = Study(
    "popgym",
    "POPGym",
    SOLVED | HARD | ON_GPU,
    by_name(
        [
            *(Job(task, core, seed) for seed in SEEDS for task, cores in CHOSEN.items() for core in cores),
            *(Job(task, "lstm", SEEDS[0]) for task in ("count-recall-medium", "count-recall-hard")),
            *(Job(task, core, seed) for seed in SEEDS for core in ("rmc", "gru") for task in SOLVED),
            *(Job(task, core, seed) for seed in SEEDS for core in ("gru", "rmc") for task in ON_GPU),
        ]
    ),
    notes=[
        "Steps to a level: the first point of a learning curve at which the mean of three points is at it. "
        "In training, actions are drawn.",
        "On a GPU: trained on one NVIDIA H100 or H200, with six to nine runs on it at the same time, and "
        "evaluated on the CPU of the machine below.",
    ],
)


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    control_study.main(STUDY, __doc__)


if __name__ == "__main__":
    main()

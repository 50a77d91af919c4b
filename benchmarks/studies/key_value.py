"""Key-value recall from rewards: eight pairs of 16 keys and 8 values, by memory core.

    python -m benchmarks.studies.key_value                                # all runs: two hours
    python -m benchmarks.studies.key_value --agents gated_delta --seeds 11
    python -m benchmarks.studies.key_value --report                       # from stored results
    python -m benchmarks.studies.key_value --quick                        # tiny runs: a minute

Each run is `python train/ppo.py --env rmc/KeyValue-v0`, then `python train/evaluate.py`. Results are stored
in results/key_value/RUN.json. The study can be stopped at any time: the same command resumes it.
"""

from __future__ import annotations

from benchmarks.studies import control_study
from benchmarks.studies.control_runs import SEEDS, Job, Study, Task, by_name
from rmc_agents.cli.task_presets import KEY_VALUE

CORES = (
    *("gated_delta", "delta_rmc", "rmc", "gru", "mingru", "feedforward"),
    *("shm", "gtrxl", "lstm", "dnc", "lru", "rnn", "entity_delta"),
)
TASK = Task("rmc/KeyValue-v0", KEY_VALUE.ppo.total_steps, level=0.94)
"""A return of 0.94 is a share of 97 % of right answers."""

STUDY = Study(
    "key_value",
    "Key-value recall",
    {"key-value": TASK},
    by_name(
        [
            Job("key-value", core, seed)
            for seed in SEEDS
            for core in CORES
            if core != "feedforward" or seed == SEEDS[0]
        ]
    ),
    notes=[
        "The preset was chosen with other seeds, with the gated delta core. The share of right answers is "
        "(1 + return) / 2: 1 / 8 without a memory, a return of -0.75.",
        "Steps to a level: the first point of a learning curve at which the mean of three points is at it. "
        "In training, actions are drawn.",
    ],
)


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    control_study.main(STUDY, __doc__)


if __name__ == "__main__":
    main()

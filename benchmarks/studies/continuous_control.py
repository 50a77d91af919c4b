"""Control with hidden velocities: our cores and sb3-contrib's RecurrentPPO at equal steps.

    python -m benchmarks.studies.continuous_control                          # all runs without a result: days
    python -m benchmarks.studies.continuous_control --tasks pendulum --seeds 11
    python -m benchmarks.studies.continuous_control --report                 # from stored results
    python -m benchmarks.studies.continuous_control --quick                  # tiny runs: a minute

Our runs are `python train/ppo.py` with the task's preset, then `python train/evaluate.py`; RecurrentPPO has
the settings of rl-zoo3. Results are stored in results/continuous_control/RUN.json. The study can be stopped
at any time: the same command resumes it (a run of RecurrentPPO starts again).
"""

from __future__ import annotations

from torch import nn

from benchmarks.studies import control_study
from benchmarks.studies.control_runs import SEEDS, Job, Sb3Settings, Study, Task, by_name

AGENTS = ("rmc", "gru", "lstm", "feedforward", "sb3")
"""Feedforward has no memory and shows what the velocities are worth."""

_MUJOCO = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": nn.ReLU,
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
"""Policy of the zoo's settings for MuJoCo."""

TASKS = {
    "pendulum": Task(
        "rmc/MaskedPendulum-v0",
        300_000,
        Sb3Settings(
            False,
            4,
            {
                "n_steps": 1024,
                "gamma": 0.9,
                "learning_rate": 1e-3,
                "use_sde": True,
                "sde_sample_freq": 4,
            },
        ),
    ),
    "cartpole": Task(
        "rmc/MaskedCartPole-v0",
        200_000,
        Sb3Settings(
            False,
            8,
            {
                "n_steps": 32,
                "batch_size": 256,
                "gae_lambda": 0.8,
                "gamma": 0.98,
                "n_epochs": 20,
                "learning_rate": 1e-3,
                "clip_range": 0.2,
            },
            linear=("learning_rate", "clip_range"),
        ),
    ),
    "halfcheetah": Task(
        "rmc/MaskedHalfCheetah-v0",
        1_000_000,
        Sb3Settings(
            True,
            1,
            {
                "n_steps": 512,
                "batch_size": 64,
                "gamma": 0.98,
                "learning_rate": 2.0633e-5,
                "ent_coef": 0.000401762,
                "clip_range": 0.1,
                "n_epochs": 20,
                "gae_lambda": 0.92,
                "max_grad_norm": 0.8,
                "vf_coef": 0.58096,
                "policy_kwargs": _MUJOCO,
            },
        ),
    ),
    "hopper": Task(
        "rmc/MaskedHopper-v0",
        1_000_000,
        Sb3Settings(
            True,
            1,
            {
                "n_steps": 512,
                "batch_size": 32,
                "gamma": 0.999,
                "learning_rate": 9.80828e-5,
                "ent_coef": 0.00229519,
                "clip_range": 0.2,
                "n_epochs": 5,
                "gae_lambda": 0.99,
                "max_grad_norm": 0.7,
                "vf_coef": 0.835671,
                "policy_kwargs": _MUJOCO,
            },
        ),
    ),
    "walker2d": Task(
        "rmc/MaskedWalker2d-v0",
        1_000_000,
        Sb3Settings(
            True,
            1,
            {
                "n_steps": 512,
                "batch_size": 32,
                "gamma": 0.99,
                "learning_rate": 5.05041e-5,
                "ent_coef": 0.000585045,
                "clip_range": 0.1,
                "n_epochs": 20,
                "gae_lambda": 0.95,
                "max_grad_norm": 1.0,
                "vf_coef": 0.871923,
                "policy_kwargs": _MUJOCO,
            },
        ),
    ),
    "ant": Task("rmc/MaskedAnt-v0", 1_000_000, Sb3Settings(True, 1)),
}
"""Tasks by their name in the study."""

STUDY = Study(
    "continuous_control",
    "Control with hidden velocities",
    TASKS,
    # All runs of one seed come before those of the next.
    by_name([Job(task, agent, seed) for seed in SEEDS for task in TASKS for agent in AGENTS]),
    "RecurrentPPO",
    {"sb3": "sb3-contrib RecurrentPPO"},
    [
        "Our agents have the presets of the tasks; RecurrentPPO has the settings of rl-zoo3's ppo_lstm.yml, "
        "which were tuned by the zoo for the task without velocities (Pendulum, CartPole) or for the full "
        "task (MuJoCo). The feedforward agent is the control without memory.",
    ],
)


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    control_study.main(STUDY, __doc__)


if __name__ == "__main__":
    main()

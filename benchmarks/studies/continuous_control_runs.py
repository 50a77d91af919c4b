"""The runs of the study of control with hidden velocities: tasks, budgets, agents, and SB3's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

SEEDS = (11, 12, 13)
"""None of them was used to choose settings."""
SB3 = "sb3"
CORES = ("rmc", "gru", "lstm", "feedforward")
"""Our agents; the last has no memory and shows what the velocities are worth."""
AGENTS = (*CORES, SB3)
NAMES = {SB3: "sb3-contrib RecurrentPPO"}
"""Names of agents that are none of our cores."""


@dataclass(frozen=True)
class Sb3Settings:
    """Settings of `RecurrentPPO` for one task."""

    normalize: bool
    """Whether `VecNormalize` normalises observations and rewards."""
    num_envs: int
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of `RecurrentPPO`."""
    linear: tuple[str, ...] = ()
    """Of these, the names of those that fall to 0 over the run."""


@dataclass(frozen=True)
class Task:
    """A task of the study."""

    env_id: str
    steps: int
    """Environment steps of every agent."""
    sb3: Sb3Settings
    """From rl-zoo3's ppo_lstm.yml: of the task without velocities if it has that, else of the full task."""


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


@dataclass(frozen=True)
class Job:
    """One run of the study."""

    task: str
    """A key of `TASKS`."""
    agent: str
    """One of `AGENTS`."""
    seed: int

    @property
    def name(self) -> str:
        """Name of the run folder and of the result."""
        return f"{self.task}-{self.agent}-s{self.seed}"


JOBS = {
    job.name: job for seed in SEEDS for task in TASKS for agent in AGENTS for job in [Job(task, agent, seed)]
}
"""All runs by name; those of one seed come before those of the next."""

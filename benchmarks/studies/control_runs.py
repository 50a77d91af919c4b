"""Parts of the studies of control: tasks, runs, and settings of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SEEDS = (11, 12, 13)
"""None of them was used to choose settings."""


@dataclass(frozen=True)
class Sb3Settings:
    """Settings of an SB3 algorithm for one task."""

    normalize: bool = False
    """Whether `VecNormalize` normalises observations and rewards."""
    num_envs: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the algorithm."""
    linear: tuple[str, ...] = ()
    """Of these, the names of those that fall to 0 over the run."""
    steps: int | None = None
    """Environment steps; None for those of the task."""


@dataclass(frozen=True)
class Task:
    """A task of a study."""

    env_id: str
    steps: int
    """Environment steps of the agents."""
    sb3: Sb3Settings = field(default_factory=Sb3Settings)
    """Settings of rl-zoo3."""
    level: float | None = None
    """A mean return that is reported by the step from which training has it."""
    options: Sequence[str] = ()
    """Options of the environment, as in `--env-options`."""
    gpu: Sequence[str] = ()
    """Flags of `train/ppo.py` for training on a GPU; none for training on a CPU."""
    teacher: Sequence[str] = ()
    """Flags of `train/ppo.py` for learning from the task's teacher; none for learning from rewards alone."""
    agents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Flags of `train/ppo.py` that only agents with some core have, by core."""

    @property
    def title(self) -> str:
        """Name in tables and figures."""
        how = ["on a GPU"] * bool(self.gpu) + ["with a teacher"] * bool(self.teacher)
        return ", ".join([self.env_id, *self.options, *how])

    @property
    def flags(self) -> list[str]:
        """Flags of `train/ppo.py` that all runs share."""
        options = ["--env-options", *self.options] if self.options else []
        device = [*self.gpu, "--device", "cuda"] if self.gpu else []
        return ["--env", self.env_id, *options, "--total-steps", str(self.steps), *self.teacher, *device]


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    task: str
    """Name of the task in the study."""
    agent: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run folder and of the result."""
        return f"{self.task}-{self.agent}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """Our cores and an algorithm of SB3 on tasks of control."""

    name: str
    """Last part of the Python module, and name of the files."""
    title: str
    tasks: Mapping[str, Task]
    """By their name in the study."""
    jobs: Mapping[str, Job]
    """All runs by name, in the order in which they are made."""
    algorithm: Literal["PPO", "RecurrentPPO"] = "PPO"
    """Of SB3."""
    sb3: Mapping[str, str] = field(default_factory=dict)
    """Agents of SB3, and their names in tables and figures. "sb3" has the settings of the task, any other the
    algorithm's defaults."""
    notes: Sequence[str] = ()
    """How it was measured."""

    @property
    def agents(self) -> list[str]:
        """All agents: our cores, and those of SB3."""
        return list(dict.fromkeys(job.agent for job in self.jobs.values()))

    @property
    def module(self) -> str:
        """Python module of the study."""
        return f"benchmarks.studies.{self.name}"

    def settings_of(self, job: Job) -> Sb3Settings:
        """Return the settings of a run of SB3."""
        return self.tasks[job.task].sb3 if job.agent == "sb3" else Sb3Settings()


def by_name(jobs: Sequence[Job]) -> dict[str, Job]:
    """Return runs by name."""
    return {job.name: job for job in jobs}

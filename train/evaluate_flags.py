"""Flags of `python train/evaluate.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

import rmc_envs
from rmc_agents.cli.config import Imports
from rmc_agents.cli.flags import require, require_seed
from rmc_agents.cli.start import command_name
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.episodes import FIRST_SEED
from rmc_agents.options import Options

MAX_EPISODES = 10_000_000


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate trained agents on episodes that they have never seen."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is evaluated), or single checkpoints in them."""
    env: str | None = None
    """Gymnasium ids, separated by commas. Without this and without a suite, each run is evaluated in its own
    environment."""
    env_options: Options = field(default_factory=dict)
    """Options of these environments, such as max_solution=5 for Box-World. They replace those of training;
    the results are named after those that differ."""
    suite: rmc_envs.Suite | None = None
    """memory-mazes: MiniGrid's six, then S17, S25, S33 and S65 of fixed length, at the agent's view size.
    popgym-easy, popgym-medium, popgym-hard: each run in the task of POPGym's level that it was trained in,
    and a table of all tasks."""
    memoryless: Path | None = None
    """Run of a core without memory, as a baseline in the same episodes: with the options of the evaluated
    run."""
    episodes: int = 1000
    """Number of complete episodes in each environment."""
    seed: int = FIRST_SEED
    """Episode j starts in an environment seeded with seed + j; the default is far from training seeds."""
    device: str = "auto"
    """auto (cuda if there is a GPU), cpu, cuda, cuda:1, ..."""
    stochastic: bool = False
    """Draw actions as in training, instead of taking the most likely one."""
    implementation: Literal["auto", "farama", "batched"] = "auto"
    """farama: MiniGrid's own environments, one by one; batched: the native batch; auto: farama for the ids
    that MiniGrid registers, batched for all other native tasks."""
    imports: Imports = ()
    """Module that registers cores or tasks of your own; one flag per module. Those that a run
    remembers are imported anyway."""
    gif: bool = True
    """Draw the first episodes into media/; of a suite, only in the mazes that the run was trained for."""
    heads: bool = False
    """In these pictures, show the attention of an RMC by head, instead of the mean over heads."""
    report: bool = True
    """Make plots, and report.html in the run folder."""
    output: Path | None = None
    """Folder for figures, pictures and report, one for each run if there are several. Without this they go
    into the run folder or, if that is one of the trained agents of this package or cannot be written, into
    evaluations/NAME."""
    out: Path = Path("comparison")
    """Folder for comparison.md and the plots of several runs."""


def require_valid(config: EvaluateConfig) -> None:
    """Raise UsageError for flags that make no sense."""
    if not config.runs:
        raise UsageError(f"give at least one run folder: {command_name('evaluate')} runs/NAME")
    require("episodes", config.episodes, 1 <= config.episodes <= MAX_EPISODES, f"1 to {MAX_EPISODES:,}")
    require_seed(config.seed, config.episodes)
    if config.env is not None and config.suite in rmc_envs.OWN_TASK_ONLY:
        raise UsageError(
            f"--suite {config.suite} evaluates each run in the task that it was trained in: leave out --env"
        )
    if config.env_options and config.suite is not None:
        raise UsageError(f"--env-options changes the tasks of --suite {config.suite}: leave out one of them")

"""The flags of `train/probe.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rmc_agents.agent.saved import Run, split_ids
from rmc_agents.cli.config import Imports
from rmc_agents.cli.flags import require, require_seed
from rmc_agents.cli.start import command_name
from rmc_agents.errors import UsageError

MAX_EPISODES, MAX_STEPS = 1_000_000, 100_000
WITH_CUE, WITH_OBJECTS = (2000, 40), (200, 500)
"""Default number of episodes, and of steps of each."""


@dataclass(frozen=True)
class ProbeConfig:
    """Read the memory of agents with linear probes, and exchange parts of it between episodes."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is read), or single checkpoints in them. The memories of
    several runs are compared on one plot."""
    env: str | None = None
    """Ids of tasks that report where their cue is, such as Memory mazes, or where their objects are,
    separated by commas; each run's own if not given."""
    episodes: int | None = None
    """Number of episodes to record in each environment; if not given, 2000 with a cue, 200 with objects."""
    steps: int | None = None
    """Number of steps to record of an episode; if not given, 40 with a cue, 500 with objects. RAM use grows
    with it."""
    seed: int = 2_000_000
    """Seed of the episodes; the default is far from the seeds of training and of evaluation."""
    deterministic: bool = False
    """Take the most likely actions, instead of drawing actions as in training. There are then no more
    different episodes than a maze has starts."""
    random_actions: float = 0.0
    """Share of steps, 0 to 1, with an action drawn uniformly instead of the agent's, so that episodes differ
    more."""
    swap_after: int = 2
    """Number of steps since the cue was last in view at which parts of the memory are exchanged (in tasks
    with a cue)."""
    swap: bool = True
    """Exchange parts of the memory between episodes (in tasks with a cue)."""
    imports: Imports = ()
    """Module that registers cores or tasks of your own; one flag per module. Those that a run
    remembers are imported anyway."""
    output: Path | None = None
    """Folder for figures and pictures, one for each run if there are several. Without this they go into the
    run folder or, if that is one of the trained agents of this package or cannot be written, into
    evaluations/NAME."""
    device: str = "auto"
    """auto (cuda if there is a GPU), cpu, cuda, cuda:1, ..."""


def require_valid(config: ProbeConfig) -> None:
    """Raise UsageError for flags that make no sense."""
    if not config.runs:
        raise UsageError(f"give at least one run folder: {command_name('probe')} runs/NAME")
    for name, most in (("episodes", MAX_EPISODES), ("steps", MAX_STEPS)):
        number = getattr(config, name)
        if number is not None:
            require(name, number, 2 <= number <= most, f"2 or more, up to {most:,}")
    require("random-actions", config.random_actions, 0 <= config.random_actions <= 1, "a share from 0 to 1")
    after = config.swap_after
    require("swap-after", after, 1 <= after <= MAX_STEPS, f"1 or more, up to {MAX_STEPS:,}")
    require_seed(config.seed, config.episodes or max(WITH_CUE))


def env_ids_for(run: Run, config: ProbeConfig) -> list[str]:
    """Return the environments in which a run is probed."""
    env_ids = split_ids(config.env) if config.env is not None else run.env_ids
    if not env_ids:
        raise UsageError(f"{run.folder}/config.json does not name an environment: choose an --env")
    return env_ids

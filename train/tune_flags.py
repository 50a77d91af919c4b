"""Flags of `python train/tune.py`: those of the sweep, and the settings that it starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import MAX_EVAL_EPISODES, Imports, RunConfig, RunOptions
from rmc_agents.environment import EnvConfig
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.tuning.curve import ScoreName
from rmc_agents.tuning.study import PrunerName

MAX_WORKERS, MAX_SEEDS, MAX_POINTS = 256, 100, 1000


@dataclass(frozen=True)
class TuneOptions:
    """Sweep: trials, score, search space, storage."""

    trials: int = 50
    """Trials of the whole study. The same command continues a study up to that number."""
    timeout: float | None = None
    """Seconds after which no further trial starts; those that are running end. None for no limit."""
    seeds: int = 2
    """Runs of each trial, with the seeds 700,000,000 and up; its score is the mean of theirs."""
    score: ScoreName = "area"
    """Score of a run: area (mean of its learning curve) or final (the last point of it). A point is the
    success rate where the task reports one, else the mean return."""
    points: int = 10
    """Points of a learning curve, at which a trial may also be pruned."""
    score_episodes: int = 0
    """Episodes of the evaluation at each point, on episodes of which training sees none. 0 scores the
    training episodes between two points, which costs nothing."""
    pruner: PrunerName = "median"
    """median: end a trial that is below the median of others at the same point; hyperband: give few trials
    many steps; none: let every trial end."""
    search: tuple[str, ...] = ()
    """What to vary, and where: `--search learning_rate=1e-4:1e-2:log num_slots=2,4,8`. It replaces the
    default of these settings, and adds settings that have none."""
    search_only: bool = False
    """Vary nothing but what --search names."""
    study: str | None = None
    """Name of the study; ENV-CORE if not given. Its folder is runs/studies/NAME."""
    storage: str | None = None
    """A file for SQLite, or a URL that Optuna knows; study.db in the study's folder if not given."""
    workers: int = 1
    """Processes that make trials, one CPU thread each. The same command may also be started several times."""
    sampler_seed: int = 0
    """Fixes what is drawn (with one worker)."""
    keep: Literal["all", "best"] = "all"
    """Whose run folders to keep: those of all trials, or of the best one only."""
    export: Path | None = None
    """Write the scores of all complete trials, and of each of their seeds, as JSON in rliable's shape."""
    target_success_rate: float | None = None
    """End a run once this share of its latest 1000 episodes is solved; its curve keeps its last point from
    then on."""
    device: str = "cpu"
    """cpu, cuda, ..."""
    imports: Imports = ()
    """Module that registers user-defined cores or tasks; one flag per module."""
    preset: bool = True
    """Start from the tuned settings of --env, if it has a preset."""
    preset_file: Path | None = None
    """Start from the settings in this file instead."""

    def __post_init__(self) -> None:
        checks = {
            "trials": (self.trials >= 1, "1 or more"),
            "timeout": (self.timeout is None or 0 < self.timeout < float("inf"), "more than 0 seconds"),
            "seeds": (1 <= self.seeds <= MAX_SEEDS, f"1 to {MAX_SEEDS}"),
            "points": (1 <= self.points <= MAX_POINTS, f"1 to {MAX_POINTS}"),
            "score_episodes": (0 <= self.score_episodes <= MAX_EVAL_EPISODES, f"0 to {MAX_EVAL_EPISODES:,}"),
            "workers": (1 <= self.workers <= MAX_WORKERS, f"1 to {MAX_WORKERS}"),
            "sampler_seed": (0 <= self.sampler_seed < 2**31, "0 to 2^31 - 1"),
            "study": (self.study != "", "a name"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise ValueError(f"{name}={getattr(self, name)}: expected {expected}")


@dataclass(frozen=True)
class TuneConfig:
    """Search for the settings of an agent with a memory, in one environment.

    The flags of environment, agent and PPO are those of `train/ppo.py`. Together they are the settings of the
    first trial; a setting that has a flag on the command line is fixed.
    """

    tune: TuneOptions = field(default_factory=TuneOptions)
    environment: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)

    def base(self) -> RunConfig:
        """Return the configuration that the search starts from."""
        tune = self.tune
        run = RunOptions(
            preset=tune.preset,
            preset_file=tune.preset_file,
            target_success_rate=tune.target_success_rate,
            device=tune.device,
            imports=tune.imports,
            processes=1,
        )
        return RunConfig(self.environment, self.agent, self.ppo, run)


def starting_from(config: RunConfig) -> TuneConfig:
    """Return the defaults of all flags, where those of training are given."""
    tune = TuneOptions(
        target_success_rate=config.run.target_success_rate,
        imports=config.run.imports,
        preset=config.run.preset,
        preset_file=config.run.preset_file,
    )
    return TuneConfig(tune, config.environment, config.agent, config.ppo)

"""Flags of `python train/ppo.py`: every field is a flag, and its docstring the flag's help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_args

import tyro

from rmc_agents.agent.acceleration import Precision
from rmc_agents.agent.config import AgentConfig
from rmc_agents.environment import EnvConfig
from rmc_agents.options import Options, require_types
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.training.trackers import TrackerName

Imports = Annotated[
    tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE"), tyro.conf.UseAppendAction
]
"""Modules to import, one for each `--import`."""


MAX_THREADS = 1024
"""Torch ends the process where it is asked for many more."""
MAX_SCALE = 4096
"""Largest `scale`: with the presets, 262,144 environments or more."""
MAX_EVAL_EPISODES = 1_000_000
"""Largest number of episodes in an evaluation during training."""
MAX_PROCESSES = 1024
"""Largest number of processes of one machine."""


@dataclass(frozen=True)
class RunOptions:
    """Run: device, run folder, checkpoints, stopping."""

    preset: bool = True
    """Use the tuned settings of --env as defaults, if it has a preset."""
    preset_file: Path | None = None
    """Use the settings in this file as defaults instead: the best.json of a sweep of `train/tune.py`."""
    scale: int = 1
    """For a GPU, or many cores: defaults with so many times the environments, the minibatch size and the
    steps, so that an iteration has as many gradient steps as before, and a learning rate that fits them."""
    match_parameters: int | None = None
    """Size the core to about so many parameters (within 3 %), for comparisons of cores. Only those of the
    core count, not those of encoder and heads; --core-options then cannot set its width."""
    target_success_rate: float | None = None
    """Stop once this share of the latest 1000 episodes of --env is solved (of all training tasks, if --env
    is not one of them); None uses the whole budget."""
    seed: int = 0
    """Fixes weights, actions, minibatches and episodes."""
    device: str = "auto"
    """auto (cuda if there is a GPU and the task runs on it or minibatches are large, else cpu), cpu, cuda,
    cuda:1, ..."""
    threads: int = 1
    """CPU threads of torch, in each process. One is the fastest at the default sizes; 0 leaves the choice to
    torch."""
    processes: int = 0
    """Processes that train together, each on its share of the environments and of every minibatch. 0 chooses
    by cores and sizes. A seed gives the same run for the same number only. torchrun sets it by itself."""
    precision: Precision = "float32"
    """float32; for a GPU also tf32 (matrix products in TensorFloat-32: 10 bits of mantissa instead of 23,
    several times as fast) or bf16 (in bfloat16). On a CPU tf32 is float32, and bf16 slower."""
    compile: bool = False
    """Compile the networks with torch.compile (on a GPU: CUDA graphs). Starting takes a minute or more."""
    graphs: bool = True
    """On a GPU, launch whole rollouts and gradient steps as CUDA graphs, since the host launches kernels more
    slowly than the GPU computes: five times as fast at the presets' sizes."""
    imports: Imports = ()
    """Module that registers user-defined cores or tasks; one flag per module. The run folder remembers
    them."""
    run_dir: Path | None = None
    """Run folder; runs/ENV-CORE-SEED if not given."""
    init_from: Path | None = None
    """Start from the weights of this trained agent (a run folder, a checkpoint, or a shared folder), with its
    core and sizes as defaults and all else new: for a curriculum of tasks, or another reward."""
    resume: Path | None = None
    """Run folder to resume, from its newest intact checkpoint; other settings are read from it,
    except --total-steps, --device, --threads, --checkpoint-seconds and the like."""
    auto_resume: bool = False
    """Resume --run-dir if it holds a run, else start one there: a job that may be stopped at any time can be
    restarted with the same command."""
    may_change: tuple[str, ...] = ()
    """Flags that may differ from the run that is resumed, such as `--may-change learning-rate gamma`."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; a final checkpoint is always saved."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to keep, besides the best one and those that were evaluated."""
    eval_every: int | None = None
    """Evaluate the agent in --env every so many steps, and at the end, on episodes of which training sees
    none. The best checkpoint is then the one with the best evaluation. None for no evaluation."""
    eval_episodes: int = 100
    """Number of episodes in each environment of such an evaluation."""
    track: TrackerName = "none"
    """Send hyperparameters and figures to wandb (Weights & Biases) or mlflow. Their environment variables
    decide the rest: WANDB_PROJECT, WANDB_MODE=offline, MLFLOW_TRACKING_URI, ..."""

    def __post_init__(self) -> None:
        require_types(self)
        rate = 1.0 if self.target_success_rate is None else self.target_success_rate
        checks = {
            "seed": (0 <= self.seed < 2**63, "0 to 2^63 - 1"),
            "scale": (1 <= self.scale <= MAX_SCALE, f"1 to {MAX_SCALE}"),
            "match_parameters": (
                self.match_parameters is None or self.match_parameters >= 1,
                "1 or more parameters",
            ),
            "threads": (0 <= self.threads <= MAX_THREADS, f"0 to {MAX_THREADS}"),
            "processes": (0 <= self.processes <= MAX_PROCESSES, f"0 to {MAX_PROCESSES}"),
            "checkpoint_seconds": (self.checkpoint_seconds >= 0, "0 or more"),
            "keep_checkpoints": (self.keep_checkpoints >= 1, "1 or more"),
            "eval_every": (self.eval_every is None or self.eval_every >= 1, "1 or more steps"),
            "track": (self.track in get_args(TrackerName), " or ".join(get_args(TrackerName))),
            "eval_episodes": (1 <= self.eval_episodes <= MAX_EVAL_EPISODES, f"1 to {MAX_EVAL_EPISODES:,}"),
        }
        if not 0 < rate <= 1:
            raise ValueError(f"target_success_rate must be above 0 and at most 1, got {rate}")
        for name, (fits, expected) in checks.items():
            if not fits:
                raise ValueError(f"{name}={getattr(self, name)}: expected {expected}")


@dataclass(frozen=True)
class RunConfig:
    """Train an agent with a memory."""

    environment: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class Start:
    """Flags that say which run is meant: a new one, or one to resume."""

    imports: Imports = ()
    run_dir: Path | None = None
    resume: Path | None = None
    auto_resume: bool = False


@dataclass(frozen=True)
class Selection(Start):
    """Flags of `train/ppo.py` that determine the defaults of the others."""

    env: str = EnvConfig.env
    env_options: Options = field(default_factory=dict)
    core: str | None = None
    core_options: Options = field(default_factory=dict)
    match_parameters: int | None = None
    preset: bool = True
    preset_file: Path | None = None
    init_from: Path | None = None
    scale: int = 1

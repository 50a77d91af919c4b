"""What `python train/ppo.py` can be told: every field is a flag, and its docstring the flag's help."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rmc_agents.actor_critic import CriticMemory
from rmc_agents.execution import Precision
from rmc_agents.ppo import PPOConfig

Option = int | float | bool | str | None


def parse_options(words: list[str]) -> dict[str, Option]:
    """`["num_slots=8", "gate_style=unit"]` as a dictionary; numbers and booleans are recognised.

    Raises:
        ValueError: a word without an equals sign.
    """
    options: dict[str, Option] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got {word!r}")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


Options = Annotated[
    dict[str, Option],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE",
        instance_from_str=parse_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [f"{key}={option}" for key, option in value.items()],
    ),
]


@dataclass(frozen=True)
class RunConfig:
    """Train an agent that remembers."""

    env: str = "MiniGrid-MemoryS9-v0"
    """Any Gymnasium id. MiniGrid's Memory mazes run as tables on the device, at any odd size; several ids
    with commas between make a batch that mixes them. A tuned id brings its preset as the defaults here."""
    train_on: str | None = None
    """Train on these ids (with commas between) instead, as a curriculum; the agent is judged by --env."""
    curriculum: bool = False
    """With --train-on, the easiest first: half of the environments play the first one that is not solved yet,
    the others share the rest. Without, all have equal shares throughout. Memory mazes only."""
    env_options: Options = field(default_factory=dict)
    """The environment's own options, as `--env-options view_size=3 actions=7`, over the preset's."""
    num_envs: int = 32
    """Environments that move together."""
    vectorization: Literal["auto", "sync", "async"] = "auto"
    """auto: on the device where the task is native, else sync; sync, async: single environments, for any id;
    async gives each a process of its own."""
    env_timeout: float = 300.0
    """async: seconds after which an environment that does not answer has failed."""
    restart_crashed_envs: bool = False
    """async: start an environment again that hung, raised or died, instead of stopping the run."""

    core: str = "rmc"
    """Memory core: rmc, lstm, gru, rnn, feedforward (no memory: the control), or your own in CORES."""
    core_options: Options = field(default_factory=dict)
    """The core's own options, as `--core-options num_slots=8 head_size=32`, over the preset's."""
    features: int = 128
    """Width of the encoder's output."""
    hidden_size: int = 64
    """Width of the hidden layer of the policy head and of the value head."""
    critic_memory: CriticMemory = "shared"
    """shared: the critic reads the actor's memory; separate: one of its own; none: the present only."""
    previous_action: bool = False
    """Feed the last action to the core."""
    previous_reward: bool = False
    """Feed the last reward to the core."""
    skip: bool = True
    """Let the heads read the core's present input beside its output: reactions go past the memory."""

    ppo: Annotated[PPOConfig, tyro.conf.arg(name="")] = field(default_factory=PPOConfig)
    """How to learn."""
    stop_at_success: float | None = None
    """Stop once this share of the latest 1000 episodes of --env was solved (of all that it trains on, where
    --env is not among that); None uses the whole budget."""

    seed: int = 0
    """Fixes weights, actions, minibatches and episodes."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """CPU threads of torch. One is the fastest at the default sizes; 0 leaves the choice to torch."""
    precision: Precision = "float32"
    """float32, or bf16: matrix products in bfloat16, for a GPU; on a CPU it is slower at these sizes."""
    compile: bool = False
    """Compile the networks with torch.compile (on a GPU: CUDA graphs). Starting takes a minute or more."""
    run_dir: Path | None = None
    """Where to save; runs/ENV-CORE-SEED if not given."""
    resume: Path | None = None
    """A run folder to go on with, from its newest whole checkpoint; all else is taken from there, but for
    --total-steps, --device, --threads, --checkpoint-seconds and the like."""
    auto_resume: bool = False
    """Go on with --run-dir if it holds a run, else start one there: a job that may be stopped at any time is
    started again with the same command."""
    may_change: tuple[str, ...] = ()
    """Flags that a resumed run may have otherwise, such as `--may-change learning-rate gamma`."""
    checkpoint_seconds: float = 60.0
    """How often to save; the end is always saved."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints to keep, beside the best one and those that were evaluated."""

"""Tuned settings by environment: the defaults of `python train/ppo.py --env ID`. One place, nothing hidden.

What each reaches, and the command that shows it, stands in benchmarks/results/memory_mazes.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rmc_agents.cli import flag_value
from rmc_agents.config import RunConfig
from rmc_agents.ppo import PPOConfig

LEARNING = PPOConfig(
    # With 3e-4 RMC was still guessing on MemoryS9 after a million steps.
    learning_rate=1e-3,
    # Near the end advantages are small, normalising them makes noise large, and one epoch of that at this
    # learning rate can undo what was learned.
    target_kl=0.02,
    # With less, an agent at view 3 uses a cue that it happens to see and never looks for one.
    entropy_coef=0.02,
)
MEMORY_S9 = RunConfig(
    env="MiniGrid-MemoryS9-v0",
    # The four actions left out do nothing in these mazes but waste exploration.
    env_options={"actions": 3},
    stop_at_success=0.99,
    # A learning rate that stays: with one that falls to 0, one seed of four guessed to the end.
    ppo=replace(LEARNING, total_steps=1_500_000, learning_rate_end=5e-4),
)
VIEW_7 = replace(
    LEARNING,
    total_steps=2_500_000,
    learning_rate_end=5e-4,
    entropy_coef_end=0.014,
    # Learned through 16 steps, what is remembered did not last as well in hallways longer than in training.
    bptt_length=32,
)
VIEW_3 = replace(VIEW_7, bptt_length=16)
VIEW_3_LONGER = replace(LEARNING, total_steps=4_000_000, learning_rate_end=2e-4)
"""The same schedule, going on."""


def _curriculum(maze: str, train_on: str, view_size: int = 7, ppo: PPOConfig = VIEW_7) -> RunConfig:
    """A maze, learned in a batch that mixes it with smaller ones.

    Alone, an agent guesses for long, or for good. In the smallest maze it takes a few steps from the cue to
    the choice, which is soon learned; hallways of random length lead on from there.
    """
    return replace(
        MEMORY_S9,
        env=_id(maze),
        env_options={"actions": 3} if view_size == 7 else {"actions": 3, "view_size": view_size},
        train_on=",".join(map(_id, train_on.split())),
        num_envs=64,
        ppo=ppo,
    )


def _id(maze: str) -> str:
    return f"MiniGrid-Memory{maze}-v0"


_PRESETS = (
    replace(MEMORY_S9, env=_id("S7")),
    MEMORY_S9,
    _curriculum("S11", "S5 S7 S9Random S11Random S11"),
    _curriculum("S13", "S5 S7 S9Random S13Random S13Random S13"),
    _curriculum("S13Random", "S5 S7 S9Random S13Random S13Random"),
    _curriculum("S17Random", "S5 S7 S9Random S13Random S17Random S17Random"),
    _curriculum("S9", "S5 S7 S9Random S9", 3, VIEW_3),
    _curriculum("S11", "S5 S7 S9Random S11Random S11", 3, VIEW_3_LONGER),
    _curriculum("S13", "S5 S7 S9Random S13Random S13Random S13", 3, VIEW_3_LONGER),
)
PRESETS: dict[tuple[str, int], RunConfig] = {
    (config.env, int(config.env_options.get("view_size") or 7)): config for config in _PRESETS
}
"""By environment id and view size."""


def preset(env_id: str, view_size: int = 7) -> RunConfig:
    """The tuned settings of an environment, or the general ones with its id."""
    return PRESETS.get((env_id, view_size), RunConfig(env=env_id))


def preset_of(args: Sequence[str]) -> RunConfig:
    """The tuned settings for the environment and view size that flags of `train/ppo.py` name."""
    views = [word.partition("=")[2] for word in args if word.startswith("view_size=")]
    view_size = int(views[-1]) if views and views[-1].isdigit() else 7
    return preset(flag_value(args, "--env") or RunConfig.env, view_size)

"""Tuned settings by environment: the defaults of `python train/ppo.py --env ID`. One place, nothing hidden.

What each reaches, and the command that shows it, stands in the README.
"""

from __future__ import annotations

from dataclasses import replace

from rmc_agents.config import RunConfig
from rmc_agents.ppo import PPOConfig

LEARNING = PPOConfig(
    total_steps=1_000_000,
    # With 3e-4 RMC was still guessing on MemoryS9 after a million steps.
    learning_rate=1e-3,
    # Near the end advantages are small, normalising them makes noise large, and one epoch of that at this
    # learning rate can undo what was learned.
    target_kl=0.02,
    entropy_coef=0.01,
    entropy_coef_end=0.01,
)

MEMORY_S9 = RunConfig(
    env="MiniGrid-MemoryS9-v0",
    # The four actions left out do nothing in these mazes but waste exploration.
    env_options={"actions": 3},
    stop_at_success=0.99,
    # More exploration and a learning rate that stays: with less, one seed of four guessed to the end.
    ppo=replace(LEARNING, total_steps=1_500_000, learning_rate_end=5e-4, entropy_coef=0.02),
)

MEMORY_S11 = replace(
    MEMORY_S9,
    env="MiniGrid-MemoryS11-v0",
    # Alone, an agent hardly finds out that looking back pays. It does in smaller mazes, some of which show
    # the cue and the choices at once; half of the environments are the maze itself: only memory helps there.
    train_on="MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0,MiniGrid-MemoryS11-v0,MiniGrid-MemoryS11-v0",
    num_envs=64,
    ppo=replace(LEARNING, total_steps=3_000_000),
)

PRESETS: dict[str, RunConfig] = {config.env: config for config in (MEMORY_S9, MEMORY_S11)}


def preset(env_id: str) -> RunConfig:
    """The tuned settings of an environment, or the general ones with its id."""
    return PRESETS.get(env_id, RunConfig(env=env_id))

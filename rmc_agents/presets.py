"""Tuned settings by environment: the defaults of `python train/ppo.py --env ID`. One place, nothing hidden.

What each reaches, and the command that shows it, stands in the README.
"""

from __future__ import annotations

from rmc_agents.config import RunConfig
from rmc_agents.ppo import PPOConfig

MEMORY_S9 = RunConfig(
    env="MiniGrid-MemoryS9-v0",
    # The four actions left out do nothing in these mazes but waste exploration.
    env_options={"actions": 3},
    stop_at_success=0.99,
    ppo=PPOConfig(
        total_steps=1_000_000,
        # With 3e-4 RMC was still guessing after a million steps.
        learning_rate=1e-3,
        # Near the end advantages are small, normalising them makes noise large, and one epoch of that at this
        # learning rate can undo what was learned.
        target_kl=0.02,
        entropy_coef=0.01,
        entropy_coef_end=0.01,
    ),
)

PRESETS: dict[str, RunConfig] = {
    "MiniGrid-MemoryS9-v0": MEMORY_S9,
}


def preset(env_id: str) -> RunConfig:
    """The tuned settings of an environment, or the general ones with its id."""
    return PRESETS.get(env_id, RunConfig(env=env_id))

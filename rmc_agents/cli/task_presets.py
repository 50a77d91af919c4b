"""Presets of this package's own tasks, by id; those of the Memory mazes are in `presets`."""

from __future__ import annotations

from rmc_agents.cli.config import RunConfig
from rmc_agents.environment import EnvConfig
from rmc_agents.rl.ppo import PPOConfig

KEY_VALUE = RunConfig(
    environment=EnvConfig(env="rmc/KeyValue-v0", num_envs=64),
    ppo=PPOConfig(
        total_steps=500_000,
        learning_rate=1e-3,
        learning_rate_end=5e-4,
        entropy_coef=0.01,
        entropy_coef_end=0.001,
        # Each answer is rewarded at once.
        gamma=0.9,
        # An episode of the default size, so that gradients reach the pair that a query asks for.
        bptt_length=16,
        minibatch_size=1024,
        target_kl=0.03,
    ),
)

TASK_PRESETS: dict[str, RunConfig] = {config.environment.env: config for config in (KEY_VALUE,)}
"""By id."""

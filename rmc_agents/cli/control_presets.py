"""Presets of the control tasks with hidden velocities, and of Atari games."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.kinds import CONTINUOUS, DISCRETE, PICTURES
from rmc_agents.environment import EnvConfig
from rmc_agents.options import Options

ATARI = ("ALE/", "ale_py:ALE/")
"""Beginnings of the ids of Atari games."""


def _masked(base: RunConfig, env_id: str, **ppo: Any) -> RunConfig:
    """Return a general preset for one environment, with the core that learns there in the fewest steps.

    Args:
        base: the general preset.
        env_id: the environment.
        ppo: settings of PPO that differ.
    """
    return replace(
        base,
        environment=replace(base.environment, env=env_id),
        agent=replace(base.agent, core="gru"),
        ppo=replace(base.ppo, **ppo),
    )


_MASKED = (
    # A short horizon and a high learning rate, as in rl-zoo3 for the pendulum without velocities.
    _masked(CONTINUOUS, "rmc/MaskedPendulum-v0", total_steps=300_000, gamma=0.9, learning_rate=1e-3),
    _masked(DISCRETE, "rmc/MaskedCartPole-v0", total_steps=200_000, gamma=0.98, gae_lambda=0.8),
    _masked(CONTINUOUS, "rmc/MaskedHalfCheetah-v0"),
    _masked(CONTINUOUS, "rmc/MaskedHopper-v0"),
    _masked(CONTINUOUS, "rmc/MaskedWalker2d-v0"),
    _masked(CONTINUOUS, "rmc/MaskedAnt-v0"),
)
CONTROL: dict[str, RunConfig] = {config.environment.env: config for config in _MASKED}
"""By environment id."""


def find_control_preset(env_id: str) -> RunConfig | None:
    """Return the settings of a control task with hidden velocities, or of an Atari game; None for others."""
    if env_id.startswith(ATARI):
        options: Options = {"preprocessing": "atari"}
        environment = EnvConfig(env=env_id, env_options=options, num_envs=PICTURES.environment.num_envs)
        return replace(PICTURES, environment=environment)
    return CONTROL.get(env_id)

"""Presets of classic control, of the control tasks with hidden velocities, and of Atari games."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.kinds import CONTINUOUS, DISCRETE, PICTURES
from rmc_agents.environment import EnvConfig
from rmc_agents.options import Options

ATARI = ("ALE/", "ale_py:ALE/")
"""Beginnings of the ids of Atari games."""


def _masked(base: RunConfig, env_id: str, log_std_init: float = 0.0, **ppo: Any) -> RunConfig:
    """Return a general preset for one environment, with the core that learns there in the fewest steps.

    Args:
        base: the general preset.
        env_id: the environment.
        log_std_init: of the agent.
        ppo: settings of PPO that differ.
    """
    return replace(
        base,
        environment=replace(base.environment, env=env_id),
        agent=replace(base.agent, core="gru", log_std_init=log_std_init),
        ppo=replace(base.ppo, **ppo),
    )


SMALL_MEMORY: Options = {
    "num_slots": 2,
    "num_heads": 2,
    "forget_bias": -1.0,
    "normalize_output": True,
}
"""Options of RMC. Initially a slot keeps 27 % of its content per step (73 % with RMC's defaults). Where an
observation is the whole state, a large memory is noise that the heads first have to learn to ignore."""


def _classic(
    base: RunConfig,
    env_id: str,
    persistence: float = 0.0,
    num_envs: int = 16,
    num_steps: int = 64,
    **ppo: Any,
) -> RunConfig:
    """Return a general preset for one environment of classic control, with smaller rollouts.

    Args:
        base: the general preset.
        env_id: the environment.
        persistence: of actions.
        num_envs: environments side by side.
        num_steps: of each environment per rollout.
        ppo: settings of PPO that differ.
    """
    return replace(
        base,
        environment=replace(base.environment, env=env_id, num_envs=num_envs),
        agent=replace(base.agent, core_options=SMALL_MEMORY, action_persistence=persistence),
        ppo=replace(base.ppo, num_steps=num_steps, **ppo),
    )


_CLASSIC = (
    _classic(DISCRETE, "CartPole-v0", total_steps=60_000, gamma=0.98),
    _classic(DISCRETE, "CartPole-v1", total_steps=60_000, gamma=0.98),
    _classic(CONTINUOUS, "Pendulum-v1", total_steps=200_000, gamma=0.95),
    # Independent actions hardly ever reach the goals of these. Until one was reached, advantages are errors
    # of the critic or costs of actions, and each update takes from exploration: long rollouts have fewer.
    _classic(DISCRETE, "Acrobot-v1", 0.8, total_steps=120_000, wait_for_signal=True),
    _classic(
        DISCRETE,
        "MountainCar-v0",
        0.9,
        num_steps=128,
        total_steps=100_000,
        gae_lambda=0.98,
        learning_rate=5e-4,
    ),
    _classic(
        CONTINUOUS,
        "MountainCarContinuous-v0",
        0.95,
        num_envs=8,
        num_steps=256,
        total_steps=20_000,
        gamma=0.999,
        learning_rate=1e-3,
    ),
)

_MASKED = (
    # A short horizon and a high learning rate, as in rl-zoo3 for the pendulum without velocities.
    _masked(CONTINUOUS, "rmc/MaskedPendulum-v0", total_steps=300_000, gamma=0.9, learning_rate=1e-3),
    _masked(DISCRETE, "rmc/MaskedCartPole-v0", total_steps=200_000, gamma=0.98, gae_lambda=0.8),
    # As in rl-zoo3 for HalfCheetah with velocities; what each of them gives is in the guide.
    _masked(CONTINUOUS, "rmc/MaskedHalfCheetah-v0", log_std_init=-2.0, gamma=0.98, gae_lambda=0.92),
    _masked(CONTINUOUS, "rmc/MaskedHopper-v0"),
    _masked(CONTINUOUS, "rmc/MaskedWalker2d-v0"),
    _masked(CONTINUOUS, "rmc/MaskedAnt-v0"),
)
CONTROL: dict[str, RunConfig] = {config.environment.env: config for config in (*_CLASSIC, *_MASKED)}
"""By environment id."""


def find_control_preset(env_id: str) -> RunConfig | None:
    """Return the settings of a control task or of an Atari game; None for other environments."""
    if env_id.startswith(ATARI):
        options: Options = {"preprocessing": "atari"}
        environment = EnvConfig(env=env_id, env_options=options, num_envs=PICTURES.environment.num_envs)
        return replace(PICTURES, environment=environment)
    return CONTROL.get(env_id)

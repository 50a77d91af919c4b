"""General presets: starting points by the kind of an environment's spaces, where an id has no own preset.

The figures are those that Stable-Baselines3's zoo and CleanRL share for many environments of a kind; what was
measured with them is in docs/guide/presets.md.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from gymnasium import spaces

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig
from rmc_agents.environment import EnvConfig
from rmc_agents.options import Options
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.spaces.plain import Observations
from rmc_agents.spaces.reading import named_parts, read

Kind = Literal[
    "vector observations and continuous actions", "vector observations and discrete actions", "pictures"
]
Spaces = tuple[spaces.Space[Any], spaces.Space[Any]]
"""Observation and action space of one environment."""

LONG_MEMORY_OPTIONS: Options = {"forget_bias": 3.0, "input_bias": -2.0, "normalize_output": True}
"""Options of RMC. Initially a slot keeps 95 % of its content per step (73 % with RMC's defaults), so a cue
survives a hallway before training. Both that and the normalised output matter in mazes longer than those of
training, which mostly failed without them."""

CONTINUOUS = RunConfig(
    environment=EnvConfig(num_envs=8),
    agent=AgentConfig(normalize_observations=True, scale_actions=True),
    ppo=PPOConfig(
        num_steps=256,
        minibatch_size=256,
        epochs=10,
        learning_rate=3e-4,
        entropy_coef=0.0,
        entropy_coef_end=0.0,
        normalize_rewards=True,
        target_kl=0.03,
    ),
)
DISCRETE = RunConfig(
    environment=EnvConfig(num_envs=8),
    agent=AgentConfig(normalize_observations=True),
    ppo=PPOConfig(
        num_steps=128,
        minibatch_size=256,
        epochs=10,
        learning_rate=1e-3,
        entropy_coef_end=0.0,
        normalize_rewards=True,
        target_kl=0.03,
    ),
)
PICTURES = RunConfig(
    environment=EnvConfig(num_envs=8),
    agent=AgentConfig(normalize_observations=True, scale_actions=True),
    ppo=PPOConfig(
        total_steps=10_000_000,
        minibatch_size=256,
        learning_rate=2.5e-4,
        clip_range=0.1,
        normalize_rewards=True,
    ),
)
GENERAL: dict[Kind, RunConfig] = dict(zip(get_args(Kind), (CONTINUOUS, DISCRETE, PICTURES), strict=True))
"""By kind of spaces. Observations of a picture with numbers beside it are pictures."""


def kind_of(own: Spaces) -> Kind | None:
    """Return the kind of an environment's own spaces; None if no general preset is for them.

    Grids of codes and categories alone have none: such tasks mostly reward nothing but their end, and rewards
    are best left as they are.
    """
    observation, action = own
    try:
        readings = {read(part).kind for part in named_parts(Observations(observation).plain).values()}
    except ValueError:  # reported when the agent is built
        return None
    if readings & {"codes", "cells"}:
        return None
    if "picture" in readings:
        return "pictures"
    if not readings & {"numbers", "raw", "log"}:
        return None
    if isinstance(action, spaces.Box):
        return "vector observations and continuous actions"
    return "vector observations and discrete actions"

"""Presets of POPGym's tasks: starting points by family and level.

All agents read their previous action and a flag of the first step, as the baselines of POPGym's authors do.
Gradients flow through whole episodes, or through chunks of about a hundred steps where episodes are longer.
Where many cards have to be remembered in their order, or counted, the core is a memory that is written by
content; for the order, it reads a clock.
"""

from __future__ import annotations

from typing import NamedTuple

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig
from rmc_agents.cli.kinds import LONG_MEMORY_OPTIONS
from rmc_agents.environment import EnvConfig
from rmc_agents.options import Options
from rmc_agents.rl.ppo import PPOConfig

NUM_ENVS = 64


class Sizes(NamedTuple):
    """Sizes of the updates, in steps."""

    num_steps: int
    """Of a rollout."""
    bptt_length: int
    minibatch_size: int


class Memory(NamedTuple):
    """A memory core, and what goes with it."""

    core: str
    core_options: Options
    clock: int = 0
    """Steps of a turn: an episode, or more steps than the task looks back."""
    hidden_size: int = AgentConfig.hidden_size


SLOTS = Memory("rmc", LONG_MEMORY_OPTIONS)
COUNTS = Memory("gated_delta", {"write": "add", "forget_bias": 8.0}, hidden_size=256)
"""A memory that counts, and heads that tell counts apart."""


def _by_time(clock: int, key_size: int) -> Memory:
    """Return a memory that finds what it saw by when it was, and has more keys than there are cards."""
    # Nothing decays within an episode.
    options: Options = {"num_heads": 2, "key_size": key_size, "value_size": 16, "forget_bias": 8.0}
    return Memory("gated_delta", options, clock)


class Family(NamedTuple):
    """Settings of a family of tasks."""

    gamma: float
    sizes: tuple[Sizes, Sizes, Sizes]
    """By level."""
    memories: tuple[Memory, Memory, Memory] = (SLOTS, SLOTS, SLOTS)
    """By level."""


SHORT = Sizes(102, 51, 816)  # two episodes of 51 steps
EPISODE = Sizes(103, 103, 824)  # one episode of 103 steps
LONG = Sizes(208, 104, 832)
PULLS = Sizes(200, 100, 800)
CONTROL = Sizes(128, 64, 1024)
FAMILIES = {
    # Each answer is rewarded at once, and changes nothing else.
    "RepeatFirst": Family(0.0, (SHORT, LONG, LONG)),
    "RepeatPrevious": Family(
        0.0, (SHORT, EPISODE, Sizes(155, 155, 1240)), (SLOTS, _by_time(104, 64), _by_time(128, 128))
    ),
    # Gradients reach from the answers back to the cards.
    "Autoencode": Family(
        0.0,
        (EPISODE, Sizes(208, 208, 832), Sizes(312, 312, 1248)),
        (_by_time(104, 64), _by_time(208, 128), _by_time(312, 192)),
    ),
    "CountRecall": Family(0.0, (SHORT, EPISODE, LONG), (SLOTS, COUNTS, COUNTS)),
    "HigherLower": Family(0.0, (SHORT, EPISODE, Sizes(155, 155, 1240))),
    "Concentration": Family(0.9, (Sizes(104, 104, 832), LONG, Sizes(104, 104, 832))),
    "Battleship": Family(0.9, (Sizes(128, 64, 1024), Sizes(100, 100, 800), Sizes(144, 72, 1152))),
    "MineSweeper": Family(0.9, (Sizes(64, 32, 1024), Sizes(64, 32, 1024), Sizes(64, 64, 1024))),
    "MultiarmedBandit": Family(0.95, (PULLS, PULLS, PULLS)),
    "PositionOnlyCartPole": Family(0.98, (CONTROL, CONTROL, CONTROL)),
    "VelocityOnlyCartPole": Family(0.98, (CONTROL, CONTROL, CONTROL)),
    "NoisyPositionOnlyCartPole": Family(0.98, (CONTROL, CONTROL, CONTROL)),
    "PositionOnlyPendulum": Family(0.95, (CONTROL, CONTROL, CONTROL)),
    "NoisyPositionOnlyPendulum": Family(0.95, (CONTROL, CONTROL, CONTROL)),
}
LEVELS = ("Easy", "Medium", "Hard")


def find_popgym_preset(env_id: str) -> RunConfig | None:
    """Return the settings of a level of POPGym's tasks, by POPGym's id or ours; None for other ids."""
    name = env_id.removeprefix("popgym:").removeprefix("popgym-").removeprefix("rmc/")
    name = name.removesuffix("-v0").replace("Cartpole", "CartPole")
    for number, level in enumerate(LEVELS):
        family = FAMILIES.get(name.removesuffix(level))
        if family is not None and name.endswith(level):
            return _preset(env_id, family.gamma, family.sizes[number], family.memories[number])
    return None


def _preset(env_id: str, gamma: float, sizes: Sizes, memory: Memory) -> RunConfig:
    is_pendulum = "Pendulum" in env_id
    return RunConfig(
        environment=EnvConfig(env=env_id, num_envs=NUM_ENVS),
        agent=AgentConfig(
            core=memory.core,
            core_options=memory.core_options,
            hidden_size=memory.hidden_size,
            previous_action=True,
            start_flag=True,
            clock=memory.clock,
            scale_actions=is_pendulum,
        ),
        ppo=PPOConfig(
            total_steps=3_000_000,
            num_steps=sizes.num_steps,
            bptt_length=sizes.bptt_length,
            minibatch_size=sizes.minibatch_size,
            learning_rate=1e-3,
            learning_rate_end=2e-4,
            gamma=gamma,
            entropy_coef=0.0 if is_pendulum else 0.01,
            entropy_coef_end=0.0 if is_pendulum else 0.001,
            # Rewards are of the order of 1 / (number of steps of an episode).
            normalize_rewards=True,
            target_kl=0.03,
        ),
    )

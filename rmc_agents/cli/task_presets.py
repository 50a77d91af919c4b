"""Presets of this package's own tasks, by id; those of the Memory mazes are in `presets`."""

from __future__ import annotations

from dataclasses import replace

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig, RunOptions
from rmc_agents.cli.kinds import LONG_MEMORY_OPTIONS
from rmc_agents.environment import EnvConfig
from rmc_agents.options import Options
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

SMALL = PPOConfig(
    learning_rate=1e-3,
    learning_rate_end=3e-4,
    entropy_coef=0.01,
    entropy_coef_end=0.001,
    minibatch_size=1024,
    target_kl=0.03,
)
"""What the settings of the small tasks have in common."""

# The memory of some units lasts for hundreds of steps before training.
LASTING: Options = {**LONG_MEMORY_OPTIONS, "forget_bias_end": 7.0}
# Gradients reach the cue over up to about 120 steps.
RETENTION = replace(SMALL, num_steps=128, bptt_length=128)
T_MAZE = RunConfig(
    environment=EnvConfig(env="rmc/TMaze-v0", num_envs=64),
    agent=AgentConfig(core_options=LASTING),
    ppo=replace(
        RETENTION,
        total_steps=2_000_000,
        # Each step behind schedule is punished at once, and the choice is rewarded at once.
        gamma=0.8,
        normalize_rewards=True,
        # With less entropy, larger steps or normalised advantages, the policy becomes deterministic before
        # the agent has ever turned, in corridors of 30 cells and more.
        normalize_advantage=False,
        learning_rate=3e-4,
        learning_rate_end=1e-4,
        entropy_coef=0.05,
        entropy_coef_end=0.03,
    ),
    run=RunOptions(target_success_rate=0.99),
)
MEMORY_CHAIN = RunConfig(
    environment=EnvConfig(env="rmc/MemoryChain-v0", num_envs=64),
    agent=AgentConfig(core_options=LASTING),
    # The answer is rewarded at once, and other actions change nothing.
    ppo=replace(RETENTION, total_steps=1_000_000, gamma=0.0),
    run=RunOptions(target_success_rate=0.99),
)
ENDLESS_T_MAZE = RunConfig(
    environment=EnvConfig(env="rmc/EndlessTMaze-v0", num_envs=64),
    # 32 steps are more than the longest corridor of the default options.
    ppo=replace(SMALL, total_steps=600_000, entropy_coef=0.02, entropy_coef_end=0.002, bptt_length=32),
    run=RunOptions(target_success_rate=0.99),
)
MEMORY_CARDS = RunConfig(
    environment=EnvConfig(env="rmc/MemoryCards-v0", num_envs=64),
    # A mistake is punished at once, and what is shown later does not depend on it.
    ppo=replace(SMALL, total_steps=3_000_000, gamma=0.0, bptt_length=64),
)
COLOR_CUBES = RunConfig(
    environment=EnvConfig(env="rmc/ColorCubes-v0", num_envs=64),
    ppo=replace(
        SMALL,
        total_steps=3_000_000,
        entropy_coef=0.02,
        entropy_coef_end=0.002,
        gamma=0.95,
        # Episodes, and the time for which a place is needed, are short.
        bptt_length=32,
        # To predict where the cubes are, a memory has to keep their places.
        aux_coef=0.5,
    ),
)


def _memory_maze(size: int, total_steps: int) -> RunConfig:
    return RunConfig(
        environment=EnvConfig(env=f"rmc/MemoryMaze-{size}x{size}-v0", num_envs=64),
        # A memory of where the agent is needs to know how it moved.
        agent=AgentConfig(previous_action=True),
        ppo=PPOConfig(
            total_steps=total_steps,
            num_steps=256,
            # Some tens of steps lie between two visits of the same place.
            bptt_length=64,
            minibatch_size=2048,
            learning_rate=1e-3,
            learning_rate_end=3e-4,
            entropy_coef=0.01,
            entropy_coef_end=0.003,
            gamma=0.99,
            # To predict where objects are that have been in view, a memory has to keep their places.
            aux_coef=0.5,
            target_kl=0.03,
        ),
    )


MEMORY_MAZES = tuple(
    _memory_maze(size, steps)
    for size, steps in ((9, 5_000_000), (11, 10_000_000), (13, 15_000_000), (15, 20_000_000))
)


def _world(env_id: str, ppo: PPOConfig) -> RunConfig:
    return RunConfig(
        environment=EnvConfig(env=env_id, num_envs=64),
        # Through a viewport an agent only knows where it is if it knows how it moved.
        agent=AgentConfig(core_options=LONG_MEMORY_OPTIONS, previous_action=True),
        ppo=ppo,
    )


WORLD = PPOConfig(
    total_steps=20_000_000,
    learning_rate=1e-3,
    learning_rate_end=2e-4,
    entropy_coef=0.02,
    entropy_coef_end=0.003,
    gamma=0.98,
    # From one box to the next, or through a part of the maze.
    bptt_length=32,
    minibatch_size=512,
    normalize_rewards=True,
    target_kl=0.03,
)
WORLDS = (
    _world("rmc/BoxWorld-v0", WORLD),
    # To predict where things are that have been in view, a memory has to keep their places.
    _world("rmc/BoxWorldViewport-v0", replace(WORLD, aux_coef=1.0)),
    *(
        _world(f"rmc/MiniPacMan{view}-v0", replace(WORLD, total_steps=10_000_000, minibatch_size=1024))
        for view in ("", "Viewport")
    ),
)

TASK_PRESETS: dict[str, RunConfig] = {
    config.environment.env: config
    for config in (
        KEY_VALUE,
        T_MAZE,
        MEMORY_CHAIN,
        ENDLESS_T_MAZE,
        MEMORY_CARDS,
        COLOR_CUBES,
        *MEMORY_MAZES,
        *WORLDS,
    )
}
"""By id."""

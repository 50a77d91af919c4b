"""Presets: tuned settings by environment, which are the defaults of `python train/ppo.py --env ID`.

Results and commands are in benchmarks/results/memory_mazes.md.
"""

from __future__ import annotations

from dataclasses import replace

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig, RunOptions, Selection
from rmc_agents.cli.control_presets import find_control_preset
from rmc_agents.cli.kinds import GENERAL, LONG_MEMORY_OPTIONS, Spaces, kind_of
from rmc_agents.cli.popgym_presets import find_popgym_preset
from rmc_agents.cli.preset_file import preset_for
from rmc_agents.cli.task_presets import TASK_PRESETS
from rmc_agents.environment import EnvConfig
from rmc_agents.rl.ppo import PPOConfig

VIEW_7 = PPOConfig(
    total_steps=2_500_000,
    # With 3e-4 RMC was still guessing on MemoryS9 after a million steps.
    learning_rate=1e-3,
    # The learning rate does not fall to 0: when it did, some seeds were guessing until the end.
    learning_rate_end=5e-4,
    # Near the end advantages are small and normalising them amplifies noise; one epoch of that at this
    # learning rate can undo what was learned.
    target_kl=0.02,
    entropy_coef=0.02,
    entropy_coef_end=0.014,
    # With 16 steps, memories lasted less well in hallways longer than those of training.
    bptt_length=32,
)
# With a small view nothing shows the cue from afar: the agent has to go and look, and stops doing so with
# less entropy.
VIEW_3 = replace(VIEW_7, entropy_coef=0.04)
VIEW_3_LONGER = replace(VIEW_3, total_steps=4_000_000)

TO_S13 = "S5 S7 S9 S13Hallway7 S13Hallway8 S13Hallway9"
"""Hallways that end in columns 2, 4, 6, 7, 8 and 9. Up to 6 an agent with view size 7 can look back from the
junction; from 7 on it has to walk back, one step more each time."""


def _curriculum(maze: str, train_on: str, view_size: int = 7, ppo: PPOConfig = VIEW_7) -> RunConfig:
    """Return the preset of a maze that is learned through the smallest one: see `rl.curriculum`.

    Trained in the maze alone, an agent guesses for a long time or forever; in the smallest maze the cue is a
    few steps from the choice.
    """
    return RunConfig(
        environment=EnvConfig(
            env=_id(maze),
            # The other four actions have no effect here and slow exploration.
            env_options={"actions": 3} if view_size == 7 else {"actions": 3, "view_size": view_size},
            train_on=",".join(map(_id, train_on.split())),
            curriculum=True,
            num_envs=64,
        ),
        agent=AgentConfig(core_options=LONG_MEMORY_OPTIONS),
        ppo=ppo,
        run=RunOptions(target_success_rate=0.99),
    )


def _id(maze: str) -> str:
    return f"MiniGrid-Memory{maze}-v0"


_PRESETS = (
    _curriculum("S7", "S5 S7"),
    _curriculum("S9", "S5 S7 S9"),
    _curriculum("S11", "S5 S7 S9 S11Hallway7 S11"),
    _curriculum("S13", f"{TO_S13} S13Random S13"),
    _curriculum("S13Random", f"{TO_S13} S13 S13Random"),
    _curriculum("S17Random", f"{TO_S13} S13 S13Random S17Random"),
    _curriculum("S9", "S5 S7 S9", 3, VIEW_3),
    _curriculum("S11", "S5 S7 S9 S11", 3, VIEW_3_LONGER),
    _curriculum("S13", "S5 S7 S9 S11 S13", 3, VIEW_3_LONGER),
)
PRESETS: dict[tuple[str, int], RunConfig] = {
    (config.environment.env, view_size): config
    for config in _PRESETS
    if isinstance(view_size := config.environment.env_options.get("view_size", 7), int)
}
"""By environment id and view size."""


def find_preset(env_id: str, view_size: int = 7) -> RunConfig | None:
    """Return the tuned settings of an environment, or None if it has none."""
    return (
        PRESETS.get((env_id, view_size))
        or TASK_PRESETS.get(env_id)
        or find_control_preset(env_id)
        or find_popgym_preset(env_id)
    )


def defaults_for(selection: Selection, own_spaces: Spaces | None = None) -> tuple[RunConfig, str | None]:
    """Return the defaults of all flags for a selection, and one line about the preset behind them.

    Core options belong to the preset's core: another core starts without them.

    Args:
        selection: the flags that choose them.
        own_spaces: spaces of an environment that may have a general preset; see `cli.kinds`.

    Raises:
        ValueError: a scale out of range, or a preset_file that holds no preset.
    """
    config, about = _unscaled(selection, own_spaces)
    return (config if selection.scale == 1 else scaled(config, selection.scale)), about


def scaled(config: RunConfig, scale: int) -> RunConfig:
    """Return a configuration for batches that are `scale` times as large.

    What counts for learning is the number of gradient steps; larger ones allow a higher learning rate, up to
    twice that of the configuration (measured up to scale 32: docs/guide/gpu.md).

    Raises:
        ValueError: a scale out of range.
    """
    ppo, run = config.ppo, replace(config.run, scale=scale)
    rate = min(scale**0.5, 2.0)
    return replace(
        config,
        environment=replace(config.environment, num_envs=scale * config.environment.num_envs),
        ppo=replace(
            ppo,
            total_steps=scale * ppo.total_steps,
            minibatch_size=scale * ppo.minibatch_size,
            learning_rate=rate * ppo.learning_rate,
            learning_rate_end=rate * ppo.learning_rate_end,
        ),
        run=run,
    )


def _unscaled(selection: Selection, own_spaces: Spaces | None) -> tuple[RunConfig, str | None]:
    if selection.preset_file is not None:
        if not selection.preset:
            raise ValueError("preset_file names a preset: leave out either that or --no-preset")
        return preset_for(selection.preset_file, selection.core)
    view_size = selection.env_options.get("view_size", 7)
    config = find_preset(selection.env, view_size) if isinstance(view_size, int) else None
    if config is None:
        return _general(selection, own_spaces)
    if not selection.preset:
        plain = RunConfig(environment=EnvConfig(env=selection.env), run=RunOptions(preset=False))
        return plain, None
    core = selection.core or config.agent.core
    if core != config.agent.core:
        config = replace(config, agent=replace(config.agent, core_options={}))
    return config, _describe(config)


def _general(selection: Selection, own_spaces: Spaces | None) -> tuple[RunConfig, str | None]:
    """Return the defaults of an environment without a preset of its own."""
    kind = None if own_spaces is None or not selection.preset else kind_of(own_spaces)
    config = RunConfig() if kind is None else GENERAL[kind]
    config = replace(config, environment=replace(config.environment, env=selection.env))
    about = None if kind is None else f"{selection.env}: general preset for {kind}; --no-preset for none"
    return config, about


def _describe(config: RunConfig) -> str:
    environment = config.environment
    others = [each for each in (environment.train_on or "").split(",") if each and each != environment.env]
    how = f"preset with a curriculum of {', '.join(map(_short, others))}" if others else "preset"
    return f"{_short(environment.env)}: {how}; --no-preset for none"


def _short(env_id: str) -> str:
    return env_id.removeprefix("MiniGrid-").removesuffix("-v0")

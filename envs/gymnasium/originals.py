"""Other memory benchmarks in their original form, each reached by its module: `bsuite:memory_len/3`.

- `memory_maze:MemoryMaze-9x9-v0`, 11x11, 13x13 and 15x15: the 3-D Memory Maze.
- `memory_gym:MortarMayhem-v0` and nine more: Memory Gym.
- `bsuite:memory_len/0` and all other settings of bsuite.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from typing import Any

import gymnasium

from rmc_agents.errors import UsageError
from rmc_agents.plugins import import_module

from .from_dm_env import FromDmEnv

INSTALL = {
    "memory_maze": "pip install 'rmc-agents[memory-maze]'",
    "memory_gym": "pip install pygame-ce && pip install --no-deps memory-gym",
    "bsuite": "pip install 'rmc-agents[bsuite]'",
}
"""The modules, and the command that installs each."""
MAZES = ("9x9", "11x11", "13x13", "15x15")


def import_original(module: str) -> None:
    """Import a module of INSTALL, and register its environments with Gymnasium.

    Raises:
        UsageError: it is not installed, or it cannot be imported.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # a folder without `__init__.py` that has the same name
        raise UsageError(f"{module} is not installed: {INSTALL[module]}")
    if module == "memory_gym":  # pictures and sound are not shown
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    try:
        package = import_module(module)
    except UsageError as error:
        raise UsageError(f"{error}; it is installed by {INSTALL[module]}") from error
    if module == "memory_maze":
        for maze in MAZES:
            _register(f"MemoryMaze-{maze}-v0", "make_memory_maze", maze=maze)
    elif module == "bsuite":
        for setting in package.sweep.SWEEP:
            _register(setting, "make_bsuite", setting=setting)


def _register(env_id: str, function: str, **options: Any) -> None:
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=f"{__name__}:{function}", kwargs=options)


def make_memory_maze(maze: str, render_mode: str | None = None, **options: Any) -> gymnasium.Env:
    """Build the 3-D Memory Maze (Pasukonis et al. 2022), which shows the target's color as a border.

    Args:
        maze: its size, such as "9x9".
        render_mode: "rgb_array" or None.
        options: of `memory_maze.tasks`, such as `good_visibility=True` or `camera_resolution=128`.
    """
    tasks = import_module("memory_maze.tasks")
    task = getattr(tasks, f"memory_maze_{maze}")
    options = {"image_only_obs": True, **options}
    return FromDmEnv(lambda seed: task(seed=seed, **options), render_mode=render_mode)


def make_bsuite(setting: str) -> gymnasium.Env:
    """Build an experiment of bsuite (Osband et al. 2020), whose observations are flattened.

    Args:
        setting: bsuite's id, such as "memory_len/3".
    """
    bsuite = import_module("bsuite")
    name, _, _ = setting.partition("/")
    load = bsuite.bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT[name]
    fixed = bsuite.sweep.SETTINGS[setting]
    takes_seed = "seed" in inspect.signature(load).parameters

    def build(seed: int) -> Any:
        return load(**{**fixed, "seed": seed}) if takes_seed else load(**fixed)

    return FromDmEnv(build, flatten=True)

"""Play a maze by keyboard with the agent's view: `python train/play.py --env MiniGrid-MemoryS13-v0`."""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

import rmc_envs
from rmc_agents.cli.config import Imports
from rmc_agents.cli.flags import parse, require, require_seed
from rmc_agents.cli.script import checking, import_plugins, run_script, say
from rmc_agents.errors import UsageError, shown

MAX_VIEW = 99
MINIGRIDS_MAZES = ("rmc/MemoryS", "rmc/Memory-v0")
"""Beginnings of native ids that are played as MiniGrid's own environments."""


@dataclass(frozen=True)
class PlayConfig:
    """Play a grid by keyboard, with the agent's own view."""

    env: str = "MiniGrid-MemoryS9-v0"
    """A Memory maze of any odd size, any other MiniGrid or BabyAI id, or a Memory Maze such as
    rmc/MemoryMaze-9x9-v0; `MODULE:ID` imports MODULE first."""
    view_size: int | None = None
    """Side of the square that the agent sees, in cells; the task's own if not given."""
    seed: int = 0
    """Seed of the first episode; each further episode uses the next one."""
    terminal: bool = False
    """Play with letters in the terminal instead of a window; the default where there is no screen."""
    whole_maze: bool = False
    """Show the whole maze, which no agent sees (in the window, M does that at any time)."""
    imports: Imports = ()
    """Module that registers grids of your own; one flag per module."""


def main(args: Sequence[str]) -> None:
    """Parse the flags and play until the player quits."""
    with checking():
        config = parse(PlayConfig, None, args, prog=command_name("play"))
        require_seed(config.seed)
        if config.view_size is not None:
            require("view-size", config.view_size, 3 <= config.view_size <= MAX_VIEW, f"3 to {MAX_VIEW}, odd")
        import_plugins(config.imports)
        terminal = config.terminal or not has_screen()
        env = build(config, terminal)
    from rmc_envs import manual  # imports pygame

    if terminal:
        if not config.terminal:
            say("no screen here: playing in the terminal")
        manual.play_in_terminal(env, config.seed, sys.stdin or ())
        return
    try:
        manual.Window(env, config.seed).start()
    except manual.pygame.error as error:
        raise UsageError(f"no window can be opened here ({error}); try --terminal") from error


def build(config: PlayConfig, terminal: bool) -> gymnasium.Env:
    """Build the grid to play.

    Raises:
        UsageError: the id is not a grid, or cannot be built.
    """
    options: dict[str, Any] = {} if config.view_size is None else {"view_size": config.view_size}
    try:
        env_id = rmc_envs.resolve(config.env)
        if env_id in rmc_envs.NATIVE and not env_id.startswith(MINIGRIDS_MAZES):
            return native_grid(env_id, options, config.whole_maze)
        if env_id.startswith(MINIGRIDS_MAZES):
            env_id = env_id.replace("rmc/Memory", "MiniGrid-Memory")
        if not env_id.startswith(("MiniGrid-", "BabyAI-")):
            rmc_envs.make_reference(env_id)  # raises, with similar ids, if there is no such id
            raise ValueError(not_playable(config.env))
        if not terminal:
            options |= {"render_mode": "human", "agent_pov": not config.whole_maze}
        return rmc_envs.make_reference(env_id, **options)()
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # whatever the constructor of somebody's grid raises
        raise UsageError(f"{config.env} cannot be played: {type(error).__name__}: {shown(error)}") from error


def native_grid(env_id: str, options: dict[str, Any], whole_maze: bool) -> gymnasium.Env:
    """Build a native task on a grid.

    Raises:
        ValueError: the task is no grid with MiniGrid's codes, or has no such option.
    """
    from rmc_envs.native_grid import NativeGrid, is_grid  # imports pygame

    env = gymnasium.make(env_id, **options).unwrapped
    if not is_grid(env.batch):  # type: ignore[attr-defined]
        raise ValueError(not_playable(env_id))
    return NativeGrid(env, agent_pov=not whole_maze)  # type: ignore[arg-type]


def not_playable(env_id: str) -> str:
    """Return why an id cannot be played."""
    return (
        f"{env_id} cannot be played: choose a grid with turns and steps forward, such as "
        "MiniGrid-MemoryS13-v0 or rmc/MemoryMaze-9x9-v0"
    )


def has_screen() -> bool:
    """Return whether a window can be expected to open."""
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))


def cli() -> None:
    """Run the script as a command."""
    run_script(main, PlayConfig)


if __name__ == "__main__":
    cli()

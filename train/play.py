"""Walk a maze yourself: `python train/play.py --env MiniGrid-MemoryS13-v0`, seeing what agents see."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium

import envs
from rmc_agents.cli import parse, run_script
from rmc_agents.errors import UsageError


@dataclass(frozen=True)
class PlayConfig:
    """Play one of MiniGrid's grids by keyboard, with the agent's own view."""

    env: str = "MiniGrid-MemoryS9-v0"
    """A Memory maze of any odd size, or any other MiniGrid or BabyAI id."""
    view_size: int = 7
    """Cells to a side of the square that is seen."""
    seed: int = 0
    """Of the first episode; each has the next one."""
    terminal: bool = False
    """Letters in the terminal instead of a window; chosen by itself where there is no screen."""
    whole_maze: bool = False
    """Show all of it, as nobody but you would see it (in the window, M does that at any time)."""


def main(args: Sequence[str]) -> None:
    """Parse the flags and play until the player leaves."""
    config = parse(PlayConfig, None, args, prog="train/play.py")
    env_id = config.env.replace("rmc/Memory", "MiniGrid-Memory")
    if not env_id.startswith(("MiniGrid-", "BabyAI-")):
        raise UsageError(f"{config.env} cannot be walked: choose a grid, such as MiniGrid-MemoryS13-v0")
    terminal = config.terminal or not has_screen()
    options = {} if terminal else {"render_mode": "human", "agent_pov": not config.whole_maze}
    try:
        env = envs.farama(env_id, view_size=config.view_size, **options)()
    except (ValueError, AssertionError, gymnasium.error.Error) as error:
        raise UsageError(str(error)) from error
    from envs import manual  # brings pygame

    if terminal:
        if not config.terminal:
            print("no screen here: playing in the terminal")
        manual.play_in_terminal(env, config.seed, sys.stdin)
        return
    try:
        manual.Window(env, config.seed).start()
    except manual.pygame.error as error:
        raise UsageError(f"no window can be opened here ({error}); try --terminal") from error


def has_screen() -> bool:
    """Whether a window can be expected to open."""
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))


if __name__ == "__main__":
    run_script(main)

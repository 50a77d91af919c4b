"""Manual play of grids: in a window, by MiniGrid's manual control, or by letters in a terminal.

Import it only to play: it imports pygame.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, final

import gymnasium
import numpy as np
import pygame
from minigrid.core.actions import Actions
from minigrid.core.constants import IDX_TO_OBJECT
from minigrid.manual_control import ManualControl
from numpy.typing import NDArray

from .native_grid import NativeGrid

LETTERS = {
    "a": Actions.left,
    "d": Actions.right,
    "w": Actions.forward,
    "t": Actions.toggle,
    "p": Actions.pickup,
    "x": Actions.drop,
}
"""Actions by the letter to type in a terminal."""
SYMBOLS = {"unseen": " ", "empty": "·", "wall": "█", "agent": "▲"}
"""Symbols of cells in a terminal; other objects appear as the first letter of their name."""
KEYS_HELP = "arrows: walk; space: toggle; tab: pick up; M: whole maze; backspace: next episode; esc: quit"
LETTERS_HELP = "w: forward; a, d: turn left, right; t: toggle; p: pick up; x: drop; n: next episode; q: quit"
WALKING_KEYS_HELP = "arrows: walk; M: whole maze; backspace: next episode; esc: quit"
WALKING_LETTERS_HELP = "w: forward; a, d: turn left, right; n: next episode; q: quit"


@final
class Window(ManualControl):
    """A window with the agent's own view; each episode uses the next seed."""

    def __init__(self, env: gymnasium.Env, seed: int, write: Callable[[str], None] = print) -> None:
        """
        Args:
            env: made with `render_mode="human"` and `agent_pov=True`.
            seed: of the first episode.
            write: called with each message to the player.
        """
        super().__init__(env, seed)
        self.write, self.next_seed = write, seed
        # MiniGrid asks for a font by its file name, and gets the same one with a warning.
        warnings.filterwarnings("ignore", message="The system font", category=UserWarning)

    def start(self) -> None:
        """Play until the player quits."""
        self.write(WALKING_KEYS_HELP if isinstance(self.env, NativeGrid) else KEYS_HELP)
        self.reset()
        clock = pygame.time.Clock()
        while not self.closed:
            for event in pygame.event.get():
                if event.type == pygame.QUIT:
                    self.closed = True
                elif event.type == pygame.KEYDOWN:
                    event.key = pygame.key.name(int(event.key))
                    self.key_handler(event)
            clock.tick(30)
        self.env.close()

    def key_handler(self, event: Any) -> None:
        """Handle a pressed key: escape and M here, all others in MiniGrid's manual control."""
        if event.key == "escape":
            self.closed = True
        elif event.key == "m":
            grid: Any = self.env.unwrapped
            grid.agent_pov = not grid.agent_pov
            self.env.render()
        else:
            super().key_handler(event)

    def step(self, action: Actions) -> None:
        if not _allows(self.env, action):
            return
        _, reward, terminated, truncated, _ = self.env.step(action)
        if terminated or truncated:
            self.write(outcome(self.env, float(reward), terminated))
            self.reset()
        else:
            self.env.render()

    def reset(self, seed: int | None = None) -> None:
        super().reset(self.next_seed if seed is None else seed)
        self.write(f"seed {self.next_seed}: {mission(self.env)}")
        self.next_seed += 1


def play_in_terminal(
    env: gymnasium.Env, seed: int, lines: Iterable[str], write: Callable[[str], None] = print
) -> None:
    """Play by letters until the player quits or `lines` ends.

    Args:
        env: its observation holds MiniGrid's symbolic "image".
        seed: of the first episode; each later one uses the next seed.
        lines: input of the player, line by line.
        write: called with each view and message to the player.
    """
    help_text = WALKING_LETTERS_HELP if isinstance(env, NativeGrid) else LETTERS_HELP
    write(help_text)
    obs = _start_episode(env, seed, write)
    for line in lines:
        for letter in line.strip().lower():
            if letter == "q":
                return
            ended = letter == "n"
            if letter in LETTERS and _allows(env, LETTERS[letter]):
                asked = mission(env)
                obs, reward, terminated, truncated, _ = env.step(LETTERS[letter])
                ended = terminated or truncated
                if ended:
                    write(outcome(env, float(reward), terminated))
                elif mission(env) != asked:
                    write(f"reward {float(reward):g}; {mission(env)}")
            elif letter != "n":
                write(f"{letter!r} is not an action; {help_text}")
            if ended:
                seed += 1
                obs = _start_episode(env, seed, write)
                break  # the rest of the line was meant for the episode that ended
        else:
            write(view(obs["image"], numbered=isinstance(env, NativeGrid)))


def _allows(env: gymnasium.Env, action: Actions) -> bool:
    """Return whether an environment has an action; some have no more than the first three of MiniGrid's."""
    return env.action_space.contains(np.int64(action))


def _start_episode(env: gymnasium.Env, seed: int, write: Callable[[str], None]) -> Any:
    obs, _ = env.reset(seed=seed)
    write(f"seed {seed}: {mission(env)}")
    write(view(obs["image"], numbered=isinstance(env, NativeGrid)))
    return obs


def view(image: NDArray[np.uint8], numbered: bool = False) -> str:
    """Return the agent's view [V, V, 3] as text, with the agent in the middle of the last row, looking up.

    Args:
        image: MiniGrid's symbolic image.
        numbered: show a ball as the number of its color, from 1, instead of B.
    """
    size = len(image)
    cells = [[_symbol(image[x, y], numbered) for x in range(size)] for y in range(size)]
    cells[-1][size // 2] = SYMBOLS["agent"]
    edge = "+" + "-" * (2 * size + 1) + "+"
    return "\n".join([edge, *(f"| {' '.join(row)} |" for row in cells), edge])


def _symbol(codes: NDArray[np.uint8], numbered: bool) -> str:
    name = IDX_TO_OBJECT[int(codes[0])]
    if numbered and name == "ball":
        return str(int(codes[1]) + 1)
    return SYMBOLS.get(name, name[0].upper())


def outcome(env: gymnasium.Env, reward: float, terminated: bool) -> str:
    """Return one line on how an episode ended."""
    if isinstance(env, NativeGrid):
        return env.outcome()
    grid: Any = env.unwrapped
    steps = f"after {grid.step_count} steps"
    if reward > 0:
        return f"✓ solved {steps}: reward {reward:.3f}"
    has_choice = hasattr(grid, "failure_pos")  # the Memory mazes
    return f"✗ wrong choice {steps}" if terminated and has_choice else f"✗ failed {steps}"


def mission(env: gymnasium.Env) -> str:
    """Return the task in words."""
    grid: Any = env.unwrapped
    return str(grid.mission)

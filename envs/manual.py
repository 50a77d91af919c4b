"""MiniGrid's grids by hand: in a window, by MiniGrid's own manual control, or as letters in a terminal.

Imported only where somebody plays: it brings pygame.
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

LETTERS = {
    "a": Actions.left,
    "d": Actions.right,
    "w": Actions.forward,
    "t": Actions.toggle,
    "p": Actions.pickup,
    "x": Actions.drop,
}
"""What to type in a terminal."""
SHOWN = {"unseen": " ", "empty": "·", "wall": "█", "agent": "▲"}
"""A cell in a terminal; other things are shown by the first letter of their name."""
KEYS_HELP = "arrows: walk; space: toggle; tab: pick up; M: the whole maze; backspace: next; esc: leave"
LETTERS_HELP = "w: ahead; a, d: turn left, right; t: toggle; p: pick up; x: drop; n: next; q: leave"


@final
class Window(ManualControl):
    """A window with the agent's own view; each episode has the next seed.

    Args:
        env: made with `render_mode="human"` and `agent_pov=True`.
        seed: of the first episode.
        say: what tells the player how it goes.
    """

    def __init__(self, env: gymnasium.Env, seed: int, say: Callable[[str], None] = print) -> None:
        super().__init__(env, seed)
        self.say, self.next_seed = say, seed
        # MiniGrid asks for a font by its file's name, and gets the same one with a warning.
        warnings.filterwarnings("ignore", message="The system font", category=UserWarning)

    def start(self) -> None:
        """Play until the player leaves."""
        self.say(KEYS_HELP)
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
        """A pressed key; those of leaving and looking are ours, the others MiniGrid's."""
        if event.key == "escape":
            self.closed = True
        elif event.key == "m":
            grid: Any = self.env.unwrapped
            grid.agent_pov = not grid.agent_pov
            self.env.render()
        else:
            super().key_handler(event)

    def step(self, action: Actions) -> None:
        _, reward, terminated, truncated, _ = self.env.step(action)
        if terminated or truncated:
            self.say(verdict(self.env, float(reward), terminated))
            self.reset()
        else:
            self.env.render()

    def reset(self, seed: int | None = None) -> None:
        super().reset(self.next_seed if seed is None else seed)
        self.say(f"seed {self.next_seed}: {mission(self.env)}")
        self.next_seed += 1


def play_in_terminal(
    env: gymnasium.Env, seed: int, lines: Iterable[str], say: Callable[[str], None] = print
) -> None:
    """Play by letters until the player leaves or has no more lines.

    Args:
        env: its observation holds MiniGrid's symbolic "image".
        seed: of the first episode; each has the next one.
        lines: what the player types, line by line.
        say: what shows the player a view or a message.
    """
    say(LETTERS_HELP)
    obs = _begin(env, seed, say)
    for line in lines:
        for letter in line.strip().lower():
            if letter == "q":
                return
            ended = letter == "n"
            if letter in LETTERS:
                obs, reward, terminated, truncated, _ = env.step(LETTERS[letter])
                ended = terminated or truncated
                if ended:
                    say(verdict(env, float(reward), terminated))
            elif letter != "n":
                say(f"{letter!r} is no move; {LETTERS_HELP}")
            if ended:
                seed += 1
                obs = _begin(env, seed, say)
                break  # what was typed beyond the end was not meant for the next episode
        else:
            say(view(obs["image"]))


def _begin(env: gymnasium.Env, seed: int, say: Callable[[str], None]) -> Any:
    obs, _ = env.reset(seed=seed)
    say(f"seed {seed}: {mission(env)}")
    say(view(obs["image"]))
    return obs


def view(image: NDArray[np.uint8]) -> str:
    """What the agent sees, as text: [V, V, 3] with the agent in the middle below, looking up."""
    size = len(image)
    cells = [[_letter(int(image[x, y, 0])) for x in range(size)] for y in range(size)]
    cells[-1][size // 2] = SHOWN["agent"]
    edge = "+" + "-" * (2 * size + 1) + "+"
    return "\n".join([edge, *(f"| {' '.join(row)} |" for row in cells), edge])


def _letter(thing: int) -> str:
    name = IDX_TO_OBJECT[thing]
    return SHOWN.get(name, name[0].upper())


def verdict(env: gymnasium.Env, reward: float, terminated: bool) -> str:
    """How an episode ended."""
    grid: Any = env.unwrapped
    steps = f"after {grid.step_count} steps"
    if reward > 0:
        return f"✓ solved {steps}: reward {reward:.3f}"
    return f"✗ the wrong one, {steps}" if terminated and hasattr(grid, "failure_pos") else f"✗ failed {steps}"


def mission(env: gymnasium.Env) -> str:
    """What to do."""
    grid: Any = env.unwrapped
    return str(grid.mission)

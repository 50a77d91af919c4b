"""Native tasks on grids are played by a person, in a window without a screen and in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import rmc_envs
from rmc_envs import MemoryMaze
from rmc_envs.memory_maze.players import PerfectKnowledge
from tests.support.commands import run_script

pygame = pytest.importorskip("pygame")
ROOT = Path(__file__).parents[2]
MAZE = "rmc/MemoryMaze-9x9-v0"
LETTERS, KEYS = "adw", (pygame.K_LEFT, pygame.K_RIGHT, pygame.K_UP)


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    yield
    pygame.quit()


def way_to_first_target(seed: int) -> list[int]:
    """Return the actions up to the first target."""
    task = MemoryMaze(1)
    player, obs, actions = PerfectKnowledge(task), task.reset(seed), []
    while True:
        action = player.act(obs, torch.zeros(1, dtype=torch.bool))
        actions.append(int(action))
        step = task.step(action)
        obs = step.obs
        if step.reward.item() == 1:
            return actions


def grid(**options: int) -> gymnasium.Env:
    from rmc_envs.native_grid import NativeGrid

    return NativeGrid(gymnasium.make(MAZE, **options).unwrapped)  # type: ignore[arg-type]


def played(*lines: str, seed: int = 3, **options: int) -> list[str]:
    from rmc_envs.manual import play_in_terminal

    said: list[str] = []
    play_in_terminal(grid(**options), seed, lines, said.append)
    return said


def test_terminal_names_each_target_and_the_return() -> None:
    way = way_to_first_target(3)
    said = played("".join(LETTERS[action] for action in way), "t", max_steps=500)
    assert said[0].startswith("w: forward")
    assert said[1].startswith("seed 3: go to the ")
    (reached,) = [line for line in said if line.startswith("reward 1; go to the ")]
    assert reached.removeprefix("reward 1; ") != said[1].removeprefix("seed 3: ")
    assert any(line.startswith("'t' is not an action") for line in said)
    ended = played("".join(LETTERS[action] for action in way), max_steps=len(way))
    assert f"episode over after {len(way)} steps: return 1" in ended
    assert any(line.startswith("seed 4: ") for line in ended)


def test_text_shows_balls_as_the_numbers_of_the_pictures() -> None:
    from rmc_envs.manual import view

    image = np.zeros((3, 3, 3), dtype=np.uint8)
    image[0, 1], image[2, 0], image[1, 0] = (6, 0, 0), (6, 2, 0), (2, 5, 0)
    rows = view(image, numbered=True).splitlines()[1:-1]
    assert rows == ["|   █ 3 |", "| 1     |", "|   ▲   |"]
    assert "B" in view(image)


@pytest.mark.usefixtures("no_screen")
def test_window_is_played_by_keys_and_shows_view_or_maze() -> None:
    from rmc_envs.manual import Window

    said: list[str] = []
    window = Window(grid(max_steps=500), 3, said.append)
    for key in (*(KEYS[action] for action in way_to_first_target(3)), pygame.K_SPACE):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_m))
    pictures = []
    draw = window.env.render

    def render() -> None:
        draw()
        pictures.append(pygame.surfarray.array3d(pygame.display.get_surface()))

    window.env.render = render  # type: ignore[method-assign]
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
    window.start()
    assert said[0].startswith("arrows: walk; M")
    assert window.env.total == 1  # type: ignore[attr-defined]
    assert len(pictures) == 2 + len(way_to_first_target(3))  # the space bar does nothing
    assert all(picture.shape[0] == 640 for picture in pictures)
    assert pictures[-1].shape != pictures[-2].shape or (pictures[-1] != pictures[-2]).any()


def test_only_grids_are_played() -> None:
    from rmc_envs.native_grid import is_grid

    assert is_grid(rmc_envs.make(MAZE))
    assert not is_grid(rmc_envs.make("rmc/KeyValue-v0"))
    assert not is_grid(rmc_envs.make("rmc/MemoryS9-v0", actions=3))  # played as MiniGrid's own environment


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "rmc/KeyValue-v0"], "rmc/KeyValue-v0 cannot be played: choose a grid"),
        (["--env", MAZE, "--view-size", "4"], "--view-size 4: expected an odd number"),
    ],
)
def test_script_refuses_what_cannot_be_played(flags: list[str], message: str) -> None:
    result = run_script("play", *flags, cwd=ROOT)
    assert result.code == 2
    assert message in result.errors
    assert len(result.errors.strip().splitlines()) == 1

"""Manual play moves the environment: in a window without a screen, and in a terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rmc_envs
from tests.support.agents import MAZE
from tests.support.commands import run_script

pygame = pytest.importorskip("pygame")
ROOT = Path(__file__).parents[2]
UP, LEFT, RIGHT = pygame.K_UP, pygame.K_LEFT, pygame.K_RIGHT
TO_JUNCTION = 5


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    yield
    pygame.quit()


def press(*keys: int) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))


def right_turn(seed: int) -> tuple[int, str]:
    """Return the right turn at the junction, as a key and as a letter."""
    env = rmc_envs.make_reference(MAZE)()
    env.reset(seed=seed)
    above = env.unwrapped.success_pos[1] < env.unwrapped.failure_pos[1]  # type: ignore[attr-defined]
    return (LEFT, "a") if above else (RIGHT, "d")


@pytest.mark.slow
@pytest.mark.usefixtures("no_screen")
def test_window_is_played_by_keys() -> None:
    from rmc_envs.manual import Window

    said: list[str] = []
    right = right_turn(3)[0]
    wrong = RIGHT if right_turn(4)[0] == LEFT else LEFT
    env = rmc_envs.make_reference(MAZE, render_mode="human", agent_pov=True)()
    window = Window(env, 3, said.append)
    press(*[UP] * TO_JUNCTION, right, UP)
    press(*[UP] * TO_JUNCTION, wrong, UP)
    press(pygame.K_m, pygame.K_BACKSPACE, pygame.K_ESCAPE)
    window.start()
    assert window.closed
    assert [line.split(":")[0] for line in said[1:]] == [
        "seed 3",
        f"✓ solved after {TO_JUNCTION + 2} steps",
        "seed 4",
        f"✗ wrong choice after {TO_JUNCTION + 2} steps",
        "seed 5",
        "seed 6",
    ]


@pytest.mark.usefixtures("no_screen")
def test_window_shows_the_agents_own_view() -> None:
    from rmc_envs.manual import Window

    env = rmc_envs.make_reference(MAZE, render_mode="human", agent_pov=True)()
    window = Window(env, 0, lambda _: None)
    window.reset()
    own = pygame.surfarray.array3d(pygame.display.get_surface())
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key="m"))
    window.key_handler(pygame.event.get(pygame.KEYDOWN)[0])
    whole = pygame.surfarray.array3d(pygame.display.get_surface())
    assert own.shape == whole.shape == (640, 640, 3)
    assert len(np.unique(own)) > 3  # something is drawn
    assert (own != whole).any()
    env.close()


def played(*lines: str, seed: int = 3) -> list[str]:
    from rmc_envs.manual import play_in_terminal

    said: list[str] = []
    play_in_terminal(rmc_envs.make_reference(MAZE)(), seed, lines, said.append)
    return said


def test_terminal_is_played_by_letters() -> None:
    letter = right_turn(3)[1]
    said = played("w" * TO_JUNCTION + letter + "w", "n", "?", "q", "w")
    assert f"✓ solved after {TO_JUNCTION + 2} steps: reward 0.974" in said
    assert [line.split(":")[0] for line in said if line.startswith("seed")] == ["seed 3", "seed 4", "seed 5"]
    assert any(line.startswith("'?' is not an action") for line in said)
    assert played() == played("q")  # the end of the input quits


def test_text_shows_the_agents_view() -> None:
    from rmc_envs.manual import view

    env: gymnasium.Env = rmc_envs.make_reference(MAZE)()
    obs, _ = env.reset(seed=1)
    rows = view(obs["image"]).splitlines()[1:-1]
    assert len(rows) == 7
    letters = [[row[2 + 2 * x] for x in range(7)] for row in rows]
    assert letters[6][3] == "▲"
    for x in range(7):
        for y in range(7):
            thing = obs["image"][x, y, 0]
            if (x, y) != (3, 6):
                assert letters[y][x] == {0: " ", 1: "·", 2: "█", 5: "K", 6: "B"}[int(thing)]


def play(*flags: str, keys: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train" / "play.py"), *flags],
        input=keys,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )


def test_script_plays_in_the_terminal_without_a_screen() -> None:
    result = play("--env", "rmc/MemoryS13-v0", "--view-size", "3", keys="ww\nq\n")
    assert result.returncode == 0, result.stderr
    assert "matching object" in result.stdout
    assert "▲" in result.stdout
    if sys.platform.startswith("linux"):
        assert "no screen here" in result.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "CartPole-v1"], "cannot be played"),
        (["--env", "MiniGrid-MemoryS8-v0"], "odd"),
        (["--env", "MiniGrid-Nope-v0"], "unknown environment"),
    ],
)
def test_script_refuses_what_cannot_be_played(flags: list[str], message: str) -> None:
    result = run_script("play", *flags, cwd=ROOT)
    assert result.code == 2
    assert message in result.errors
    assert len(result.errors.strip().splitlines()) == 1

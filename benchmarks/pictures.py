"""Pictures of the native tasks for docs/guide/abilities.md: `python -m benchmarks.pictures`.

Each shows a moment of an episode that the player of the stored reference scores plays, or random actions
where there is none. Tasks that cannot be drawn are left out.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import rmc_envs
from rmc_agents.environment import ObservationIds
from rmc_envs.gymnasium.api import Drawable
from rmc_envs.players import RandomPlayer
from rmc_envs.references import PLAYERS

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 200
"""Largest width of a picture, in pixels."""
COLORS = 48


@dataclass(frozen=True)
class Scene:
    """A moment of an episode."""

    env_id: str
    steps: int
    """Number of steps before the picture."""
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def scene(name: str, steps: int, seed: int = 0, **options: Any) -> Scene:
    """Return a scene of a task whose id is `rmc/NAME-v0`."""
    return Scene(f"rmc/{name}-v0", steps, options, seed)


SCENES = (
    scene("MemoryS9", 3),
    scene("Recall", 0),
    scene("TMaze", 0),
    scene("RepeatFirst", 6),
    scene("MemoryChain", 0, num_bits=12),
    scene("RepeatPrevious", 12),
    scene("Autoencode", 12),
    scene("CountRecall", 12),
    scene("HigherLower", 8),
    scene("MultiarmedBandit", 40),
    scene("KeyValue", 3),
    scene("MemoryCards", 6),
    scene("Concentration", 45),
    scene("NthFarthest", 4),
    scene("BoxWorldViewport", 12),
    scene("MemoryMaze-9x9", 60),
    scene("MiniPacManViewport", 25),
    scene("Battleship", 20),
    scene("MineSweeper", 6),
    scene("EndlessTMaze", 14, seed=3),
    scene("ColorCubes", 0),
    scene("PositionOnlyCartPole", 20),
    scene("VelocityOnlyCartPole", 25),
    scene("NoisyPositionOnlyCartPole", 20),
    scene("PositionOnlyPendulum", 15),
    scene("NoisyPositionOnlyPendulum", 25),
)


def file_name(env_id: str) -> str:
    """Return the name of a task's picture."""
    return env_id.removeprefix("rmc/").removesuffix("-v0").lower() + ".png"


def draw(shown: Scene) -> NDArray[np.uint8] | None:
    """Return the picture [height, width, 3] of a scene; None if the task cannot be drawn."""
    env = rmc_envs.make(shown.env_id, 1, **shown.options)
    if not isinstance(env, Drawable):
        return None
    _, player_class = PLAYERS.get(popgym_level(shown.env_id), (RandomPlayer, RandomPlayer))
    player = player_class(env, shown.seed)
    obs, starts = env.reset(shown.seed), torch.ones(1, dtype=torch.bool)
    env.render()  # some tasks record what they draw, from their first picture on
    for _ in range(shown.steps):
        assert not isinstance(obs, ObservationIds)
        step = env.step(player.act(obs, starts))
        obs, starts = step.obs, step.done
    return env.render()


def popgym_level(env_id: str) -> str:
    """Return the id with stored scores: POPGym's families have the options of their level Easy."""
    return env_id if env_id in PLAYERS else rmc_envs.popgym_id(env_id.replace("-v0", "Easy-v0"))


def save(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, small enough for a page with many."""
    image = Image.fromarray(picture)
    if image.width > WIDTH:
        height = round(image.height * WIDTH / image.width)
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", nargs="+", help="ids of the tasks to draw")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for shown in SCENES:
        if args.only and shown.env_id not in args.only:
            continue
        picture = draw(shown)
        if picture is None:
            print(f"{shown.env_id} cannot be drawn")
            continue
        path = args.folder / file_name(shown.env_id)
        save(picture, path)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

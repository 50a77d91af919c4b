"""What scores mean: the mean returns of random actions, of play without a memory, and of reference play."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .box_world import players as box_world
from .color_cubes import players as color_cubes
from .memory_maze import players as memory_maze
from .mini_pacman import players as mini_pacman
from .players import Player, RandomPlayer
from .popgym.levels import FAMILIES, LEVELS, popgym_id
from .popgym.players.by_family import PLAYERS as OF_POPGYM
from .sequences import memory_players
from .sequences import players as sequences
from .t_maze import players as t_maze

STORED = "references.json"
"""File beside this one that holds the scores; `python -m rmc_envs.measure` writes it."""

PLAYERS: dict[str, tuple[type[Player], type[Player]]] = {
    **{family.popgym_id(level): OF_POPGYM[family.FAMILY] for level in LEVELS for family in FAMILIES},
    "rmc/Recall-v0": (RandomPlayer, sequences.RecallReference),
    "rmc/KeyValue-v0": (RandomPlayer, sequences.KeyValueReference),
    "rmc/BoxWorld-v0": (box_world.BoxWorldMemoryless, box_world.BoxWorldReference),
    "rmc/BoxWorldViewport-v0": (box_world.BoxWorldMemoryless, box_world.BoxWorldReference),
    "rmc/MiniPacMan-v0": (mini_pacman.MiniPacManShortSighted, mini_pacman.MiniPacManReference),
    "rmc/MiniPacManViewport-v0": (mini_pacman.MiniPacManMemoryless, mini_pacman.MiniPacManReference),
    "rmc/NthFarthest-v0": (sequences.NthFarthestMemoryless, sequences.NthFarthestReference),
    "rmc/MemoryCards-v0": (memory_players.MemoryCardsMemoryless, memory_players.MemoryCardsReference),
    "rmc/MemoryChain-v0": (memory_players.MemoryChainMemoryless, memory_players.MemoryChainReference),
    "rmc/ColorCubes-v0": (color_cubes.ColorCubesMemoryless, color_cubes.ColorCubesReference),
    "rmc/TMaze-v0": (t_maze.TMazeMemoryless, t_maze.TMazeReference),
    "rmc/EndlessTMaze-v0": (t_maze.EndlessTMazeMemoryless, t_maze.EndlessTMazeReference),
    **{
        f"rmc/MemoryMaze-{size}x{size}-v0": (memory_maze.Memoryless, memory_maze.PerfectMemory)
        for size in (9, 11, 13, 15)
    },
}
"""By id: the player without a memory, and that of the reference."""


class References(NamedTuple):
    """Mean returns in one task."""

    random: float
    """Of uniformly random actions."""
    memoryless: float
    """Of the best play known that uses no more than the observation and the number of the step."""
    reference: float
    """Of a perfect memory, where the task is no more than that, and else of the best play that is known."""

    def normalized(self, score: float) -> float:
        """Return where a score lies between the best play without a memory, 0, and the reference, 1."""
        return (score - self.memoryless) / (self.reference - self.memoryless)


def references(env_id: str) -> References | None:
    """Return what scores mean in a task with the options of its id; None for a task without players.

    Args:
        env_id: such as `rmc/KeyValue-v0`, `popgym-RepeatPreviousEasy-v0` or `rmc/RepeatPreviousEasy-v0`.
    """
    stored = _stored().get(popgym_id(env_id))
    return None if stored is None else References(*(stored[name] for name in References._fields))


@cache
def _stored() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name(STORED)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

"""Pictures of the Memory mazes, drawn by MiniGrid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .tables import BALL, EMPTY, KEY, WALL, MazeSpec, Tables, maze_cells


def draw_state(specs: Sequence[MazeSpec], tables: Tables, state: int, tile_size: int) -> NDArray[np.uint8]:
    """Return a picture [height, width, 3] of a state, with the agent's view highlighted."""
    from minigrid.core.world_object import Ball, Key, Wall  # slow to import, and only needed here
    from minigrid.envs.memory import MemoryEnv

    maze, end, cue, order, x, y = tables.place[state].tolist()
    spec = specs[maze]
    env = MemoryEnv(size=spec.size, agent_view_size=spec.view_size)
    cells = maze_cells(spec.size, end, cue, order)
    objects = {WALL: Wall, KEY: Key, BALL: Ball}
    for column, row in np.argwhere(cells != EMPTY).tolist():
        kind = objects[int(cells[column, row])]
        env.grid.set(column, row, Wall() if kind is Wall else kind("green"))
    env.agent_pos, env.agent_dir = np.array((x, y)), int(tables.direction[state])
    return env.get_full_render(highlight=True, tile_size=tile_size)

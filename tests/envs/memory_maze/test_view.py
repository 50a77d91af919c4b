"""Views and pictures equal those that MiniGrid computes cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Wall
from minigrid.minigrid_env import MiniGridEnv

from rmc_envs.memory_maze import MemoryMaze
from rmc_envs.memory_maze.view import OBJECT_COLORS, row_tables


class Twin(MiniGridEnv):
    """One maze of a batch as an environment of MiniGrid."""

    def __init__(self, task: MemoryMaze, i: int, see_through_walls: bool) -> None:
        size = task.size + 2
        space: Any = MissionSpace(lambda: "")
        super().__init__(
            space,
            width=size,
            height=size,
            max_steps=1,
            agent_view_size=task.view_size,
            see_through_walls=see_through_walls,
        )
        self.mission = ""
        self.grid = Grid(size, size)
        for row, column in task.world.walls[i].nonzero().tolist():
            self.grid.set(column, row, Wall())
        for k, (column, row) in enumerate(task.world.objects[i].tolist()):
            self.grid.set(column, row, Ball(OBJECT_COLORS[k]))
        column, row, self.agent_dir = task.places()[i].tolist()
        self.agent_pos = (column, row)

    def _gen_grid(self, width: int, height: int) -> None:
        pass


@pytest.mark.parametrize(
    ("size", "view_size", "see_through_walls"),
    [(9, 7, False), (9, 5, False), (9, 3, False), (15, 7, False), (9, 11, False), (9, 5, True)],
)
def test_image_equals_minigrids(size: int, view_size: int, see_through_walls: bool) -> None:
    task = MemoryMaze(16, size=size, view_size=view_size, see_through_walls=see_through_walls)
    obs = task.reset(seed=size)
    generator = torch.Generator().manual_seed(0)
    for t in range(41):
        if t % 5 == 0:
            for i in range(16):
                expected = Twin(task, i, see_through_walls).gen_obs()
                np.testing.assert_array_equal(obs["image"][i].numpy(), expected["image"])
                assert obs["direction"][i] == expected["direction"]
        obs = task.step(torch.randint(3, (16,), generator=generator)).obs


def test_image_equals_minigrids_from_every_pose() -> None:
    task = MemoryMaze(1)
    task.reset(seed=5)
    viewer, margin = task.viewer, task.viewer.margin
    for row, column in (~task.world.walls[0]).nonzero().tolist():
        for direction in range(4):
            pose = (direction * viewer.width + row + margin) * viewer.width + column + margin
            task.scene = task.scene._replace(pose=torch.tensor([pose]))
            assert task.places().tolist() == [[column, row, direction]]
            expected = Twin(task, 0, False).gen_obs()["image"]
            np.testing.assert_array_equal(task._observe()["image"][0].numpy(), expected)


@pytest.mark.parametrize("view_size", [3, 5])
def test_row_tables_equal_minigrids_visibility(view_size: int) -> None:
    seen, following = row_tables(view_size)
    for index in range(4**view_size):
        start, free = index >> view_size, index & (2**view_size - 1)
        # The row in question lies between two rows; only its own cells are known to be seen at first.
        known = [start >> i & 1 for i in range(view_size)]
        ahead = [0] * view_size
        for cells, step in ((range(view_size - 1), 1), (range(view_size - 1, 0, -1), -1)):
            for i in cells:
                if known[i] and free >> i & 1:
                    known[i + step] = ahead[i] = ahead[i + step] = 1
        assert seen[index] == sum(bit << i for i, bit in enumerate(known))
        assert following[index] >> view_size == sum(bit << i for i, bit in enumerate(ahead))


def test_picture_highlights_the_view_and_changes() -> None:
    task = MemoryMaze(2, max_steps=12)
    task.reset(seed=3)
    before = task.render(1, tile_size=24)
    assert before.dtype == np.uint8
    frame, bar = 6, 24
    assert before.shape == (11 * 24 + 2 * frame + bar, 11 * 24 + 2 * frame, 3)
    column, row, _ = task.places()[1].tolist()

    def corner(picture: np.ndarray, column: int, row: int) -> list[int]:
        return picture[bar + frame + row * 24 + 3, frame + column * 24 + 3].tolist()

    seen = task.viewer.seen_cells(task._lines, task.scene.pose)[1]
    margin = task.viewer.margin
    seen = seen[margin:-margin, margin:-margin]
    free = ~task.world.walls[1]
    hidden_column, hidden_row = (free & ~seen).nonzero()[0].flip(0).tolist()
    assert min(corner(before, column, row)) > max(corner(before, hidden_column, hidden_row))
    task.step(torch.zeros(2, dtype=torch.int64))
    assert not np.array_equal(task.render(1, tile_size=24), before)
    assert task.render_view(1).shape == (5 * 32 + 16 + 32, 5 * 32 + 16, 3)


def test_final_picture_is_of_the_episode_that_ended() -> None:
    task = MemoryMaze(2, max_steps=3)
    task.reset(seed=3)
    for _ in range(2):
        task.step(torch.zeros(2, dtype=torch.int64))
    assert np.array_equal(task.render(0, final=True), task.render(0))
    walls, before = task.world.walls, task.places()
    task.step(torch.zeros(2, dtype=torch.int64))
    assert not task.world.walls.equal(walls)
    final, first = task.render(0, final=True), task.render(0)
    assert not np.array_equal(final, first)
    twin = MemoryMaze(2, max_steps=4)
    twin.reset(seed=3)
    for _ in range(3):
        twin.step(torch.zeros(2, dtype=torch.int64))
    assert twin.places()[:, :2].equal(before[:, :2])
    assert np.array_equal(final, twin.render(0))
    task.step(torch.zeros(2, dtype=torch.int64))
    assert np.array_equal(task.render(0, final=True), task.render(0))

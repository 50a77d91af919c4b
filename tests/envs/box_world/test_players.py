"""Players of BoxWorld: a perfect memory solves what play without one does not."""

import pytest
import torch

from rmc_envs.box_world.box_world import BoxWorld
from rmc_envs.box_world.planning import FAR, flood
from rmc_envs.box_world.players import BoxWorldMemoryless, BoxWorldReference
from rmc_envs.players import play


@pytest.mark.parametrize(("view_size", "lowest", "highest"), [(5, -0.5, 7.0), (None, 4.0, 10.5)])
def test_reference_solves_levels_and_the_memoryless_player_only_some(
    view_size: int | None, lowest: float, highest: float
) -> None:
    task = BoxWorld(40, view_size=view_size, max_solution=3)
    # A solved level returns 10 and the length of its solution, 12 on average.
    assert float(play(task, BoxWorldReference(task), 40, seed=0).mean()) > 11.3
    assert lowest < float(play(task, BoxWorldMemoryless(task), 40, seed=0).mean()) < highest


def test_flood_finds_shortest_paths_around_obstacles() -> None:
    passable = torch.tensor([[[1, 1, 1], [0, 0, 1], [1, 1, 1]]], dtype=torch.bool)
    targets = torch.zeros_like(passable)
    targets[0, 2, 0] = True
    assert flood(targets, passable)[0].tolist() == [[6, 5, 4], [FAR, FAR, 3], [0, 1, 2]]
    assert (flood(torch.zeros_like(targets), passable) == FAR).all()

"""Players walk shortest paths, and a memory is worth as much as its description says."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from rmc_envs.memory_maze import MemoryMaze
from rmc_envs.memory_maze.measure import measure
from rmc_envs.memory_maze.paths import FAR, poses_before, shortest, to_bits
from rmc_envs.memory_maze.players import WANDERING, Memoryless, PerfectKnowledge, PerfectMemory
from rmc_envs.players import Player, RandomPlayer

Pose = tuple[int, int, int]
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def successors(free: list[list[bool]], pose: Pose) -> list[Pose]:
    """Return the poses after turning left, turning right, and walking forward."""
    column, row, direction = pose
    ahead = column + STEPS[direction][0], row + STEPS[direction][1]
    inside = 0 <= ahead[0] < len(free[0]) and 0 <= ahead[1] < len(free)
    walks = inside and free[ahead[1]][ahead[0]]
    turned = [(column, row, (direction + turn) % 4) for turn in (-1, 1)]
    return [*turned, (*ahead, direction) if walks else pose]


def distance(free: list[list[bool]], start: Pose, goal: tuple[int, int]) -> int:
    """Return the number of steps of a breadth-first search, at least 1."""
    found, queue = {start: 0}, deque([start])
    while queue:
        pose = queue.popleft()
        if pose[:2] == goal and found[pose] > 0:
            return found[pose]
        for following in successors(free, pose):
            if following not in found:
                found[following] = found[pose] + 1
                queue.append(following)
    return FAR


def test_shortest_paths_equal_a_breadth_first_search() -> None:
    task = MemoryMaze(60)
    obs = task.reset(0)
    walls, objects = task.world
    target = objects[torch.arange(60), obs["prompt"]]
    goals = torch.zeros(60, 11, dtype=torch.int64)
    goals[torch.arange(60), target[:, 1]] = 1 << target[:, 0]
    way = shortest(to_bits(~walls), goals.unsqueeze(1).expand(-1, 4, -1), task.places())
    for i in range(60):
        free = (~walls[i]).tolist()
        column, row, direction = task.places()[i].tolist()
        start, goal = (column, row, direction), tuple(target[i].tolist())
        assert int(way.steps[i]) == distance(free, start, goal)
        following = successors(free, start)[int(way.action[i])]
        assert following[:2] == goal or distance(free, following, goal) == int(way.steps[i]) - 1


def test_goals_that_cannot_be_reached_are_far() -> None:
    free = to_bits(torch.tensor([[[1, 1, 0, 1]]]).bool())
    goals = to_bits(torch.tensor([[[0, 0, 0, 1]]]).bool()).unsqueeze(1).expand(-1, 4, -1)
    assert int(shortest(free, goals, torch.tensor([[0, 0, 0]])).steps) >= FAR
    assert int(shortest(free, goals, torch.tensor([[3, 0, 0]])).steps) == 1


def test_poses_before_cells_look_at_them() -> None:
    free = to_bits(torch.tensor([[[0, 0, 0], [1, 0, 1], [0, 1, 0]]]).bool())
    middle = to_bits(torch.tensor([[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]).bool())
    found = poses_before(free, middle)
    expected = [[0, 0b001, 0], [0, 0, 0], [0, 0b100, 0], [0, 0, 0b010]]  # right, down, left, up
    assert found[0].tolist() == expected


@pytest.mark.parametrize(
    ("player", "low", "high"),
    [(RandomPlayer, 0.3, 3), (Memoryless, 24, 42), (PerfectMemory, 86, 104), (PerfectKnowledge, 92, 104)],
)
def test_players_reach_their_scores(player: type[Player], low: float, high: float) -> None:
    mean, error = measure(MemoryMaze(96, max_steps=250), player, 96)
    assert error < 1
    assert low < 4 * mean < high


def test_perfect_memory_sees_no_more_than_its_observations() -> None:
    one, other = MemoryMaze(8), MemoryMaze(8)
    players = PerfectMemory(one), PerfectMemory(other)
    obs = one.reset(3)
    assert other.reset(3)["image"].equal(obs["image"])
    starts = torch.ones(8, dtype=torch.bool)
    del other.world  # type: ignore[attr-defined]
    for _ in range(60):
        actions = players[0].act(obs, starts)
        assert actions.equal(players[1].act(obs, starts))
        obs, starts = one.step(actions).obs, torch.zeros(8, dtype=torch.bool)


def test_perfect_memory_knows_the_maze_in_the_end() -> None:
    task = MemoryMaze(8, max_steps=500)
    player, obs, starts = PerfectMemory(task), task.reset(3), torch.ones(8, dtype=torch.bool)
    for _ in range(300):
        obs, starts = task.step(player.act(obs, starts)).obs, torch.zeros(8, dtype=torch.bool)
    shift = player.place + player.moves - task.places()[:, :2]
    for i in range(8):
        places = task.world.objects[i] + shift[i]
        assert player.objects[i].tolist() == (places[:, 1] * player.side + places[:, 0]).tolist()
        row, column = (player.free[i, :-1].view(player.side, -1)).nonzero().unbind(1)
        assert not task.world.walls[i, row - shift[i, 1], column - shift[i, 0]].any()


def test_wandering_is_a_distribution_that_never_walks_into_walls() -> None:
    torch.testing.assert_close(WANDERING.sum(1), torch.ones(8))
    assert not WANDERING[:4, 2].any()

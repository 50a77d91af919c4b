"""Memory Maze: moves, targets, prompts, options and saved states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rmc_envs
from rmc_envs.memory_maze import MemoryMaze
from rmc_envs.memory_maze.players import PerfectKnowledge

LEFT, RIGHT, FORWARD = 0, 1, 2


def actions_of(task: MemoryMaze, action: int) -> Tensor:
    return torch.full((task.num_envs,), action)


def placed(task: MemoryMaze, column: int, row: int, direction: int) -> None:
    """Put all agents somewhere."""
    viewer = task.viewer
    cell = (row + viewer.margin) * viewer.width + column + viewer.margin
    pose = torch.full((task.num_envs,), direction * viewer.width**2 + cell)
    task.scene = task.scene._replace(pose=pose)


def open_room(task: MemoryMaze, objects: list[list[int]]) -> None:
    """Replace all mazes by one room with these objects."""
    walls = torch.ones_like(task.world.walls)
    walls[:, 1:-1, 1:-1] = False
    places = torch.tensor(objects).expand(task.num_envs, -1, 2)
    task._set_world(task.world._replace(walls=walls, objects=places), task.scene)


def test_agents_turn_walk_and_stop_at_walls() -> None:
    task = MemoryMaze(2)
    task.reset(0)
    open_room(task, [[5, 5], [6, 6], [7, 7]])
    placed(task, 8, 1, 0)
    for action, expected in [
        (FORWARD, [9, 1, 0]),
        (FORWARD, [9, 1, 0]),
        (RIGHT, [9, 1, 1]),
        (FORWARD, [9, 2, 1]),
        (LEFT, [9, 2, 0]),
        (LEFT, [9, 2, 3]),
        (LEFT, [9, 2, 2]),
        (FORWARD, [8, 2, 2]),
        (RIGHT, [8, 2, 3]),
        (FORWARD, [8, 1, 3]),
        (FORWARD, [8, 1, 3]),
        (RIGHT, [8, 1, 0]),
    ]:
        step = task.step(actions_of(task, action))
        assert task.places().tolist() == [expected] * 2
        assert step.obs["direction"].tolist() == [expected[2]] * 2


def test_only_the_prompted_object_is_rewarded_and_then_another_is_asked_for() -> None:
    task = MemoryMaze(400)
    task.reset(0)
    open_room(task, [[3, 1], [4, 1], [5, 1]])
    placed(task, 2, 1, 0)
    asked = [task.scene.prompt]
    for here in range(3):
        step = task.step(actions_of(task, FORWARD))
        assert task.places()[:, 0].tolist() == [3 + here] * 400
        assert step.reward.equal((asked[-1] == here).float())
        reached = step.reward.bool()
        assert (step.obs["prompt"][reached] != here).all()
        assert step.obs["prompt"][~reached].equal(asked[-1][~reached])
        others = step.obs["prompt"][reached].bincount(minlength=3)
        share = others[torch.arange(3) != here] / reached.sum()
        assert share.sub(0.5).abs().max() < 0.2
        # The ball under the agent is hidden.
        assert (step.obs["image"][:, 2, 4] == torch.tensor([1, 0, 0])).all()
        asked.append(step.obs["prompt"])
        # Staying there is no second visit.
        assert not task.step(actions_of(task, LEFT)).reward.any()
        task.step(actions_of(task, RIGHT))
    assert task.scene.score.max() > 1


def test_episodes_are_truncated_after_their_steps_and_a_new_maze_begins() -> None:
    task = MemoryMaze(3, max_steps=4)
    task.reset(1)
    for _ in range(2):
        walls = task.world.walls
        for time in range(1, 5):
            step = task.step(actions_of(task, LEFT))
            assert not step.terminated.any()
            assert step.truncated.tolist() == [time == 4] * 3
            assert step.success is None
            same = all(step.obs[key].equal(step.final_obs[key]) for key in step.obs)
            assert same == (time < 4)
        assert not (walls == task.world.walls).flatten(1).all(1).any()
        assert task.scene.score.tolist() == [0, 0, 0]


def test_prompts_and_starts_are_uniform() -> None:
    task = MemoryMaze(6000, num_objects=3)
    obs = task.reset(2)
    assert (obs["prompt"].bincount() - 2000).abs().max() < 200
    assert (obs["direction"].bincount() - 1500).abs().max() < 180


@pytest.mark.parametrize(("redraw", "same_maze", "same_objects"), [("objects", 1, 0), ("nothing", 1, 1)])
def test_what_is_not_redrawn_is_that_of_the_maze_seed(
    redraw: Any, same_maze: bool, same_objects: bool
) -> None:
    tasks = [MemoryMaze(5, redraw=redraw, maze_seed=4, max_steps=2) for _ in range(2)]
    worlds = []
    for seed, task in enumerate(tasks):
        task.reset(seed)
        worlds.append(task.world)
        for _ in range(2):
            task.step(actions_of(task, LEFT))
        worlds.append(task.world)
    first = worlds[0]
    assert (first.walls == first.walls[0]).all()
    assert (first.objects == first.objects[0]).all() == same_objects
    for other in worlds[1:]:
        assert first.walls.equal(other.walls) == same_maze
        assert first.objects.equal(other.objects) == same_objects
    other_maze = MemoryMaze(5, redraw=redraw, maze_seed=5)
    assert not other_maze.world.walls.equal(first.walls)


def test_auxiliary_targets_are_the_places_of_objects_that_have_been_in_view() -> None:
    task = MemoryMaze(1)
    task.reset(0)
    open_room(task, [[5, 3], [9, 9], [2, 8]])
    task.scene = task.scene._replace(known=torch.zeros(1, 3, dtype=torch.bool))
    placed(task, 4, 5, 2)  # looks left; all objects are behind or too far to the side
    task.step(actions_of(task, LEFT))  # looks down
    assert task.scene.known.tolist() == [[False, False, True]]
    targets = task.auxiliary_targets()
    assert targets.weights.tolist() == [[0, 0, 0, 0, 1, 1]]
    expected = torch.tensor([[-2, -1], [4, -5], [3, 2]])
    torch.testing.assert_close(targets.values[0] * 0.4 * 9, expected.flatten().float())
    task.step(actions_of(task, LEFT))
    task.step(actions_of(task, LEFT))  # looks up
    targets = task.auxiliary_targets()
    assert targets.weights.tolist() == [[1, 1, 0, 0, 1, 1]]
    torch.testing.assert_close(targets.values[0, :2] * 0.4 * 9, torch.tensor([2.0, 1.0]))


def test_object_behind_a_wall_is_not_known() -> None:
    task = MemoryMaze(64)
    task.reset(0)
    for _ in range(30):
        obs = task.step(torch.randint(3, (64,))).obs
        before = task.scene.known
        kind, color = obs["image"][..., 0].flatten(1), obs["image"][..., 1].flatten(1)
        for k in range(3):
            shown = ((kind == 6) & (color == k)).any(1)
            assert (before[:, k] | ~shown).all()
        hidden = MemoryMaze(64, see_through_walls=True)
        hidden.load_state_dict({**task.state_dict(), "options": None})
        assert (hidden.scene.known | ~task.scene.known).all()


@pytest.mark.parametrize(
    ("size", "objects", "steps"), [(9, 3, 1000), (11, 4, 2000), (13, 5, 3000), (15, 6, 4000)]
)
def test_ids_have_the_sizes_of_memory_maze(size: int, objects: int, steps: int) -> None:
    task = rmc_envs.make(f"rmc/MemoryMaze-{size}x{size}-v0", num_envs=2)
    assert isinstance(task, MemoryMaze)
    assert task.tasks == (f"rmc/MemoryMaze-{size}x{size}-v0",)
    assert (task.size, task.num_objects, task.max_steps) == (size, objects, steps)
    assert task.world.walls.shape == (2, size + 2, size + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size=8: expected an odd number"),
        ({"size": 5}, "size=5: expected at least 7"),
        ({"view_size": 4}, "view_size=4: expected an odd number"),
        ({"view_size": 13}, "view_size=13: expected at least 3 and at most 11"),
        ({"num_objects": 5}, "num_objects=5: expected at least 2 and at most 4"),
        ({"size": 15, "num_objects": 7}, "num_objects=7: expected at least 2 and at most 6"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"redraw": "walls"}, "redraw='walls': expected one of 'maze', 'objects', 'nothing'"),
        ({"redraw": ["maze"]}, "redraw="),
        ({"see_through_walls": 1}, "see_through_walls=1: expected True or False"),
        ({"maze_seed": -1}, "maze_seed=-1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("[", r"\[")):
        MemoryMaze(**options)


def test_state_continues_across_the_end_of_an_episode() -> None:
    task, other = (MemoryMaze(4, max_steps=20) for _ in range(2))
    obs, player = task.reset(6), PerfectKnowledge(task)
    for _ in range(13):
        obs = task.step(player.act(obs, torch.zeros(4, dtype=torch.bool))).obs
    state = task.state_dict()
    restored = other.load_state_dict(state)
    assert all(obs[key].equal(restored[key]) for key in obs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        actions = torch.randint(3, (4,), generator=generator)
        one, same = task.step(actions), other.step(actions)
        assert one.reward.equal(same.reward)
        assert all(one.obs[key].equal(same.obs[key]) for key in one.obs)
        assert task.auxiliary_targets().weights.equal(other.auxiliary_targets().weights)


def test_action_outside_the_space_raises() -> None:
    task = MemoryMaze(2)
    task.reset(0)
    with pytest.raises(IndexError):
        task.step(torch.tensor([0, 3]))


def test_mission_names_the_prompt() -> None:
    task = MemoryMaze(8)
    obs = task.reset(0)
    names = ("red", "green", "blue")
    for i, prompt in enumerate(np.asarray(obs["prompt"]).tolist()):
        assert task.mission(i) == f"go to the {names[prompt]} ball ({prompt + 1})"

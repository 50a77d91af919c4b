"""BoxWorld's rules in hand-made rooms, and its views."""

import numpy as np
import pytest
import torch

from rmc_envs.box_world.box_world import IS_AGENT, IS_EMPTY, IS_GEM, IS_KEY, IS_LOCK, IS_WALL, BoxWorld
from rmc_envs.box_world.levels import DEAD_KEY, EMPTY, GEM, KEY, LOCK, SIDE, WALL

UP, DOWN, LEFT, RIGHT = range(4)


def room(things: dict[tuple[int, int], int], agent: tuple[int, int], **options) -> BoxWorld:
    """Return a task of one environment with codes in the cells (row, column) of its room, counted from 1."""
    task = BoxWorld(1, **options)
    task.reset(seed=0)
    state = task.state_dict()
    rings = (task.width - SIDE) // 2
    grid = np.pad(np.full((SIDE, SIDE), EMPTY, np.uint8), rings, constant_values=WALL)
    for (row, column), code in things.items():
        grid[row + rings - 1, column + rings - 1] = code
    state["grid"] = torch.from_numpy(grid.reshape(1, -1))
    state["position"] = torch.tensor([(agent[0] + rings - 1) * task.width + agent[1] + rings - 1])
    task.load_state_dict(state)
    return task


def walk(task: BoxWorld, *actions: int) -> list[tuple[float, bool, int]]:
    """Return reward, whether the episode ended, and the key held after each action."""
    steps = [task.step(torch.tensor([action])) for action in actions]
    return [(float(s.reward), bool(s.done), int(s.final_obs["key"])) for s in steps]


CHAIN = {(3, 3): KEY + 7, (3, 6): KEY + 9, (3, 7): LOCK + 7, (5, 6): GEM, (5, 7): LOCK + 9}
"""Key 7 lies loose; its box holds key 9, whose box holds the gem."""


def test_solution_opens_boxes_in_turn_and_ends_with_the_gem() -> None:
    task = room(CHAIN, agent=(3, 1), view_size=5)
    quiet = (0.0, False, 0)
    assert walk(task, RIGHT, RIGHT) == [quiet, (0.0, False, 7)]  # the loose key
    assert walk(task, DOWN, *[RIGHT] * 4) == [(0.0, False, 7)] * 5
    assert walk(task, UP) == [(1.0, False, 0)]  # onto the lock of key 7, which is used up
    assert walk(task, LEFT) == [(0.0, False, 9)]  # the content
    assert walk(task, DOWN, RIGHT, DOWN) == [(0.0, False, 9)] * 2 + [(1.0, False, 0)]
    step = task.step(torch.tensor([LEFT]))
    assert float(step.reward) == 10
    assert bool(step.terminated)
    assert not bool(step.truncated)
    assert bool(step.success)
    assert int(step.obs["key"]) == 0


def where_after(task: BoxWorld, *actions: int) -> tuple[int, int]:
    """Return the agent's row and column, in full view, after some actions."""
    for action in actions:
        obs = task.step(torch.tensor([action])).obs
    return tuple((obs["image"][0, :, :, 0] == IS_AGENT).nonzero()[0].tolist())


def test_walls_locks_without_their_key_and_locked_contents_block() -> None:
    assert where_after(room(CHAIN, agent=(1, 1)), UP) == (1, 1)
    assert where_after(room(CHAIN, agent=(4, 7)), UP) == (4, 7)  # a lock
    assert where_after(room(CHAIN, agent=(4, 6)), UP) == (4, 6)  # the key in its box
    assert where_after(room(CHAIN, agent=(4, 6)), DOWN) == (4, 6)  # the gem in its box
    with_another_key = room({**CHAIN, (4, 8): KEY + 5}, agent=(4, 9))
    assert where_after(with_another_key, LEFT, LEFT, UP) == (4, 7)
    assert walk(with_another_key, DOWN) == [(0.0, False, 5)]
    assert where_after(room(CHAIN, agent=(4, 7)), LEFT, DOWN, RIGHT) == (4, 7)


def test_box_of_a_distractor_ends_the_episode() -> None:
    task = room({**CHAIN, (3, 10): DEAD_KEY + 4, (3, 11): LOCK + 7, (2, 11): KEY + 7}, agent=(1, 11))
    assert walk(task, DOWN) == [(0.0, False, 7)]
    step = task.step(torch.tensor([DOWN]))
    assert float(step.reward) == -1
    assert bool(step.terminated)
    assert not bool(step.success)


def test_last_step_truncates() -> None:
    task = room(CHAIN, agent=(1, 1), max_steps=3)
    ends = [task.step(torch.tensor([UP])) for _ in range(3)]
    assert [bool(step.truncated) for step in ends] == [False, False, True]
    assert not bool(ends[-1].terminated)
    assert BoxWorld(1).max_steps == 120
    assert BoxWorld(1, view_size=5).max_steps == 240


def test_keys_of_distractors_look_like_others_in_every_view() -> None:
    for view_size in (None, 5):
        images = [
            room({(2, 2): code, (2, 3): LOCK + 1}, agent=(3, 3), view_size=view_size).state_dict()
            for code in (KEY + 4, DEAD_KEY + 4)
        ]
        tasks = [BoxWorld(1, view_size=view_size) for _ in images]
        one, other = (task.load_state_dict(state)["image"] for task, state in zip(tasks, images, strict=True))
        assert torch.equal(one, other)
        assert (one == torch.tensor([IS_KEY, 4], dtype=torch.uint8)).all(-1).sum() == 1


def test_viewport_shows_the_cells_around_the_agent() -> None:
    task = room(CHAIN, agent=(4, 5), view_size=5)
    image = task.load_state_dict(task.state_dict())["image"][0]
    expected = np.zeros((5, 5, 2), np.uint8)  # rows 2 to 6, columns 3 to 7
    expected[1, 0], expected[1, 3], expected[1, 4] = (IS_KEY, 7), (IS_KEY, 9), (IS_LOCK, 7)
    expected[3, 3], expected[3, 4] = (IS_GEM, 0), (IS_LOCK, 9)
    assert np.array_equal(image.numpy(), expected)
    corner = room({}, agent=(1, 12), view_size=5)
    image = corner.load_state_dict(corner.state_dict())["image"][0, :, :, 0].numpy()
    assert (image[:2] == IS_WALL).all()
    assert (image[:, 3:] == IS_WALL).all()
    assert (image[2:, :3] == IS_EMPTY).all()


@pytest.mark.parametrize("view_size", [None, 3, 11])
def test_views_of_random_play_are_parts_of_the_room(view_size: int | None) -> None:
    task = BoxWorld(8, view_size=view_size, max_steps=50)
    task.reset(seed=4)
    moves = torch.Generator().manual_seed(0)
    rewards = set()
    for _ in range(120):
        step = task.step(torch.randint(4, (8,), generator=moves))
        rewards |= set(step.reward.tolist())
        state = task.state_dict()
        for i in range(8):
            grid = state["grid"][i].view(task.width, task.width).numpy()
            row, column = divmod(int(state["position"][i]), task.width)
            assert grid[row, column] == EMPTY
            looks = np.where(grid > DEAD_KEY, grid - DEAD_KEY + KEY, grid)  # all keys look alike
            if view_size is not None:
                r = view_size // 2
                looks = looks[row - r : row + r + 1, column - r : column + r + 1]
            kinds = np.where(looks > LOCK, IS_LOCK, np.where(looks > GEM, IS_KEY, looks))
            colors = np.where(looks > LOCK, looks - LOCK, np.where(looks > GEM, looks - KEY, 0))
            if view_size is None:
                kinds[row, column] = IS_AGENT
            assert np.array_equal(step.obs["image"][i].numpy(), np.stack([kinds, colors], axis=2))
    assert rewards <= {-1.0, 0.0, 1.0, 10.0}


def test_pictures_show_state_and_end() -> None:
    task = room(CHAIN, agent=(3, 1), view_size=5, max_steps=2)
    first = task.render()
    assert first.shape == (32 * 15, 32 * 14, 3)
    walk(task, RIGHT)
    second = task.render()
    walk(task, RIGHT)  # the last step
    ended, new = task.render(final=True), task.render()
    pictures = [first, second, ended, new]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert not np.array_equal(one, other)
    assert task.render(tile_size=16).shape == (20 + 16 * 14, 16 * 14, 3)
    with pytest.raises(RuntimeError, match="reset"):
        BoxWorld(1).render()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view_size": 4}, "view_size=4: expected an odd number"),
        ({"view_size": 1}, "view_size=1"),
        ({"max_solution": 0}, "max_solution=0"),
        ({"min_solution": 3, "max_solution": 2}, "min_solution=3"),
        ({"min_distractors": 6}, "min_distractors=6"),
        ({"distractor_length": 4}, "need 25 colors of keys, and there are 20"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"targets": "boxes"}, "targets=.boxes.: expected one of places, chain"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxWorld(1, **options)

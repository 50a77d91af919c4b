"""Levels of BoxWorld can be solved, as a search in plain Python finds, and follow their options."""

from collections import Counter, deque

import numpy as np
import pytest
import torch

from rmc_envs.box_world.box_world import IS_AGENT, IS_EMPTY, IS_GEM, IS_KEY, IS_LOCK, IS_WALL, BoxWorld
from rmc_envs.box_world.levels import MAX_PLACES, NUM_LAYOUTS, SIDE, draw_layouts

Cell = tuple[int, int]
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
OPTIONS = (
    {},
    {"max_solution": 1, "max_distractors": 0},
    {"min_solution": 5, "min_distractors": 5},
    {"min_solution": 3, "max_solution": 5, "min_distractors": 4, "distractor_length": 3},
    {"min_solution": 10, "max_solution": 10, "min_distractors": 10, "max_distractors": 10},
)


def read(image: np.ndarray) -> tuple[dict[Cell, tuple[int, int]], Cell]:
    """Return kind and color of each cell that is not empty, and the agent's cell."""
    things, agent = {}, None
    for row, column in np.ndindex(*image.shape[:2]):
        kind, color = map(int, image[row, column])
        if kind == IS_AGENT:
            agent = (row, column)
        elif kind != IS_EMPTY:
            things[row, column] = (kind, color)
    assert agent is not None
    return things, agent


def solve(image: np.ndarray) -> list[int]:
    """Return a shortest sequence of moves to the gem, by a search over cell, key and what was taken away."""
    things, agent = read(image)
    start = (agent, 0, frozenset())
    paths = {start: []}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        (row, column), key, gone = state
        for action, (dy, dx) in enumerate(MOVES):
            cell = (row + dy, column + dx)
            kind, color = (IS_EMPTY, 0) if cell in gone else things.get(cell, (IS_EMPTY, 0))
            right = (cell[0], cell[1] + 1)
            locked = right not in gone and things.get(right, (0, 0))[0] == IS_LOCK
            if kind == IS_WALL or (kind in (IS_KEY, IS_GEM) and locked) or (kind == IS_LOCK and color != key):
                continue
            if kind == IS_GEM:
                return [*paths[state], action]
            following = (cell, key, gone)
            if kind == IS_KEY:
                following = (cell, color, gone | {cell})
            elif kind == IS_LOCK:
                following = (cell, 0, gone | {cell})
            if following not in paths:
                paths[following] = [*paths[state], action]
                queue.append(following)
    raise AssertionError("no way to the gem")


@pytest.mark.parametrize("options", OPTIONS)
def test_every_level_is_solved_by_the_moves_of_a_search(options: dict) -> None:
    task = BoxWorld(60, max_steps=1000, **options)
    image = task.reset(seed=1)["image"].numpy()
    paths = [solve(each) for each in image]
    total, success = torch.zeros(60), torch.zeros(60, dtype=torch.bool)
    opened = torch.zeros(60, dtype=torch.int64)
    for t in range(max(map(len, paths))):
        running = torch.tensor([t < len(path) for path in paths])
        step = task.step(torch.tensor([path[t] if t < len(path) else 0 for path in paths]))
        total += step.reward * running
        opened += (step.reward == 1) & running
        last = torch.tensor([t == len(path) - 1 for path in paths])
        assert torch.equal(step.terminated & running, last)
        success |= step.success & running
    assert success.all()
    assert torch.equal(total, 10 + opened.float())
    lengths = opened.tolist()
    assert min(lengths) >= options.get("min_solution", 1)
    assert max(lengths) <= options.get("max_solution", 5)
    locks = (image[..., 0] == IS_LOCK).sum((1, 2))
    branches = (locks - opened.numpy()) / options.get("distractor_length", 1)
    assert set(branches) <= set(
        range(options.get("min_distractors", 0), options.get("max_distractors", 5) + 1)
    )


def test_numbers_of_boxes_are_uniform() -> None:
    task = BoxWorld(4000, max_solution=2, max_distractors=3)
    image = task.reset(seed=0)["image"]
    # With one color per key, colors that occur twice are those of a key and its lock.
    locks = Counter((image[..., 0] == IS_LOCK).sum((1, 2)).tolist())
    expected = {1: 1, 2: 2, 3: 2, 4: 2, 5: 1}  # of 8 pairs of equal probability
    assert locks.keys() == expected.keys()
    for number, ways in expected.items():
        assert abs(locks[number] / 4000 - ways / 8) < 0.03


def test_boxes_do_not_touch_and_keys_lie_left_of_their_locks() -> None:
    image = BoxWorld(200, min_solution=5, min_distractors=5).reset(seed=2)["image"].numpy()
    for each in image:
        things = {cell: kind for cell, (kind, _) in read(each)[0].items() if kind != IS_WALL}
        boxes = []
        for cell, kind in things.items():
            if kind == IS_LOCK:
                assert things[cell[0], cell[1] - 1] in (IS_KEY, IS_GEM)
                boxes.append({cell, (cell[0], cell[1] - 1)})
        boxes.extend({cell} for cell in things if not any(cell in box for box in boxes))
        assert len(boxes) == 11  # ten boxes and the loose key
        for i, box in enumerate(boxes):
            for other in boxes[:i]:
                gaps = [max(abs(a - c), abs(b - d)) for a, b in box for c, d in other]
                assert min(gaps) >= 2


def test_key_colors_differ() -> None:
    image = BoxWorld(100, min_solution=5, min_distractors=5).reset(seed=3)["image"].numpy()
    for each in image:
        colors = each[..., 1][each[..., 0] == IS_KEY]
        assert len(set(colors)) == len(colors) == 10  # the loose key, 4 in the solution and 5 in distractors


@pytest.mark.parametrize("num_places", [2, 11, MAX_PLACES])
def test_layouts_fit_into_the_room_without_contact(num_places: int) -> None:
    layouts = draw_layouts(num_places, rings=1)
    assert layouts.shape == (4 * NUM_LAYOUTS, num_places)
    row, column = layouts // (SIDE + 2), layouts % (SIDE + 2)
    assert row.min() == 1
    assert row.max() == SIDE
    assert column.min() == 1
    assert column.max() == SIDE - 1
    apart = ((row[:, :, None] - row[:, None]).abs() > 1) | ((column[:, :, None] - column[:, None]).abs() > 2)
    apart |= torch.eye(num_places, dtype=torch.bool)
    assert apart.all()

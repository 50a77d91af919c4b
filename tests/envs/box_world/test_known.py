"""Auxiliary targets of BoxWorld hold what was in view, as counted once more in plain Python."""

import numpy as np
import torch

from rmc_envs.box_world.box_world import BoxWorld
from rmc_envs.box_world.known import NUM_PLACES, count_targets
from rmc_envs.box_world.levels import DEAD_KEY, GEM, KEY, LOCK, NUM_COLORS
from rmc_envs.box_world.players import BoxWorldReference


def expected_targets(
    grid: np.ndarray, agent: tuple[int, int], seen: set[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and weights of "places" for a grid and the cells that were in view."""
    places, leading = np.zeros((2, NUM_COLORS + 1, 2)), np.zeros((2, NUM_COLORS + 1, 2))

    def enter(table: np.ndarray, color: int, row: int, column: int) -> None:
        table[0, color] = (row - agent[0]) / 6, (column - agent[1]) / 6
        table[1, color] = 1

    cells = {
        int(code): (int(row), int(column)) for (row, column), code in np.ndenumerate(grid) if code >= GEM
    }
    for code, cell in cells.items():
        if code <= LOCK or code > DEAD_KEY:
            color = 0 if code == GEM else code - (KEY if code <= LOCK else DEAD_KEY)
            if {cell, (cell[0], cell[1] + 1)} <= seen:
                enter(places, color, *cell)
    row, column = cells[GEM]
    while {(row, column), (row, column + 1)} <= seen:
        lock = int(grid[row, column + 1])
        if not LOCK < lock <= DEAD_KEY:
            break
        enter(leading, lock - LOCK, row, column + 1)
        if lock - LOCK + KEY not in cells:
            break
        row, column = cells[lock - LOCK + KEY]
    values, weights = zip(places, leading[:, 1:], strict=True)
    return np.concatenate([x.ravel() for x in values]), np.concatenate([x.ravel() for x in weights])


def test_targets_are_the_places_of_what_was_in_view() -> None:
    n = 12
    task = BoxWorld(n, view_size=5, min_solution=2, max_solution=4)
    assert task.aux_size == NUM_PLACES
    player = BoxWorldReference(task)
    obs, starts = task.reset(seed=7), torch.ones(n, dtype=torch.bool)
    seen: list[set[tuple[int, int]]] = [set() for _ in range(n)]
    led = 0
    for _ in range(90):
        targets, state = task.auxiliary_targets(), task.state_dict()
        assert targets is not None
        for i in range(n):
            if starts[i]:
                seen[i].clear()
            grid = state["grid"][i].view(task.width, task.width).numpy()
            row, column = divmod(int(state["position"][i]), task.width)
            seen[i] |= {(r, c) for r in range(row - 2, row + 3) for c in range(column - 2, column + 3)}
            values, weights = expected_targets(grid, (row, column), seen[i])
            assert np.array_equal(targets.weights[i].numpy(), weights)
            assert np.allclose(targets.values[i].numpy(), values)
            led += weights[-2 * NUM_COLORS :].sum() >= 4
        step = task.step(player.act(obs, starts))
        obs, starts = step.obs, step.done
    assert led > 50  # so the places of locks were tested


def expected_chain(
    grid: np.ndarray, agent: tuple[int, int], seen: set[tuple[int, int]], key: int, boxes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and weights of "chain" for a grid, the cells that were in view and the key held."""
    goal, goal_weight, known = np.zeros(2), 0.0, -1.0
    chain, weights = np.zeros((boxes, NUM_COLORS + 2)), np.zeros((boxes, NUM_COLORS + 2))
    cells = {int(code): (int(r), int(c)) for (r, c), code in np.ndenumerate(grid) if code >= GEM}

    def to_go(row: int, column: int) -> np.ndarray:
        return np.array([row - agent[0], column - agent[1]]) / 6

    for code, (row, column) in cells.items():
        is_content = code <= LOCK or code > DEAD_KEY
        loose = is_content and not LOCK < grid[row, column + 1] <= DEAD_KEY
        if not key and loose and {(row, column), (row, column + 1)} <= seen:
            goal, goal_weight, known = to_go(row, column), 1.0, 1.0
    row, column = cells[GEM]
    for i in range(boxes):
        lock = int(grid[row, column + 1])
        if not ({(row, column), (row, column + 1)} <= seen and LOCK < lock <= DEAD_KEY):
            break
        chain[i, lock - LOCK - 1] = 1
        chain[i, -2:] = to_go(row, column + 1)
        weights[i, :-2], weights[i, -2:] = 0.5, 1
        if key == lock - LOCK:
            goal, goal_weight, known = to_go(row, column + 1), 1.0, 1.0
        if lock - LOCK + KEY not in cells:
            break
        row, column = cells[lock - LOCK + KEY]
    return (
        np.concatenate([goal, [known], chain.ravel()]),
        np.concatenate([[goal_weight, goal_weight, 1.0], weights.ravel()]),
    )


def test_chain_leads_from_the_gem_back_to_the_key_that_is_held() -> None:
    n, boxes = 12, 3
    task = BoxWorld(n, view_size=5, max_solution=boxes, targets="chain")
    assert task.aux_size == count_targets("chain", boxes) == 5 + 22 * boxes
    player = BoxWorldReference(task)
    obs, starts = task.reset(seed=8), torch.ones(n, dtype=torch.bool)
    seen: list[set[tuple[int, int]]] = [set() for _ in range(n)]
    first = [(0, 0)] * n
    whole = held = 0
    for _ in range(90):
        targets, state = task.auxiliary_targets(), task.state_dict()
        assert targets is not None
        for i in range(n):
            grid, key = state["grid"][i].view(task.width, task.width).numpy(), int(state["key"][i])
            row, column = divmod(int(state["position"][i]), task.width)
            if starts[i]:
                seen[i].clear()
                first[i] = row, column
            seen[i] |= {(r, c) for r in range(row - 2, row + 3) for c in range(column - 2, column + 3)}
            values, weights = expected_chain(grid, (row, column), seen[i], key, boxes)
            gone = [(row - first[i][0]) / 6, (column - first[i][1]) / 6]
            values, weights = np.concatenate([gone, values]), np.concatenate([[1, 1], weights])
            np.testing.assert_array_equal(targets.weights[i].numpy(), weights)
            np.testing.assert_allclose(targets.values[i].numpy() * (weights > 0), values, atol=1e-6)
            whole += weights.all()
            held += key > 0 and weights[2] > 0
        step = task.step(player.act(obs, starts))
        obs, starts = step.obs, step.done
    assert whole > 20
    assert held > 50


def test_teacher_does_what_the_reference_player_would_do_wherever_the_agent_is() -> None:
    """The player's map is made of observations only; the teacher knows the state."""
    n = 24
    task = BoxWorld(n, view_size=5, max_solution=3)
    player = BoxWorldReference(task)
    obs, starts = task.reset(seed=9), torch.ones(n, dtype=torch.bool)
    random = torch.Generator().manual_seed(0)
    advised = 0
    for _ in range(150):
        advice = task.teacher_actions()
        assert advice is not None
        player.look(obs, starts)
        best = player.map.best_actions(player.neighbours(), obs["key"]).float()
        torch.testing.assert_close(advice, best / best.sum(1, keepdim=True).clamp(min=1))
        advised += int((advice.sum(1) > 0).sum())
        # Half of the steps are random, so that the agent goes where no player would.
        actions = torch.where(
            torch.rand(n, generator=random) < 0.5,
            torch.randint(4, (n,), generator=random),
            advice.argmax(1),
        )
        ahead = player.position + player.steps[actions]
        before = task._position.clone()
        step = task.step(actions)
        moved = (task._position != before) & ~step.done
        player.position = torch.where(moved, ahead, player.position)
        obs, starts = step.obs, step.done
    assert advised > 0.99 * 150 * n


def test_following_the_teacher_solves_the_levels() -> None:
    n = 64
    task = BoxWorld(n, view_size=5, max_solution=3)
    task.reset(seed=10)
    ended = solved = 0
    for _ in range(240):
        advice = task.teacher_actions()
        assert advice is not None
        step = task.step(advice.argmax(1))
        assert step.success is not None
        ended += int(step.done.sum())
        solved += int(step.success.sum())
    assert solved == ended > 150


def test_full_view_has_neither_targets_nor_a_teacher() -> None:
    task = BoxWorld(2)
    task.reset(seed=0)
    assert task.aux_size == 0
    assert task.auxiliary_targets() is None
    assert not task.has_teacher
    assert task.teacher_actions() is None

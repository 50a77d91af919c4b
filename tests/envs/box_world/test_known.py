"""Auxiliary targets of BoxWorld hold what was in view, as counted once more in plain Python."""

import numpy as np
import torch

from rmc_envs.box_world.box_world import BoxWorld
from rmc_envs.box_world.known import NUM_TARGETS
from rmc_envs.box_world.levels import DEAD_KEY, GEM, KEY, LOCK, NUM_COLORS
from rmc_envs.box_world.players import BoxWorldReference


def expected_targets(
    grid: np.ndarray, agent: tuple[int, int], seen: set[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and weights for a grid and the left cells of what was in view."""
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
            if cell in seen:
                enter(places, color, *cell)
    row, column = cells[GEM]
    while (row, column) in seen and LOCK < (lock := int(grid[row, column + 1])) <= DEAD_KEY:
        enter(leading, lock - LOCK, row, column + 1)
        if lock - LOCK + KEY not in cells:
            break
        row, column = cells[lock - LOCK + KEY]
    values, weights = zip(places, leading[:, 1:], strict=True)
    return np.concatenate([x.ravel() for x in values]), np.concatenate([x.ravel() for x in weights])


def test_targets_are_the_places_of_what_was_in_view() -> None:
    n = 12
    task = BoxWorld(n, view_size=5, min_solution=2, max_solution=4)
    assert task.aux_size == NUM_TARGETS
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
            seen[i] |= {(r, c) for r in range(row - 2, row + 3) for c in range(column - 2, column + 2)}
            values, weights = expected_targets(grid, (row, column), seen[i])
            assert np.array_equal(targets.weights[i].numpy(), weights)
            assert np.allclose(targets.values[i].numpy(), values)
            led += weights[-2 * NUM_COLORS :].sum() >= 4
        step = task.step(player.act(obs, starts))
        obs, starts = step.obs, step.done
    assert led > 50  # so the places of locks were tested


def test_full_view_has_no_targets() -> None:
    task = BoxWorld(2)
    task.reset(seed=0)
    assert task.aux_size == 0
    assert task.auxiliary_targets() is None

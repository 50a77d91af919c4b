"""ColorCubes: what is shown when, which cubes move, and what a memory of their places is worth."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_envs import ColorCubes
from rmc_envs.color_cubes.color_cubes import next_cells
from rmc_envs.color_cubes.players import (
    ColorCubesMemoryless,
    ColorCubesReference,
    step_towards,
    sweep,
)
from rmc_envs.players import RandomPlayer, play

UP, RIGHT, DOWN, LEFT = range(4)


def walk(env: ColorCubes, goals: torch.Tensor) -> Any:
    """Take one step of a shortest path to each goal."""
    at = env.state_dict()["world"]["at"]
    return env.step(step_towards(at, goals, env.size))


def test_moves_stay_on_the_grid() -> None:
    moves = next_cells(3)
    assert moves[0].tolist() == [0, 1, 3, 0]
    assert moves[4].tolist() == [1, 5, 7, 3]
    assert moves[8].tolist() == [5, 8, 8, 7]


def test_cubes_are_seen_in_the_first_observation_only() -> None:
    env = ColorCubes(40, size=5, num_cubes=3)
    obs = env.reset(seed=0)
    world = env.state_dict()["world"]
    for color in range(3):
        assert torch.equal((obs[:, :25] == color + 1).long().argmax(1), world["cubes"][:, color])
    assert torch.equal(obs[:, 25] * 5 + obs[:, 26], world["at"])
    assert torch.equal(obs[:, 27], world["target"])
    assert not obs[:, 28].any()  # the agent starts beside the cubes
    assert (world["cubes"].sort(1).values.diff(dim=1) > 0).all()
    step = env.step(torch.zeros(40, dtype=torch.int64))
    unmet = step.reward == 0
    assert not step.obs[unmet, :25].any()


def test_other_cubes_are_seen_from_their_own_cell_and_earn_nothing() -> None:
    env = ColorCubes(1, size=4, num_cubes=2, max_steps=100)
    obs = env.reset(seed=1)
    target = int(obs[0, 18])
    other, goal = (int((obs[0, :16] == c + 1).long().argmax()) for c in (1 - target, target))
    for _ in range(6):
        at = int(env.state_dict()["world"]["at"][0])
        if at == other:
            break
        step = walk(env, torch.tensor([other]))
        assert int(env.state_dict()["world"]["at"][0]) != goal  # with this seed it is not on the way
    assert step.obs[0, 19] == 2 - target
    assert step.reward.item() == 0
    assert not step.obs[0, :16].any()


@pytest.mark.parametrize(("teleport", "moved"), [(0.0, 1), (1.0, 4)])
def test_touching_the_target_moves_cubes_to_free_cells(teleport: float, moved: int) -> None:
    env = ColorCubes(50, teleport=teleport, num_targets=99)
    env.reset(seed=2)
    touched = 0
    for _ in range(30):
        before = env.state_dict()["world"]
        goals = before["cubes"].gather(1, before["target"][:, None])[:, 0]
        step = walk(env, goals)
        after = env.state_dict()["world"]
        event = step.reward == 1
        touched += int(event.sum())
        changed = before["cubes"] != after["cubes"]
        assert (changed.sum(1) == event * moved).all()
        assert changed.gather(1, before["target"][:, None])[:, 0].equal(event)
        # No cube goes to a cell where one was, and none to the agent.
        arrived = after["cubes"][changed]
        where = before["cubes"].repeat_interleave(changed.sum(1), 0)
        assert (where != arrived[:, None]).all()
        assert (after["cubes"][event] != after["at"][event, None]).all()
        assert torch.equal((step.obs[:, :36] > 0).sum(1), event * 4)
        assert torch.equal(before["target"][~event], after["target"][~event])
    assert touched > 100


def test_hidden_colors_show_places_only() -> None:
    env = ColorCubes(50, hide_colors=True, num_targets=99)
    assert (env.reset(seed=3)[:, :36].amax(1) == 4).all()
    events = 0
    for _ in range(12):
        world = env.state_dict()["world"]
        step = walk(env, world["cubes"].gather(1, world["target"][:, None])[:, 0])
        shown = step.obs[:, :36]
        assert set(shown.unique().tolist()) <= {0, 5}
        events += int(step.reward.sum())
        assert torch.equal((shown == 5).sum(1), (step.reward * 4).long())
    assert events > 20


def test_auxiliary_targets_are_the_places_that_can_be_known() -> None:
    env = ColorCubes(2000, num_targets=3, hide_colors=True)
    env.reset(seed=7)
    places, weights = env.auxiliary_targets()
    assert abs(places.mean()) < 0.1
    assert abs(places.std() - 1) < 0.1
    world = env.state_dict()["world"]
    standard = (places * ((36 - 1) / 12) ** 0.5 + 2.5).round().long()
    assert torch.equal(standard[:, :4] * 6 + standard[:, 4:], world["cubes"])
    assert weights.all()
    found = torch.zeros(2000, dtype=torch.bool)
    for _ in range(3):
        goals = world["cubes"].gather(1, world["target"][:, None])[:, 0]
        found |= walk(env, goals).reward == 1
        world = env.state_dict()["world"]
    assert torch.equal(env.auxiliary_targets().weights.all(1), ~found)
    assert found.any()


def test_last_target_terminates_and_the_limit_truncates() -> None:
    env = ColorCubes(30, num_targets=2, max_steps=16)
    env.reset(seed=4)
    ends = 0
    for _ in range(60):
        world = env.state_dict()["world"]
        goals = world["cubes"].gather(1, world["target"][:, None])[:, 0]
        away = torch.arange(30) < 10  # these never look for it
        step = walk(env, torch.where(away, world["at"] // 6 * 6, goals))
        assert torch.equal(step.terminated, (world["found"] + step.reward.long()) == 2)
        assert torch.equal(step.success, step.terminated)
        assert torch.equal(step.truncated, world["time"] == 15)
        ends += int(step.terminated[10:].sum())
    assert ends > 60


@pytest.mark.parametrize("size", [2, 3, 6, 7])
def test_sweep_visits_all_cells_but_one_corner_at_most(size: int) -> None:
    moves, after = sweep(size), next_cells(size)
    at, seen = size, set()
    for _ in range(2 * size * size):
        seen.add(at)
        at = int(after[at, moves[at]])
    assert len(seen) >= size * size - size % 2


@pytest.mark.parametrize("options", [{}, {"hide_colors": True}])
def test_memory_finds_all_targets_in_time(options: dict[str, Any]) -> None:
    env = ColorCubes(200, **options)
    returns = [
        play(env, p(env), 200, seed=5) for p in (RandomPlayer, ColorCubesMemoryless, ColorCubesReference)
    ]
    assert returns[0].mean() < 1
    assert 2 < returns[1].mean() < 3.2
    assert returns[2].mean() > 4.95


def test_pictures_show_the_state_before_the_autoreset() -> None:
    env = ColorCubes(1, size=3, num_cubes=1, num_targets=1)
    env.reset(seed=6)
    first = env.render(tile_size=16)
    assert first.shape == (3 * 16 + 20, 48, 3)
    done = False
    while not done:
        world = env.state_dict()["world"]
        done = bool(walk(env, world["cubes"][:, 0]).done)
    assert (env.render(final=True, tile_size=16) != env.render(tile_size=16)).any()


@pytest.mark.parametrize(
    "options",
    [
        {"size": 1},
        {"num_cubes": 19},
        {"num_targets": 0},
        {"teleport": 1.5},
        {"teleport": True},
        {"max_steps": 0},
    ],
)
def test_invalid_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*expected"):
        ColorCubes(**options)

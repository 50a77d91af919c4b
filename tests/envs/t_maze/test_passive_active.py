"""TMaze: the rules of Ni et al.'s environment, by hand, against a scalar version, and by its players."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_envs import TMaze
from rmc_envs.players import play
from rmc_envs.t_maze.players import TMazeMemoryless, TMazeReference

RIGHT, UP, LEFT, DOWN = range(4)


def actions(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


class Scalar:
    """One T-maze with the coordinates of the original: x along the corridor, y = 1 and -1 in the arms."""

    def __init__(self, length: int, oracle: int, goal: int, penalty: float) -> None:
        self.length, self.oracle, self.goal, self.penalty = length, oracle, goal, penalty
        self.x, self.y, self.time, self.seen = oracle, 0, 0, False

    def observe(self) -> tuple[int, int]:
        if self.x == 0:
            cue, self.seen = 0 if self.seen else self.goal, True
            return 0, cue
        return (0, 0) if self.x < self.oracle + self.length else (1, self.y)

    def step(self, action: int) -> tuple[tuple[int, int], float, bool]:
        self.time += 1
        dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[action]
        x, y = self.x + dx, self.y + dy
        end = self.oracle + self.length
        if (y == 0 and 0 <= x <= end) or (x == end and abs(y) == 1):
            self.x, self.y = x, y
        if self.time >= self.length + 1 + 2 * self.oracle:
            return self.observe(), float(self.y == self.goal), True
        return self.observe(), self.penalty * (self.x < self.time - self.oracle), False


def test_episode_by_hand() -> None:
    env = TMaze(2, length=2)
    cue = env.reset(seed=0)[:, 1]
    assert set(cue.tolist()) == {1.0, -1.0}  # this seed has both
    step = env.step(actions(RIGHT, LEFT))
    assert step.obs.tolist() == [[0, 0], [0, 0]]  # the cue is not shown again
    assert step.reward.tolist() == [0, -0.5]
    step = env.step(actions(RIGHT, RIGHT))
    assert step.obs.tolist() == [[1, 0], [0, 0]]
    assert step.reward.tolist() == [0, -0.5]
    step = env.step(actions(UP if cue[0] > 0 else DOWN, RIGHT))
    assert step.final_obs.tolist() == [[1, cue[0]], [1, 0]]
    assert step.reward.tolist() == [1, 0]
    assert step.success.tolist() == [True, False]
    assert step.terminated.all()


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize(("length", "dense"), [(1, True), (3, True), (4, False)])
def test_random_play_equals_a_scalar_version(length: int, dense: bool, active: bool) -> None:
    env = TMaze(64, length=length, active=active, dense=dense)
    env.reset(seed=1)
    penalty = -1 / length if dense else 0.0
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        goals = (1 - 2 * env.state_dict()["arm"]).tolist()
        worlds = [Scalar(length, int(active), goal, penalty) for goal in goals]
        for world in worlds:
            world.observe()
        done = False
        while not done:
            chosen = torch.randint(4, (64,), generator=generator)
            step = env.step(chosen)
            expected = [world.step(action) for world, action in zip(worlds, chosen.tolist(), strict=True)]
            done = expected[0][2]
            assert [tuple(row) for row in step.final_obs.tolist()] == [obs for obs, _, _ in expected]
            torch.testing.assert_close(step.reward, torch.tensor([reward for _, reward, _ in expected]))
            assert bool(step.terminated.all()) == bool(step.terminated.any()) == done


@pytest.mark.parametrize("active", [False, True])
def test_memory_is_worth_half_of_the_return(active: bool) -> None:
    env = TMaze(500, length=6, active=active)
    assert play(env, TMazeReference(env), 500, seed=3).tolist() == [1.0] * 500
    guesses = play(env, TMazeMemoryless(env), 500, seed=3)
    assert abs(guesses.mean() - 0.5) < 4 * (0.25 / 500) ** 0.5


def test_cue_of_the_active_maze_is_shown_once() -> None:
    env = TMaze(1, length=3, active=True)
    assert env.reset(seed=0).tolist() == [[0, 0]]
    shown = [env.step(actions(move)).obs[0, 1].item() for move in (LEFT, LEFT, RIGHT, LEFT)]
    assert abs(shown[0]) == 1
    assert shown[1:] == [0, 0, 0]


def test_pictures_show_the_end_of_an_episode() -> None:
    env = TMaze(1, length=40)
    with pytest.raises(RuntimeError, match="reset"):
        env.render()
    env.reset(seed=0)
    first = env.render(tile_size=8)
    for _ in range(env.max_steps):
        env.step(actions(RIGHT))
    last, restarted = env.render(final=True, tile_size=8), env.render(tile_size=8)
    assert first.shape == last.shape == restarted.shape
    assert (last != restarted).any()


@pytest.mark.parametrize("options", [{"length": 0}, {"length": 10_001}, {"active": 1}, {"dense": "no"}])
def test_invalid_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*expected"):
        TMaze(**options)

"""Pictures of POPGym's tasks show the state before and after the end of an episode, and change no episode."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import rmc_envs
from rmc_envs.checks.state import changed_part
from rmc_envs.players import RandomPlayer
from rmc_envs.popgym.base import PopgymTask
from rmc_envs.popgym.levels import FAMILIES, POPGYM_IDS
from rmc_envs.popgym.scene import MAX_STEPS

EASY = [family.popgym_id("Easy") for family in FAMILIES]


def made(env_id: str, num_envs: int = 2) -> tuple[PopgymTask, RandomPlayer, torch.Tensor]:
    """Return a batch after its first reset, a player, and the flags of first steps."""
    task = POPGYM_IDS[env_id](num_envs=num_envs)
    task.reset(5)
    return task, RandomPlayer(task, 1), torch.ones(num_envs, dtype=torch.bool)


@pytest.mark.parametrize("env_id", EASY)
def test_pictures_follow_an_episode_and_its_end(env_id: str) -> None:
    task, player, starts = made(env_id)
    first = task.render(0)
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    obs, pictures = task.reset(5), [first]
    for number in range(2000):
        step = task.step(player.act(obs, starts))  # type: ignore[arg-type]
        obs, starts = step.obs, step.done
        if bool(starts[0]):
            break
        if number % 8 and number > 8:
            continue
        pictures.append(task.render(0))
        np.testing.assert_array_equal(pictures[-1], task.render(0, final=True))
    assert bool(starts[0])
    assert len({picture.tobytes() for picture in pictures}) > 0.5 * len(pictures)
    end, begun = task.render(0, final=True), task.render(0)
    assert not np.array_equal(end, begun)
    assert not np.array_equal(end, pictures[-1])
    assert end.shape == begun.shape == first.shape


@pytest.mark.parametrize("env_id", EASY)
def test_drawn_episodes_equal_those_without_pictures(env_id: str) -> None:
    (drawn, player, starts), (plain, _, _) = made(env_id), made(env_id)
    obs = drawn.reset(5)
    plain.reset(5)
    for _ in range(60):
        actions = player.act(obs, starts)  # type: ignore[arg-type]
        drawn.render(1)
        with_pictures, without = drawn.step(actions), plain.step(actions)
        assert torch.equal(with_pictures.reward, without.reward)
        assert torch.equal(with_pictures.done, without.done)
        obs, starts = with_pictures.obs, with_pictures.done
    assert changed_part(drawn.state_dict(), plain.state_dict()) is None


@pytest.mark.parametrize("env_id", EASY)
def test_evaluation_draws_the_single_environment(env_id: str) -> None:
    env = rmc_envs.make_reference(env_id, render_mode="rgb_array")()
    env.reset(seed=1)
    assert isinstance(env, gymnasium.Env)
    assert np.asarray(env.render()).ndim == 3
    env.close()


def test_picture_of_an_end_needs_a_picture_before_it() -> None:
    task, player, starts = made("popgym-MineSweeperEasy-v0")
    obs = task.reset(1)
    with pytest.raises(RuntimeError, match="at the start"):
        task.render(0, final=True)
    task.step(player.act(obs, starts))  # type: ignore[arg-type]
    assert task.render(0).ndim == 3


def test_picture_before_the_first_reset_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        POPGYM_IDS["popgym-RepeatFirstEasy-v0"](num_envs=1).render()


def test_battleship_marks_hits_misses_and_what_is_left() -> None:
    task, _, _ = made("popgym-BattleshipEasy-v0", 1)
    size = 10
    hidden = task.state_dict()["targets"][0]
    ship, (water, later) = hidden.nonzero()[0], (~hidden).nonzero()[:2]
    task.render(0)
    task.step(water.unsqueeze(0))
    task.step(ship.unsqueeze(0))
    task.step(later.unsqueeze(0))  # the last shot is framed in blue
    bar = task.render(0, tile_size=size).shape[0] - size * 8

    def cell(place: torch.Tensor) -> np.ndarray:
        row, column = (int(x) * size for x in place)
        return task.render(0, tile_size=size)[bar + row : bar + row + size, column : column + size].astype(
            int
        )

    red, blue = cell(ship).mean((0, 1)), cell(water).mean((0, 1))
    assert red[0] > red[2] + 40
    assert blue[2] > blue[0] + 5


def test_long_episodes_keep_their_latest_steps() -> None:
    task = POPGYM_IDS["popgym-MultiarmedBanditEasy-v0"](num_envs=1, episode_length=MAX_STEPS + 50)
    task.reset(0)
    task.render(0, tile_size=8)
    for _ in range(MAX_STEPS + 20):
        task.step(torch.zeros(1, dtype=torch.int64))
    assert task.render(0, tile_size=8).ndim == 3

"""EndlessTMaze: each corridor has its own cue, wrong turns end the episode, and memory is what counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_envs import EndlessTMaze
from rmc_envs.players import play
from rmc_envs.t_maze.players import EndlessTMazeMemoryless, EndlessTMazeReference

FORWARD, LEFT, RIGHT = range(3)
STEP = pytest.approx(-0.01)


def cue_of(obs: torch.Tensor) -> int:
    assert obs[0, 1:3].sum() == 1
    return LEFT if obs[0, 1] else RIGHT


def test_episode_by_hand() -> None:
    env = EndlessTMaze(1, num_corridors=2, length=2, uniform=False)
    obs = env.reset(seed=0)
    for corridor in range(2):
        cue = cue_of(obs)
        assert obs[0, [0, 3]].tolist() == [0, 0]
        step = env.step(torch.tensor([3 - cue]))  # turning in a corridor does nothing
        assert torch.equal(step.obs, obs)
        assert step.reward.item() == STEP
        step = env.step(torch.tensor([FORWARD]))
        assert step.obs.tolist() == [[0.5, 0, 0, 0]]
        step = env.step(torch.tensor([FORWARD]))
        assert step.obs.tolist() == [[1, 0, 0, 1]]
        step = env.step(torch.tensor([cue]))
        obs = step.obs
        assert step.reward.item() == 1
        assert step.terminated.item() == step.success.item() == (corridor == 1)
    assert step.final_obs.tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize("wrong", [FORWARD, None])
def test_other_actions_at_a_junction_end_the_episode(wrong: int | None) -> None:
    env = EndlessTMaze(1, length=1)
    cue = cue_of(env.reset(seed=1))
    env.step(torch.tensor([FORWARD]))
    step = env.step(torch.tensor([3 - cue if wrong is None else wrong]))
    assert step.reward.item() == -1
    assert step.terminated.item()
    assert not step.success.item()


def test_waiting_is_truncated() -> None:
    env = EndlessTMaze(3, num_corridors=2, length=3)
    env.reset(seed=2)
    for time in range(1, 49):
        step = env.step(torch.full((3,), LEFT))
        assert step.truncated.tolist() == [time == 48] * 3
    assert not step.terminated.any()
    assert step.obs[:, 0].tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 5.5), ({"uniform": False}, 10.0), ({"shows_junction": False, "uniform": False}, 10.0)],
)
def test_memory_turns_right_every_time(options: dict[str, Any], steps: float) -> None:
    env = EndlessTMaze(500, **options)
    returns = play(env, EndlessTMazeReference(env), 500, seed=3)
    deviation = 2.88 * 3**0.5 / 100
    assert abs(returns.mean() - (3 - 0.01 * 3 * steps)) < 4 * deviation / 500**0.5 + 1e-6


def test_hidden_junctions_can_be_found_by_trying() -> None:
    env = EndlessTMaze(200, shows_junction=False, shows_position=False)
    assert env.observation_table().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert play(env, EndlessTMazeReference(env), 200, seed=4).min() > 2


def test_guessing_passes_half_of_the_junctions() -> None:
    env = EndlessTMaze(2000, num_corridors=3)
    returns = play(env, EndlessTMazeMemoryless(env), 2000, seed=5)
    share = (returns > 2).double().mean()
    assert abs(share - 1 / 8) < 4 * (7 / 64 / 2000) ** 0.5


def test_lengths_and_cues_are_uniform() -> None:
    env = EndlessTMaze(6000, length=3)
    env.reset(seed=6)
    state = env.state_dict()
    counts = torch.bincount(2 * (state["end"] - 1) + state["cue"], minlength=6)
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 5 + 4 * 10**0.5


def test_pictures_show_the_state_before_the_autoreset() -> None:
    env = EndlessTMaze(1, num_corridors=1, length=1)
    cue = cue_of(env.reset(seed=0))
    first = env.render(tile_size=8)
    env.step(torch.tensor([FORWARD]))
    junction = env.render(tile_size=8)
    assert (first != junction).any()
    env.step(torch.tensor([cue]))
    assert (env.render(final=True, tile_size=8) != env.render(tile_size=8)).any()


@pytest.mark.parametrize(
    "options", [{"num_corridors": 0}, {"length": 1001}, {"uniform": 1}, {"shows_junction": None}]
)
def test_invalid_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*expected"):
        EndlessTMaze(**options)

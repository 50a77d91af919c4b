"""Pictures of the tasks that show a sequence: what is in view, and the last state of an episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import rmc_envs
from rmc_agents.environment import BatchedEnv
from rmc_envs.sequences.pictures import ordinal

TASKS: list[tuple[str, dict[str, Any], int]] = [
    ("rmc/Recall-v0", {}, 10),
    ("rmc/Recall-v0", {"delay": 0}, 2),
    ("rmc/KeyValue-v0", {"num_rewrites": 2, "num_distractors": 1}, 19),
    ("rmc/KeyValue-v0", {"num_pairs": 1}, 2),
    ("rmc/NthFarthest-v0", {}, 8),
]


def made(env_id: str, options: dict[str, Any]) -> Any:
    builder = rmc_envs.native(env_id)
    assert builder is not None
    return builder(num_envs=2, **options)


def act(env: BatchedEnv) -> None:
    env.step(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(("env_id", "options", "length"), TASKS)
def test_each_step_has_its_picture(env_id: str, options: dict[str, Any], length: int) -> None:
    env = made(env_id, options)
    env.reset(3)
    pictures = []
    for _ in range(length):
        pictures.append(env.render(1))
        if len(pictures) > 1:
            np.testing.assert_array_equal(pictures[-1], env.render(1, final=True))
        act(env)
    assert len({picture.tobytes() for picture in pictures}) == length
    end, begun = env.render(1, final=True), env.render(1)
    assert end.shape == begun.shape == pictures[0].shape
    assert not np.array_equal(end, begun)
    act(env)
    np.testing.assert_array_equal(env.render(1, final=True), env.render(1))


@pytest.mark.parametrize(("env_id", "options", "length"), TASKS)
def test_restored_task_draws_the_same(env_id: str, options: dict[str, Any], length: int) -> None:
    env, other = made(env_id, options), made(env_id, options)
    env.reset(5)
    act(env)
    other.load_state_dict(env.state_dict())
    for final in (False, True):
        np.testing.assert_array_equal(other.render(0, final=final), env.render(0))


@pytest.mark.parametrize("env_id", ["rmc/Recall-v0", "rmc/KeyValue-v0", "rmc/NthFarthest-v0"])
def test_picture_before_the_first_reset_is_refused(env_id: str) -> None:
    with pytest.raises(RuntimeError, match="reset"):
        made(env_id, {}).render()


def test_ordinals_have_their_english_endings() -> None:
    found = [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 102, 111)]
    assert found == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "102nd", "111th"]

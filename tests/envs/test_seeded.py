"""Seeds of native tasks, and new episodes: they start where one ended, and nowhere else."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import rmc_envs
from rmc_envs.seeded import restart, restart_without_waiting
from tests.support.native_tasks import EVERY_TASK
from tests.support.seeding import NO_SEEDS, takes_seeding


@pytest.mark.parametrize("how", [restart, restart_without_waiting])
@pytest.mark.parametrize("ended", [[], [0], [1, 3], [0, 1, 2, 3]])
def test_rows_are_replaced_where_an_episode_ended(how, ended: list[int]) -> None:
    def draw(count: int) -> tuple[Tensor, ...]:
        return torch.full((count, 3), 7.0), torch.full((count,), 8), torch.full((count,), 9)

    board, time, obs = torch.zeros(4, 3), torch.arange(4), torch.arange(4)
    done = torch.zeros(4, dtype=torch.bool)
    done[ended] = True
    found = how((board, time), obs, done, draw)
    assert obs.tolist() == [0, 1, 2, 3]  # the last observations stay as they are
    assert found.tolist() == [9 if i in ended else i for i in range(4)]
    assert time.tolist() == [8 if i in ended else i for i in range(4)]
    assert board[:, 0].tolist() == [7 if i in ended else 0 for i in range(4)]


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_seed_that_is_no_whole_number_from_0_on_is_refused(env_id: str) -> None:
    seedings = ({}, {"seeding": "farama"}) if takes_seeding(env_id) else ({},)
    batches = [rmc_envs.make(env_id, 2, **options) for options in seedings]
    envs = [*batches, gymnasium.make(env_id), gymnasium.make_vec(env_id, 2)]
    for env in envs:
        for seed in NO_SEEDS:
            with pytest.raises(ValueError, match=r"^seed=.*: expected at least 0 .*, as a whole number$"):
                env.reset(seed=seed)  # pyright: ignore[reportArgumentType]
        env.close()


@pytest.mark.parametrize("env_id", ["rmc/Recall-v0", "rmc/MemoryS9-v0"])
def test_refused_seed_changes_nothing(env_id: str) -> None:
    task, same = rmc_envs.make(env_id, 8), rmc_envs.make(env_id, 8)
    task.reset(seed=4), same.reset(seed=4)
    with pytest.raises(ValueError, match="seed=-1"):
        task.reset(seed=-1)
    for _ in range(20):
        actions = torch.ones(8, dtype=torch.int64)
        assert torch.equal(task.step(actions).reward, same.step(actions).reward)
    one, other = task.state_dict(), same.state_dict()
    assert one is not None
    assert other is not None
    assert torch.equal(one["generator"], other["generator"])


@pytest.mark.parametrize("env_id", ["rmc/Recall-v0", "rmc/MemoryS13Random-v0"])
def test_seed_of_numpy_equals_that_of_python(env_id: str) -> None:
    found = []
    for seed in (5, np.int64(5)):
        env = gymnasium.make(env_id)
        found.append(env.reset(seed=seed)[0])  # pyright: ignore[reportArgumentType]
        env.close()
    one, other = (list(x.values()) if isinstance(x, dict) else [x] for x in found)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("state", [{}, None, {"time": 3}, []])
def test_what_is_no_state_is_one_error(state: Any) -> None:
    env = rmc_envs.make("rmc/Recall-v0", 2)
    env.reset(0)
    with pytest.raises(ValueError, match="is no state of rmc/Recall-v0"):
        env.load_state_dict(state)

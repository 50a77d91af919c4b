"""Seeds of batches of Gymnasium environments are checked as those of native tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

import rmc_envs
from rmc_envs.gymnasium.first_episodes import FirstEpisodes
from rmc_envs.gymnasium.workers import Workers
from tests.support.seeding import NO_SEEDS

ENV = "CartPole-v1"


def make_one() -> gymnasium.Env:
    return gymnasium.make(ENV)


BATCHES: dict[str, Callable[[], Any]] = {
    "sync": lambda: rmc_envs.make(ENV, 2, vectorization="sync"),
    "async": lambda: rmc_envs.make(ENV, 2, vectorization="async"),
    "trials": lambda: rmc_envs.trials(ENV, "gymnasium", 2),
    "Workers": lambda: Workers([make_one] * 2, ENV),
    "FirstEpisodes": lambda: FirstEpisodes([make_one] * 2),
}


@pytest.mark.parametrize("name", BATCHES)
def test_seed_that_is_no_whole_number_from_0_on_is_refused(name: str) -> None:
    env = BATCHES[name]()
    for seed in (*NO_SEEDS, 2**70, np.int64(-1)):
        if name == "FirstEpisodes" and isinstance(seed, list):  # one for each environment
            continue
        with pytest.raises(ValueError, match=r"^seed=.*: expected at least 0 .*, as a whole number$"):
            env.reset(seed=seed)
    env.close()


@pytest.mark.parametrize("name", BATCHES)
def test_seed_of_numpy_equals_that_of_python(name: str) -> None:
    env = BATCHES[name]()
    found = [env.reset(seed=seed) for seed in (3, np.int64(3))]
    one, other = (np.asarray(obs[0] if isinstance(obs, tuple) else obs) for obs in found)
    assert one.shape == (2, 4)
    assert np.array_equal(one, other)
    env.close()


def test_each_seed_of_a_list_is_checked() -> None:
    env = FirstEpisodes([make_one] * 2)
    env.reset(seed=[3, None])
    with pytest.raises(ValueError, match=r"^seed=1\.5: "):
        env.reset(seed=[3, 1.5])  # pyright: ignore[reportArgumentType]
    env.close()

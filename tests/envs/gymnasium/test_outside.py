"""Tests of the warning about boxes whose bounds are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rmc_envs
from rmc_agents.spaces import read
from rmc_agents.spaces.annotated import minigrid_image
from rmc_envs import GymnasiumEnvs
from rmc_envs.gymnasium.outside import Outside


@pytest.mark.parametrize(
    ("space", "value", "reported"),
    [
        (spaces.Box(0, 1, (2, 2), np.uint8), 255, True),
        (spaces.Box(0, 4, (3,), np.int64), 7, True),
        (spaces.Box(0, 4, (3,), np.int64), -1, True),
        (spaces.Box(0, 1, (8, 8)), 200.0, True),
        (spaces.Box(-1, 1, (3,)), 1.5, False),
        (spaces.Box(0, 4, (3,), np.int64), 4, False),
        (spaces.Box(0, 255, (2, 2), np.uint8), 255, False),
        (spaces.Box(0, 1, (2,), bool), True, False),
        (spaces.Box(-np.inf, np.inf, (3,)), 1e9, False),
        (spaces.Box(0, np.inf, (3,)), -5.0, False),
        (spaces.Discrete(3), 2, False),
    ],
    ids=str,
)
def test_wrong_bounds_are_reported_once(space: spaces.Space, value: float, reported: bool) -> None:
    outside = Outside([(("x",), space)])
    arrays = {"x": np.full((2, *(space.shape or ())), value, space.dtype)}
    found = outside.found_in(arrays)
    assert bool(found) == reported
    assert outside.found_in(arrays) == []
    if reported:
        assert found[0].startswith(f"returned {value} as observation x, outside of its space")


def test_bounds_beyond_float32_are_compared_without_a_warning() -> None:
    outside = Outside([((), spaces.Box(-1e300, 1e300, (2,), np.float64))])
    assert outside.found_in({"": np.array([[1e30, -1e30]], np.float32)}) == []


def test_batches_warn_of_wrong_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    env = rmc_envs.make("FrozenLake-v1", 2, vectorization="sync")
    assert not env.warnings()
    env.close()
    env = rmc_envs.make("CartPole-v1", 2)
    monkeypatch.setattr(env, "_outside", Outside([((), spaces.Box(10, 11, (4,)))]))
    env.reset(0)
    (warning,) = env.warnings()
    assert warning.startswith("warning: CartPole-v1 returned ")
    env.close()


def test_codes_that_the_space_does_not_count_are_reported_once() -> None:
    outside = Outside([(("image",), minigrid_image(3))])
    arrays = {"image": np.zeros((2, 3, 3, 3), np.uint8)}
    arrays["image"][..., :] = 10, 5, 3
    assert outside.found_in(arrays) == []
    arrays["image"][1, 2, 0] = 12, 5, 3
    (found,) = outside.found_in(arrays)
    assert found.startswith(
        "returned codes up to [12, 5, 3] as observation image, and the agent reads [11, 6, 4]"
    )
    assert outside.found_in(arrays) == []


def test_users_vector_environments_say_how_minigrids_images_are_read() -> None:
    vector = SyncVectorEnv(
        [rmc_envs.make_reference("MiniGrid-MemoryS7-v0")], autoreset_mode=AutoresetMode.SAME_STEP
    )
    image = GymnasiumEnvs(vector).observation_space["image"]  # type: ignore[index]
    assert str(read(image)) == "codes:11,6,4"

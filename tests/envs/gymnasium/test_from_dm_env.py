"""Environments of dm_env become Gymnasium environments: spaces, ends of episodes, seeds and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from rmc_envs.gymnasium.from_dm_env import FromDmEnv, to_space


@dataclass
class Spec:
    """An array, as `dm_env.specs.Array`."""

    shape: tuple[int, ...]
    dtype: Any


@dataclass
class BoundedSpec(Spec):
    minimum: Any
    maximum: Any


@dataclass
class DiscreteSpec(BoundedSpec):
    num_values: int


@dataclass
class Step:
    """A step, as `dm_env.TimeStep`."""

    observation: Any
    reward: float | None = None
    discount: float | None = None
    is_last: bool = False

    def last(self) -> bool:
        return self.is_last


class Counter:
    """Shows a random digit as a picture, and ends after three steps, with the discount that was chosen."""

    def __init__(self, seed: int, discount: float = 0.0) -> None:
        self.generator, self.discount, self.time = np.random.RandomState(seed), discount, 0

    def observation_spec(self) -> BoundedSpec:
        return BoundedSpec((2, 2, 3), np.uint8, np.uint8(0), np.uint8(255))

    def action_spec(self) -> DiscreteSpec:
        return DiscreteSpec((), np.int32, 0, 3, 4)

    def _picture(self) -> Any:
        return np.full((2, 2, 3), self.generator.randint(256), np.uint8)

    def reset(self) -> Step:
        self.time = 0
        return Step(self._picture())

    def step(self, action: int) -> Step:
        assert type(action) is int
        self.time += 1
        over = self.time == 3
        return Step(self._picture(), float(action), self.discount if over else 1.0, over)

    def close(self) -> None:
        pass


def test_specifications_become_spaces() -> None:
    spec = {
        "plain": Spec((1, 2), np.float32),
        "bounded": BoundedSpec((2,), np.float64, np.array([0.0, -1.0]), np.array(1.0)),
        "choice": DiscreteSpec((), np.int32, 0, 4, 5),
        "codes": Spec((3,), np.int8),
    }
    space = to_space(spec, flatten=True)
    assert isinstance(space, spaces.Dict)
    assert space["plain"] == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert space["bounded"] == spaces.Box(np.array([0.0, -1.0]), np.array([1.0, 1.0]), dtype=np.float64)
    assert space["choice"] == spaces.Discrete(5)
    assert space["codes"] == spaces.Box(-128, 127, (3,), np.int8)
    assert to_space(spec["plain"]).shape == (1, 2)


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_discount_of_the_last_step_decides_how_an_episode_ends(discount: float) -> None:
    env = FromDmEnv(lambda seed: Counter(seed, discount))
    env.reset(seed=0)
    steps = [env.step(np.int64(action)) for action in (1, 3, 2)]
    assert [reward for _, reward, *_ in steps] == [1, 3, 2]
    assert [terminated for _, _, terminated, *_ in steps] == [False, False, discount == 0]
    assert [truncated for *_, truncated, _ in steps] == [False, False, discount == 1]


def test_seed_fixes_the_episodes() -> None:
    one, same = FromDmEnv(Counter), FromDmEnv(Counter)
    one.reset()  # must not matter
    assert one.reset(seed=3)[0].tolist() == same.reset(seed=3)[0].tolist()
    second = one.reset()[0].tolist()
    assert second == same.reset()[0].tolist()
    assert second != one.reset(seed=3)[0].tolist()


def test_converted_environment_passes_gymnasiums_checker() -> None:
    gymnasium.register("test/Counter-v0", lambda **options: FromDmEnv(Counter, **options))
    try:
        env = gymnasium.make("test/Counter-v0", render_mode="rgb_array")
        check_env(env.unwrapped)
        env.reset(seed=0)
        picture = env.render()
    finally:
        del gymnasium.registry["test/Counter-v0"]
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (256, 256, 3)

"""The checker accepts unusual tasks that follow the contract, and warns about suspicious ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rmc_envs
from rmc_agents.environment import GroundTruth, Obs, Transition
from tests.support.masked_task import Extreme
from tests.support.tiny_task import DIGITS, ListedTiny, Tiny


def test_checker_accepts_a_device_with_an_index() -> None:
    rmc_envs.check(Tiny(4, "cpu:0"), steps=20)


def test_checker_accepts_a_task_with_an_observation_table() -> None:
    env = ListedTiny(4)
    rmc_envs.check(env, steps=20)
    assert not env.observe_ids


@pytest.mark.parametrize("components", [None, 2])
def test_checker_accepts_a_task_with_action_masks(components: int | None) -> None:
    def make(num_envs: int, device: str | torch.device) -> Extreme:
        return Extreme(num_envs, device, components)

    rmc_envs.check(make(4, "cpu"), steps=20, make=make)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.bool_])
def test_checker_compares_every_dtype_with_its_space(dtype: Any) -> None:
    class Typed(Tiny):
        def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
            super().__init__(num_envs, device)
            self.observation_space = spaces.Box(0, 1, (), dtype)

        def observe(self) -> Tensor:
            assert self.digit is not None
            return (self.time == 0).to(torch.from_numpy(np.zeros(0, dtype)).dtype)

    class TooLarge(Typed):
        def observe(self) -> Tensor:
            return torch.where(self.time == 0, 7, 1).to(super().observe().dtype)

    rmc_envs.check(Typed(4), steps=20)
    if dtype is not np.bool_:
        found = "the observation of reset holds 7 in environment 0"
        with pytest.raises(rmc_envs.ContractError, match=found):
            rmc_envs.check(TooLarge(4), steps=20)


def test_checker_accepts_last_observations_that_mostly_equal_the_next_first_one() -> None:
    class OneEndDiffers(Tiny):
        """Shows a last observation of its own where the digit is 0."""

        def step(self, actions: Tensor) -> Transition:
            digit = self.digit
            step = super().step(actions)
            assert digit is not None
            assert isinstance(step.obs, dict)
            assert isinstance(step.final_obs, dict)
            own = step.done & (digit == 0)
            final_obs = {
                "digit": torch.where(own, step.final_obs["digit"], step.obs["digit"]),
                "time": torch.where(own.unsqueeze(1), step.final_obs["time"], step.obs["time"]),
            }
            return step._replace(final_obs=final_obs)

    rmc_envs.check(OneEndDiffers(4), steps=20)


def test_checker_accepts_equal_first_and_last_observations() -> None:
    class Blank(Tiny):
        def observe(self) -> Obs:
            middle = self.time == 1
            return {"digit": middle.long(), "time": middle.float().unsqueeze(1)}

    rmc_envs.check(Blank(4), steps=40)


def test_checker_accepts_ground_truth_and_start_ids() -> None:
    class Cued(Tiny):
        def start_ids(self) -> Tensor:
            assert self.digit is not None
            return self.digit

        def ground_truth(self) -> GroundTruth:
            assert self.digit is not None
            return GroundTruth(self.digit % 2, self.time == 0, self.time, self.time)

    rmc_envs.check(Cued(4), steps=20)


def test_checker_accepts_a_state_of_every_documented_type() -> None:
    part = {"a": [None, True, 2, 2.5, float("nan"), "text", (torch.ones(2), [])], "b": {}}

    class ManyTypes(Tiny):
        def state_dict(self) -> dict[str, Any] | None:
            state = super().state_dict()
            assert state is not None
            return {**state, "part": part}

    rmc_envs.check(ManyTypes(4), steps=20)


def test_checker_accepts_a_task_without_randomness() -> None:
    class Constant(Tiny):
        def draw(self) -> Tensor:
            return torch.full((self.num_envs,), DIGITS - 1, device=self.device)

    rmc_envs.check(Constant(4), steps=20)


def test_checker_warns_about_a_seed_without_effect() -> None:
    class OneSeed(Tiny):
        def reset(self, seed: int | None = None) -> Obs:
            return super().reset(None if seed is None else 7)

    with pytest.warns(UserWarning, match=r"OneSeed\): reset\(0\) and reset\(1\) give the same episodes"):
        rmc_envs.check(OneSeed(4), steps=20)


@pytest.mark.parametrize("default", [None, 5])
def test_checker_warns_about_a_reset_that_repeats_episodes(default: int | None) -> None:
    class Repeats(Tiny):
        latest = 0

        def reset(self, seed: int | None = None) -> Obs:
            if seed is None:
                seed = self.latest if default is None else default
            self.latest = seed
            return super().reset(seed)

        def state_dict(self) -> dict[str, Any] | None:
            state = super().state_dict()
            assert state is not None
            return {**state, "latest": self.latest}

        def load_state_dict(self, state: dict[str, Any]) -> Obs:
            self.latest = state["latest"]
            return super().load_state_dict(state)

    with pytest.warns(UserWarning, match=r"Repeats\): reset\(None\) repeats the same episodes"):
        rmc_envs.check(Repeats(4), steps=20)


def test_checker_warns_where_it_cannot_build_another_number_of_environments() -> None:
    class OnlyFour(Tiny):
        def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
            if num_envs != 4:
                raise ValueError("expected 4 environments")
            super().__init__(num_envs, device)

    found = r"not checked: another instance of 5 environments, since its constructor raised ValueError"
    with pytest.warns(UserWarning, match=found):
        rmc_envs.check(OnlyFour(4), steps=20)

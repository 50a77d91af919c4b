"""Action masks of Gymnasium environments, which raise at a forbidden action."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

import rmc_envs
from rmc_agents.environment import EnvironmentFailed
from rmc_agents.spaces.masks import ActionMasks, allowed_actions, random_allowed
from rmc_envs.gymnasium.api import BatchedVectorEnv, SingleEnv
from tests.support.masked_task import Extreme, Strict

CHOICES = spaces.Discrete(4, start=1)
PAIR = spaces.MultiDiscrete([3, 4])
BITS = spaces.MultiBinary(3)
SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP


def register(monkeypatch: pytest.MonkeyPatch, maker: Any = Strict, **options: Any) -> str:
    """Register an environment without Gymnasium's own checks, and return its id."""
    spec = gymnasium.envs.registration.EnvSpec(
        "test/Strict-v0", maker, disable_env_checker=True, kwargs=options
    )
    monkeypatch.setitem(gymnasium.registry, "test/Strict-v0", spec)
    return "test/Strict-v0"


def play(env: rmc_envs.BatchedEnv, steps: int = 25) -> list[torch.Tensor]:
    """Take random allowed actions; return the masks after the reset and after each step."""
    generator = torch.Generator().manual_seed(0)
    env.reset(0)
    found = []
    for _ in range(steps):
        masks = env.action_masks()
        assert masks is not None
        assert masks.dtype == torch.bool
        found.append(masks)
        env.step(random_allowed(masks, env.action_space, generator))
    return found


@pytest.mark.parametrize("space", [CHOICES, PAIR, BITS])
@pytest.mark.parametrize("form", ["info", "method", "tuple"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_masks_are_those_of_each_environment(
    space: spaces.Space, form: str, vectorization: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "tuple" and space is CHOICES:
        space = spaces.MultiDiscrete([4])
    env = rmc_envs.make(register(monkeypatch, action_space=space, form=form), 3, vectorization=vectorization)
    found = torch.stack(play(env))
    sizes = ActionMasks(space).sizes
    for part in found.split(sizes, dim=2):  # half of the choices, rounded up
        assert (part.sum(2) == (part.shape[2] + 1) // 2).all()
    single = Strict(space, "info")
    _, info = single.reset(seed=2)
    assert torch.equal(found[0, 2], torch.as_tensor(info["action_mask"] == 1))
    env.close()


@pytest.mark.parametrize("form", ["info", "method"])
@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_gymnasiums_own_vector_environments_give_masks(kind: type[VectorEnv], mode: Any, form: str) -> None:
    vector: Any = kind([lambda: Strict(PAIR, form)] * 2, autoreset_mode=mode)
    env = rmc_envs.GymnasiumEnvs(vector)
    found = torch.stack(play(env))
    before_fillers = found.all(2).any(1)
    assert bool(before_fillers.any()) == (mode is NEXT)
    assert not found[0].all()
    env.close()


def test_checker_accepts_environments_that_raise_at_forbidden_actions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rmc_envs.check(rmc_envs.make(register(monkeypatch), 2), steps=20)


def test_ended_episodes_of_an_evaluation_allow_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    env = rmc_envs.trials(register(monkeypatch, action_space=PAIR), "gymnasium", 3)
    found = play(env, steps=8)
    assert [bool(masks.all()) for masks in found] == [False] * 5 + [True] * 3


def test_environments_without_masks_give_none(monkeypatch: pytest.MonkeyPatch) -> None:
    env = rmc_envs.make("CartPole-v1", 2)
    assert env.action_masks() is None
    env.reset(0)
    env.step(torch.zeros(2, dtype=torch.int64))
    assert env.action_masks() is None
    assert env.warnings() == []


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_unreadable_mask_names_environment_and_step(
    vectorization: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Strict):
        def step(self, action: Any) -> Any:
            obs, reward, terminated, truncated, _ = super().step(action)
            return obs, reward, terminated, truncated, {"action_mask": np.ones(3)}

    env = rmc_envs.make(register(monkeypatch, Wrong), 2, vectorization=vectorization)
    env.reset(0)
    masks = env.action_masks()
    assert masks is not None
    env.step(allowed_actions(torch.zeros(2, dtype=torch.int64), masks, env.action_space))
    message = (
        "environment 0 (test/Strict-v0) gave an action mask of shape (3,), expected one of shape (4,), "
        "at step 1 of its episode"
    )
    with pytest.raises(EnvironmentFailed, match=f"^{re.escape(message)}$"):
        env.action_masks()
    env.close()


def test_method_that_raises_names_environment_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Strict):
        def action_masks(self) -> Any:
            raise KeyError("board")

    env = rmc_envs.make(register(monkeypatch, Wrong), 2)
    env.reset(0)
    message = r"environment 0 \(test/Strict-v0\) raised KeyError.*board.* in `action_masks` in reset"
    with pytest.raises(EnvironmentFailed, match=message):
        env.action_masks()


def test_mask_that_allows_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Strict):
        def _answer(self) -> Any:
            obs, info = super()._answer()
            return obs, {"action_mask": info["action_mask"] * (self.time != 1)}

    env = rmc_envs.make(register(monkeypatch, Stuck), 2)
    with pytest.raises(EnvironmentFailed, match="without an allowed choice, at step 1 of its episode"):
        play(env)


def test_mask_that_is_missing_later_is_an_error() -> None:
    class Forgetful(Strict):
        def _answer(self) -> Any:
            obs, info = super()._answer()
            return obs, info if self.time != 2 else {}

    vector = SyncVectorEnv([lambda: Strict(), lambda: Forgetful()], autoreset_mode=SAME)
    message = r"environment 1 \(.*\) gave no action mask, but gave one before, at step 2 of the batch"
    with pytest.raises(EnvironmentFailed, match=message):
        play(rmc_envs.GymnasiumEnvs(vector))


@pytest.mark.parametrize("numbers", [True, False])
def test_masks_that_are_not_used_are_reported_once(numbers: bool) -> None:
    class Late(gymnasium.Env[Any, Any]):
        observation_space = spaces.Box(0, 1, (1,), np.float32)
        action_space = spaces.Box(-1, 1, (1,), np.float32) if numbers else spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(1, np.float32), 0.0, False, False, {"action_mask": np.array([1, 0])}

    env = rmc_envs.GymnasiumEnvs(SyncVectorEnv([Late, Late], autoreset_mode=SAME), name="Late")
    env.reset(0)
    actions = torch.zeros(2, 1) if numbers else torch.zeros(2, dtype=torch.int64)
    env.step(actions)
    why = (
        "action masks are for Discrete, MultiDiscrete and MultiBinary"
        if numbers
        else "one in the info of `reset`, too"
    )
    (message,) = env.warnings()
    assert message.startswith("warning: the action masks of Late are not used: ")
    assert why in message
    env.step(actions)
    assert env.warnings() == []
    assert env.action_masks() is None


def test_native_tasks_give_masks_as_gymnasium_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rmc_envs.NATIVE, "test/Extreme-v0", Extreme)
    single = SingleEnv("test/Extreme-v0")
    _, info = single.reset(seed=0)
    native = Extreme(1)
    native.reset(0)
    for _ in range(3):
        masks = native.action_masks()
        assert masks is not None
        np.testing.assert_array_equal(info["action_mask"], masks[0].numpy())
        action = int(masks[0].byte().argmax())
        native.step(torch.tensor([action]))
        *_, info = single.step(action)
    assert "action_mask" not in info  # the episode has ended
    vector = BatchedVectorEnv("test/Extreme-v0", 3)
    _, infos = vector.reset(seed=0)
    assert infos["action_mask"].shape == (3, 4)
    *_, infos = vector.step(infos["action_mask"].argmax(1))
    assert infos["_action_mask"].all()

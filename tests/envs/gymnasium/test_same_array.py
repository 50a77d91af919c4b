"""Environments that hand out and keep their own arrays: what was returned does not change later."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

import rmc_envs
from rmc_envs.gymnasium.first_episodes import FirstEpisodes

BOX = spaces.Box(-1e6, 1e6, (2,), np.float32)
SPACES = {
    "box": BOX,
    "dict": spaces.Dict({"a": BOX, "b": spaces.Dict({"c": BOX})}),
    "tuple": spaces.Tuple([BOX, spaces.Tuple([BOX, spaces.Discrete(9)])]),
    "list": spaces.Tuple([BOX, BOX]),
}


class SameArray(gymnasium.Env):
    """Episodes of three steps; its only array holds [seed or episode, time], and is changed in place.

    The array is negative after each reset's return, as of an environment that computes ahead.
    """

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, form: str = "box") -> None:
        self.form, self.observation_space = form, SPACES[form]
        self.array = np.zeros(2, np.float32)
        self.episode = 0
        self.actions: list[Any] = []
        self.info = {"is_success": np.array(False), "array": self.array}
        parts: dict[str, Any] = {
            "box": self.array,
            "dict": {"a": self.array, "b": {"c": self.array}},
            "tuple": (self.array, (self.array, 1)),
            "list": [self.array, self.array],
        }
        self.obs = parts[form]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode = 100 * seed if seed is not None else self.episode + 1
        self.array[:] = self.episode, 0
        self.info["is_success"][...] = False
        return self.obs, self.info

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        action *= 0  # it is the environment's own array
        self.array[1] += 1
        self.info["is_success"][...] = True
        return self.obs, 0.0, False, self.array[1] == 3, self.info


def first_part(obs: Any) -> torch.Tensor:
    return next(iter(obs.values())) if isinstance(obs, dict) else obs


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EnvSpec("test/Same-v0", SameArray, disable_env_checker=True)  # it would warn
    monkeypatch.setitem(gymnasium.registry, "test/Same-v0", spec)


def same_step(vector: type[VectorEnv]) -> VectorEnv:
    return vector([SameArray] * 2, autoreset_mode=AutoresetMode.SAME_STEP)  # type: ignore[call-arg]


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_final_observation_is_the_last_of_the_ended_episode(vectorization: Any, form: str) -> None:
    batch = rmc_envs.make("test/Same-v0", 2, vectorization=vectorization, form=form)
    actions = torch.ones(2, 2)
    kept = [batch.reset(seed=1)]
    steps = []
    for _ in range(7):
        step = batch.step(actions)
        steps.append(step)
        kept += [step.obs, step.final_obs]
    for t, step in enumerate(steps):
        for part in step.final_obs.values() if isinstance(step.final_obs, dict) else [step.final_obs]:
            if part.dim() == 2:
                assert part.tolist() == [[100 + t // 3, t % 3 + 1], [200 + t // 3, t % 3 + 1]]
        ended = t % 3 == 2
        assert step.truncated.tolist() == [ended] * 2
        following = [[101 + t // 3, 0], [201 + t // 3, 0]] if ended else first_part(step.final_obs).tolist()
        assert first_part(step.obs).tolist() == following
        assert step.success is None or step.success.tolist() == [ended] * 2
    assert torch.equal(actions, torch.ones(2, 2))
    batch.close()


def test_given_vector_environment_gets_wrappers_that_copy() -> None:
    vector = gymnasium.wrappers.vector.RecordEpisodeStatistics(same_step(SyncVectorEnv))
    batch = rmc_envs.GymnasiumEnvs(vector)
    batch.reset(seed=1)
    final = [batch.step(torch.ones(2, 2)).final_obs.tolist() for _ in range(3)][-1]
    assert final == [[100, 3], [200, 3]]


def test_actions_are_copied_for_environments_that_keep_them() -> None:
    batch = rmc_envs.make("test/Same-v0", 1)
    batch.reset(seed=1)
    for number in (0.25, 0.5):
        given = torch.full((1, 2), number)
        batch.step(given)
        assert given.tolist() == [[number] * 2]
    single = batch.env.envs[0].unwrapped  # type: ignore[attr-defined]
    assert single.actions[0] is not single.actions[1]


def test_evaluation_reads_the_last_observation() -> None:
    batch = rmc_envs.trials("test/Same-v0", "gymnasium", 2)
    assert isinstance(batch.env, FirstEpisodes)  # type: ignore[attr-defined]
    batch.reset(seed=1)
    steps = [batch.step(torch.ones(2, 2)) for _ in range(3)]
    assert steps[0].obs.tolist() == [[100, 1], [200, 1]]
    assert steps[2].final_obs.tolist() == [[100, 3], [200, 3]]


class Overwriting(VectorEnv):
    """A vector environment whose final observations are the array of the next episode's first ones."""

    def __init__(self, copies: bool, varies: bool = True) -> None:
        self.num_envs, self.copies, self.varies = 2, copies, varies
        self.single_observation_space, self.single_action_space = BOX, spaces.Discrete(2)
        self.observation_space, self.action_space = batch_space(BOX, 2), batch_space(spaces.Discrete(2), 2)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.array, self.episode = np.zeros((2, 2), np.float32), 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.array[:] = self.episode, 0
        return self.array, {}

    def step(self, actions: Any) -> Any:
        self.array[:, 1] += 1
        ended, infos = self.array[:, 1] == 3, {}
        if ended.any():
            infos["final_obs"] = self.array.copy() if self.copies else self.array
            self.episode += self.varies
            self.array[:] = self.episode, 0
        return self.array, np.zeros(2), np.zeros(2, bool), ended, infos


@pytest.mark.parametrize(("copies", "varies", "said"), [(False, True, 1), (True, True, 0), (False, False, 0)])
def test_overwritten_final_observations_are_said_once(copies: bool, varies: bool, said: int) -> None:
    """Where every episode starts alike, final observations may well equal the first ones."""
    batch = rmc_envs.GymnasiumEnvs(Overwriting(copies, varies))
    batch.reset(0)
    messages = []
    for _ in range(120):
        batch.step(torch.zeros(2, dtype=torch.int64))
        messages += batch.warnings()
    assert len(messages) == said
    assert all("hand out the same array each time" in message for message in messages)


def test_gymnasiums_processes_that_overwrite_are_said() -> None:
    batch = rmc_envs.GymnasiumEnvs(same_step(AsyncVectorEnv))
    batch.reset(seed=1)
    for _ in range(60):
        batch.step(torch.ones(2, 2))
    assert len(batch.warnings()) == 1
    batch.close()


def test_vector_environment_without_final_observations_is_refused() -> None:
    vector = Overwriting(copies=True)
    batch = rmc_envs.GymnasiumEnvs(vector)
    batch.reset(0)
    step = vector.step
    vector.step = lambda actions: (*step(actions)[:4], {})  # type: ignore[method-assign]
    batch.step(torch.zeros(2, dtype=torch.int64))
    batch.step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(rmc_envs.EnvironmentFailed, match=r"no `final_obs` .*autoreset="):
        batch.step(torch.zeros(2, dtype=torch.int64))

"""Tests of MiniGrid's ids in SB3, whose observations hold text that SB3 cannot read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from rmc_agents.sb3 import RMCPolicy, without_text
from rmc_agents.sb3.text import install_text_filter, remove_text_filter
from tests.support.sb3 import MAZE, RandomObservations, maze

SETTINGS = {
    "n_steps": 16,
    "batch_size": 16,
    "n_epochs": 1,
    "policy_kwargs": {"num_slots": 4, "head_size": 16, "num_heads": 4},
    "device": "cpu",
}


@pytest.fixture
def no_filter() -> Iterator[None]:
    """Remove the filter for one test."""
    remove_text_filter()
    yield
    install_text_filter()


class Words(RandomObservations):
    """An environment whose observation holds a text."""

    def __init__(self) -> None:
        words = spaces.Dict(words=spaces.Text(5), number=spaces.Box(0, 1, (2,)))
        super().__init__(words, spaces.Discrete(2))


def test_recurrent_ppo_accepts_minigrids_ids() -> None:
    model = RecurrentPPO(RMCPolicy, MAZE, **SETTINGS)
    assert set(model.observation_space.spaces) == {"image", "direction"}
    model.learn(32)
    env = gymnasium.make(MAZE)
    obs, _ = env.reset(seed=0)
    assert "mission" in obs, "Gymnasium's own environment is unchanged"
    action, state = model.predict(obs, episode_start=np.array([True]))
    assert env.action_space.contains(int(action))
    model.predict(obs, state)
    evaluate_policy(model, gymnasium.make(MAZE, max_steps=5), 2, warn=False)


@pytest.mark.usefixtures("no_filter")
def test_sb3_rejects_minigrids_ids_without_the_filter() -> None:
    """When this fails, SB3 reads or ignores text itself, and the filter can be deleted."""
    with pytest.raises(TypeError):
        RecurrentPPO(RMCPolicy, MAZE, **SETTINGS)


def test_dummy_vec_env_filters_text_and_leaves_other_environments_alone() -> None:
    assert set(DummyVecEnv([Words]).observation_space.spaces) == {"number"}
    assert set(DummyVecEnv(env_fns=[Words, Words]).reset()) == {"number"}
    plain = RandomObservations(spaces.Dict(a=spaces.Discrete(2)), spaces.Discrete(2))
    assert DummyVecEnv([lambda: plain]).envs[0] is plain


def test_text_filter_is_installed_once_and_can_be_removed() -> None:
    install_text_filter()
    installed = DummyVecEnv.__init__
    install_text_filter()
    assert DummyVecEnv.__init__ is installed
    remove_text_filter()
    try:
        assert DummyVecEnv.__init__ is installed.__wrapped__  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            DummyVecEnv([Words])
        remove_text_filter()
        assert DummyVecEnv.__init__ is installed.__wrapped__  # type: ignore[attr-defined]
    finally:
        install_text_filter()
    assert set(DummyVecEnv([Words]).observation_space.spaces) == {"number"}


def test_text_filter_is_not_removed_under_another_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DummyVecEnv, "__init__", lambda self, env_fns: None)
    with pytest.raises(RuntimeError, match="another library has replaced"):
        remove_text_filter()


def test_only_the_policy_installs_the_text_filter() -> None:
    code = """
from stable_baselines3.common.vec_env import DummyVecEnv, dummy_vec_env
original = DummyVecEnv.__init__, dummy_vec_env._patch_env
import rmc_agents.sb3
from rmc_agents.sb3 import BatchedVecEnv, EncoderExtractor, policy_kwargs_for, without_text
assert (DummyVecEnv.__init__, dummy_vec_env._patch_env) == original
from rmc_agents.sb3 import RMCPolicy
assert DummyVecEnv.__init__.__wrapped__ is original[0]
assert dummy_vec_env._patch_env is original[1]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("no_filter")
def test_mazes_of_rmc_envs_need_no_filter() -> None:
    model = RecurrentPPO(RMCPolicy, "rmc_envs:rmc/MemoryS7-v0", **SETTINGS)
    assert model.observation_space == maze(1).observation_space
    model.learn(32)


@pytest.mark.usefixtures("no_filter")
@pytest.mark.parametrize("vec_env", [DummyVecEnv, pytest.param(SubprocVecEnv, marks=pytest.mark.slow)])
def test_without_text_works_as_a_wrapper_of_make_vec_env(vec_env: type[DummyVecEnv | SubprocVecEnv]) -> None:
    env = make_vec_env(MAZE, 2, vec_env_cls=vec_env, wrapper_class=without_text)
    assert set(env.reset()) == {"image", "direction"}
    env.close()


def test_without_text_keeps_environments_that_hold_no_text_or_only_text() -> None:
    for space in (spaces.Box(0, 1, (2,)), spaces.Dict(a=spaces.Discrete(2)), spaces.Dict(a=spaces.Text(5))):
        env = RandomObservations(space, spaces.Discrete(2))
        assert without_text(env) is env

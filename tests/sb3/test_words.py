"""Missions in SB3: the words are read with `with_words`, and a mission that is left out is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import rmc_envs
from rmc_agents import AnnotatedText
from rmc_agents.sb3 import BatchedVecEnv, with_words
from tests.support.sb3 import RandomObservations, small_model

DOOR = "MiniGrid-GoToDoor-5x5-v0"


@pytest.mark.parametrize("vec_env", [DummyVecEnv, pytest.param(SubprocVecEnv, marks=pytest.mark.slow)])
def test_with_words_works_as_a_wrapper_of_make_vec_env(vec_env: type[Any]) -> None:
    env = make_vec_env(DOOR, 2, seed=0, vec_env_cls=vec_env, wrapper_class=with_words)
    mission = env.reset()["mission"]
    assert mission.shape == (2, 5)
    assert (mission >= 2).all()
    env.close()


def test_policy_reads_and_saves_missions(tmp_path: Path) -> None:
    model = small_model(make_vec_env(DOOR, 2, seed=0, wrapper_class=with_words), "gru").learn(32)
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    env = gymnasium.make(DOOR)
    obs, _ = env.reset(seed=1)
    assert isinstance(obs["mission"], str)
    as_ids = with_words(env).observation(obs)  # type: ignore[attr-defined]
    for each in (model, loaded):
        action, _ = each.predict(obs, episode_start=np.array([True]), deterministic=True)
        assert action == each.predict(as_ids, episode_start=np.array([True]), deterministic=True)[0]
    features = [
        model.policy.extract_features(model.policy.obs_to_tensor({**obs, "mission": mission})[0])
        for mission in ("go to the red door", "go to the blue door")
    ]
    assert not torch.equal(*features)


def test_batched_environments_hold_the_words_of_missions() -> None:
    env = BatchedVecEnv(rmc_envs.make(DOOR, 2), seed=0)
    assert env.reset()["mission"].shape == (2, 5)
    small_model(env, "gru").learn(32)


def test_mission_that_is_left_out_is_said() -> None:
    with pytest.warns(UserWarning, match=r"does not see the mission of .*with_words"):
        env = DummyVecEnv([lambda: gymnasium.make(DOOR)])
    assert set(env.observation_space.spaces) == {"image", "direction"}


def test_texts_of_other_environments_are_read_and_unknown_ones_left_out() -> None:
    space = spaces.Dict(
        order=AnnotatedText(["go", "stop"], 2), name=spaces.Text(4), x=spaces.Box(-1, 1, (2,), np.float64)
    )
    env = with_words(RandomObservations(space, spaces.Discrete(2)))
    assert set(env.observation_space.spaces) == {"order", "x"}  # type: ignore[attr-defined]
    assert env.observation_space.contains(env.reset(seed=0)[0])
    with pytest.raises(ValueError, match="use without_text"):
        with_words(RandomObservations(spaces.Dict(name=spaces.Text(4)), spaces.Discrete(2)))

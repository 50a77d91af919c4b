"""Policies of Stable-Baselines3 as files: they act as `model.predict` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rmc_agents import UsageError, export_policy
from rmc_agents.export.policy import agent_of, load_model
from tests.support.exports import Eager
from tests.support.sb3 import CRITIC_MEMORIES, RandomObservations, maze, predict_actions, small_model

STARTS = [[True, True], [False, True], [False, False], [True, False]]


def vector_env(action_space: spaces.Space[Any]) -> DummyVecEnv:
    space = spaces.Dict(x=spaces.Box(-1, 1, (3,)), n=spaces.Discrete(4))
    return DummyVecEnv([lambda: RandomObservations(space, action_space)] * 2)


@pytest.mark.parametrize(
    ("critic_memory", "action_space"),
    [
        ("separate", spaces.Box(-0.2, 0.3, (2,))),
        ("shared", spaces.MultiDiscrete([3, 2])),
        ("none", spaces.MultiBinary(3)),
    ],
)
def test_file_acts_as_the_model_predicts(critic_memory: str, action_space: spaces.Space[Any]) -> None:
    env = vector_env(action_space)
    model = small_model(env, "rmc", **CRITIC_MEMORIES[critic_memory])
    file = Eager(agent_of(model))
    observations = [env.reset()]
    for _ in STARTS[1:]:
        observations.append(env.step(np.array([action_space.sample() for _ in range(2)]))[0])
    wanted = predict_actions(model, observations, STARTS)
    feed = {name: np.zeros((2, *slot.shape), slot.dtype) for name, slot in file.step.inputs.items()}
    for obs, starts, action in zip(observations, STARTS, wanted, strict=True):
        assert isinstance(obs, dict)
        feed |= {"obs.x": obs["x"], "obs.n": obs["n"], "episode_start": np.array(starts)}
        results = file.run(feed)
        np.testing.assert_allclose(results["action"], action, atol=1e-5)
        feed |= {name: results[f"next_{name}"] for name in feed if name.startswith("state.")}


@pytest.mark.slow
def test_policy_of_a_maze_reads_images_as_the_environment_shows_them(tmp_path: Path) -> None:
    model = small_model(maze(2))
    export = export_policy(model, tmp_path / "policy.onnx")
    assert export.inputs["obs.image"].shape == (7, 7, 3)
    assert export.agreement.error < 1e-5


def test_saved_model_is_loaded(tmp_path: Path) -> None:
    small_model(vector_env(spaces.MultiBinary(3))).save(tmp_path / "model.zip")
    assert isinstance(load_model(tmp_path / "model.zip"), RecurrentPPO)
    with pytest.raises(UsageError, match=r"none\.zip cannot be loaded as a RecurrentPPO model"):
        load_model(tmp_path / "none.zip")


def test_what_no_agent_can_have_is_refused(tmp_path: Path) -> None:
    env = vector_env(spaces.Box(-1, 1, (2,)))
    path = tmp_path / "policy.pt2"
    with pytest.raises(UsageError, match="VecNormalize changes what this policy reads"):
        export_policy(small_model(VecNormalize(env, norm_obs_keys=["x"])), path)
    other = RecurrentPPO("MultiInputLstmPolicy", env, n_steps=8, device="cpu")
    with pytest.raises(UsageError, match="expected an RMCPolicy"):
        export_policy(other, path)
    with pytest.raises(UsageError, match="net_arch"):
        export_policy(small_model(env, net_arch={"pi": [8, 8], "vf": [8]}), path)

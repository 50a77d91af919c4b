"""Tests of `BatchedVecEnv`: it behaves as `make_vec_env` with the same environments."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecTransposeImage

import rmc_envs
from rmc_agents.environment import Transition
from rmc_agents.sb3 import BatchedVecEnv, without_text
from tests.support.native_tasks import parameters
from tests.support.sb3 import MAZE, maze, recall, small_model


def assert_same(ours: Any, theirs: Any) -> None:
    """Check that two observations have equal keys, values and types."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    else:
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype


def test_episodes_equal_those_of_make_vec_env() -> None:
    """Observations, rewards, ends and infos of many episodes in MiniGrid's mazes, with MiniGrid's seeds."""
    ours = BatchedVecEnv(rmc_envs.make(MAZE, 6, seeding="farama"), seed=5)
    theirs = VecTransposeImage(make_vec_env(MAZE, 6, seed=5, wrapper_class=without_text))
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(), theirs.reset())
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(600):
        actions = rng.choice(7, 6, p=[0.1, 0.1, 0.5, 0.1, 0.1, 0.05, 0.05])
        obs, rewards, dones, infos = ours.step(actions)
        their_obs, their_rewards, their_dones, their_infos = theirs.step(actions)
        assert_same(obs, their_obs)
        np.testing.assert_allclose(rewards, their_rewards, rtol=1e-6)
        assert rewards.dtype == their_rewards.dtype
        assert_same(dones, their_dones)
        for info, their_info, done in zip(infos, their_infos, dones, strict=True):
            if not done:
                assert info == {}
                continue
            assert_same(info["terminal_observation"], their_info["terminal_observation"])
            assert info["TimeLimit.truncated"] == their_info["TimeLimit.truncated"]
            assert info["episode"]["l"] == their_info["episode"]["l"]
            assert info["episode"]["r"] == pytest.approx(their_info["episode"]["r"], abs=1e-6)
            assert info["episode"]["t"] >= 0
            assert info["is_success"] == (info["episode"]["r"] > 0)
            kinds.add((info["TimeLimit.truncated"], info["is_success"]))
    assert kinds == {(False, False), (False, True), (True, False)}, "the test needs every kind of end"


def test_seeds_work_as_in_sb3() -> None:
    env = recall(8)
    first = env.reset()
    other = env.reset()
    assert not np.array_equal(first, other), "a seed applies to one reset"
    assert env.seed(0) == list(range(8))
    assert np.array_equal(env.reset(), first)
    assert len(set(env.seed())) == 8, "SB3 draws a seed if none is given"


def test_callers_may_change_what_step_returns() -> None:
    """SB3 adds to rewards in place and stores observations."""
    env = maze(3)
    obs = env.reset()
    kept = {key: value.copy() for key, value in obs.items()}
    for _ in range(20):
        new_obs, rewards, dones, infos = env.step(np.array([2, 0, 1]))
        rewards += 1
        infos[0]["changed"] = 1
        assert "changed" not in infos[1]
        for value in new_obs.values():
            value[...] = 0
        dones[...] = True
    for key, value in kept.items():
        np.testing.assert_array_equal(obs[key], value)
    assert env._lengths.max() == 20


def test_attributes_and_methods_are_those_of_the_batch() -> None:
    env = BatchedVecEnv(rmc_envs.make(f"{MAZE},MiniGrid-MemoryS9-v0", 4))
    assert env.get_attr("task_of") == [0, 1, 0, 1]
    assert env.get_attr("tasks", [1, 2]) == [(MAZE, "MiniGrid-MemoryS9-v0")] * 2
    assert env.get_attr("render_mode") == [None] * 4
    assert not env.has_attr("nothing")
    env.set_attr("tasks", ("a", "b"))
    assert env.env.tasks == ("a", "b")
    with pytest.raises(ValueError, match="belongs to all 4 environments"):
        env.set_attr("tasks", (), indices=[0])
    env.env.numbers = lambda plus: torch.arange(4) + plus  # type: ignore[attr-defined]
    assert env.env_method("numbers", 1, indices=[0, 3]) == [1, 4]
    assert env.env_is_wrapped(Monitor) == [True] * 4
    assert env.env_is_wrapped(VecMonitor) == [False] * 4  # type: ignore[arg-type]
    env.set_options({"size": 3})
    with pytest.raises(ValueError, match="no reset options"):
        env.reset()
    env.close()


@pytest.mark.parametrize("algorithm", [PPO, A2C, RecurrentPPO])
def test_algorithms_of_sb3_train_in_it(algorithm: type[PPO] | type[A2C] | type[RecurrentPPO]) -> None:
    policy = "MlpLstmPolicy" if algorithm is RecurrentPPO else "MlpPolicy"
    model = algorithm(
        policy, recall(), n_steps=16, device="cpu", **({} if algorithm is A2C else {"batch_size": 32})
    )
    model.learn(128)
    assert model.ep_info_buffer is not None
    assert [info["l"] for info in model.ep_info_buffer] == [4] * 32
    assert model.ep_success_buffer is not None
    assert len(model.ep_success_buffer) == 32


def test_wrappers_of_sb3_work() -> None:
    stacked = VecFrameStack(recall(), 3)
    assert stacked.reset().shape == (4, 12)
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitored = VecMonitor(recall())
    monitored.reset()
    for _ in range(4):
        *_, infos = monitored.step(np.zeros(4, dtype=np.int64))
    assert all(info["episode"]["l"] == 4 for info in infos)


def test_evaluate_policy_does_not_warn_about_a_missing_monitor() -> None:
    model = PPO("MlpPolicy", recall(), n_steps=16, batch_size=32, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, _ = evaluate_policy(model, recall(4), 8)
    assert 0 <= mean <= 1


@pytest.mark.parametrize("env_id", [parameters(each) for each in sorted(rmc_envs.NATIVE)])
# The mazes' images are small because they are symbolic.
@pytest.mark.filterwarnings("ignore:The minimal resolution for an image is 36x36:UserWarning")
# The torques of POPGym's pendulums reach 2.
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box:UserWarning")
def test_single_environments_pass_sb3s_checker(env_id: str) -> None:
    check_env(gymnasium.make(env_id).unwrapped, skip_render_check=False)


class _RecordsActions:
    """A batch of two environments that stores its latest actions."""

    def __init__(self, action_space: spaces.Space, valid: torch.Tensor | None = None) -> None:
        self.observation_space, self.action_space = spaces.Discrete(3), action_space
        self.num_envs, self.device = 2, torch.device("cpu")
        self.valid = valid

    def reset(self, seed: int | None = None) -> torch.Tensor:
        return torch.tensor([0, 1])

    def step(self, actions: torch.Tensor) -> Any:
        self.actions = actions
        no = torch.zeros(2, dtype=torch.bool)
        obs = self.reset()
        return Transition(
            obs=obs,
            reward=torch.zeros(2),
            terminated=no,
            truncated=~no,
            final_obs=obs,
            success=None,
            valid=self.valid,
        )


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (spaces.Discrete(3), torch.int64),
        (spaces.MultiDiscrete([2, 3]), torch.int64),
        (spaces.MultiBinary(2), torch.float32),
        (spaces.Box(-1, 1, (2,)), torch.float32),
    ],
    ids=lambda x: type(x).__name__,
)
def test_actions_have_the_types_of_the_contract(space: spaces.Space, dtype: torch.dtype) -> None:
    env = BatchedVecEnv(_RecordsActions(space))  # type: ignore[arg-type]
    env.reset()
    obs, _, _, infos = env.step(np.stack([space.sample(), space.sample()]))
    assert env.env.actions.dtype == dtype  # type: ignore[attr-defined]
    assert obs.tolist() == [0, 1]  # type: ignore[union-attr]
    assert infos[1]["TimeLimit.truncated"]
    assert infos[1]["terminal_observation"] == 1
    assert "is_success" not in infos[1]


def test_next_step_autoreset_is_rejected() -> None:
    env = BatchedVecEnv(_RecordsActions(spaces.Discrete(3), torch.tensor([True, False])))  # type: ignore[arg-type]
    env.reset()
    with pytest.raises(ValueError, match="make them with SAME_STEP"):
        env.step(np.array([0, 1]))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float16, bool], ids=lambda x: np.dtype(x).name)
def test_sb3_stores_the_actions_that_the_policy_drew(dtype: Any) -> None:
    """SB3's buffer has the type of the action space; integers would change the policy's numbers."""
    space = spaces.Box(0, 1 if dtype is bool else 3, (2,), dtype)
    env = gymnasium.wrappers.TransformAction(gymnasium.make("CartPole-v1"), lambda action: 1, space)
    batch = rmc_envs.GymnasiumEnvs(
        gymnasium.vector.SyncVectorEnv([lambda: env], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    )
    model = small_model(BatchedVecEnv(batch, seed=0), "gru")
    model.learn(16)
    actions = model.rollout_buffer.actions
    assert (actions != np.round(actions)).all()

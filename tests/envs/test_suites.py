"""Trials play the episodes of the environments they stand for; exact baselines equal simulated ones."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rmc_envs
from rmc_envs.gymnasium.first_episodes import FirstEpisodes


class Short(gymnasium.Env[Any, int]):
    """Ends after as many steps as its seed; has an observation of every kind that a batch may have."""

    observation_space = spaces.Dict(
        {
            "time": spaces.Discrete(100),
            "pair": spaces.Tuple([spaces.Box(0, 100, (2,), np.float32), spaces.MultiBinary(1)]),
            "text": spaces.Text(3),
        }
    )
    action_space = spaces.Discrete(2)
    taken = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        self.time, self.limit = 0, seed
        return self._obs(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Short.taken += 1
        self.time += 1
        done = self.time == self.limit
        return self._obs(), 1.0 + action, done, False, {"is_success": done and self.limit % 2 == 0}

    def _obs(self) -> Any:
        pair = (np.full(2, self.time, np.float32), np.ones(1, np.int8))
        return {"time": self.time, "pair": pair, "text": "abc"}


def test_environment_is_not_stepped_after_its_first_episode() -> None:
    batch = FirstEpisodes([Short] * 3)
    adapted = rmc_envs.GymnasiumEnvs(batch)
    for _ in range(2):  # a reset starts the next episode
        Short.taken = 0
        obs = adapted.reset(seed=1)
        assert isinstance(obs, dict)
        assert obs["time"].tolist() == [0, 0, 0]
        ended, rewards, successes = [], [], []
        for _ in range(5):
            step = adapted.step(torch.ones(3, dtype=torch.int64))
            ended.append(step.terminated.tolist())
            rewards.append(step.reward.tolist())
            successes.append(None if step.success is None else step.success.tolist())
        assert ended == [[i == step for i in range(3)] for step in range(3)] + [[False] * 3] * 2
        assert rewards == [[2, 2, 2], [0, 2, 2], [0, 0, 2], [0, 0, 0], [0, 0, 0]]
        assert successes[1] == [False, True, False]
        assert isinstance(step.obs, dict)
        assert step.obs["time"].tolist() == [1, 2, 3]
        assert step.obs["pair.0"].tolist() == [[1, 1], [2, 2], [3, 3]]
        assert Short.taken == 1 + 2 + 3


def test_trials_equal_gymnasiums_episodes() -> None:
    """Compared with Gymnasium's vector environment, up to the first end of each episode."""
    env_id, num_envs = "MiniGrid-MemoryS7-v0", 6
    trials = rmc_envs.trials(env_id, "farama", num_envs)
    makers = [rmc_envs.make_reference(env_id)] * num_envs
    gym = rmc_envs.GymnasiumEnvs(
        SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP), reward_is_success=True
    )
    one, other = trials.reset(seed=5), gym.reset(seed=5)
    running = torch.ones(num_envs, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    while running.any():
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        for key in one:
            assert torch.equal(one[key][running], other[key][running])
        actions = torch.randint(3, (num_envs,), generator=generator)
        a, b = trials.step(actions), gym.step(actions)
        assert a.success is not None
        assert b.success is not None
        for x, y in ((a.reward, b.reward), (a.terminated, b.terminated), (a.success, b.success)):
            assert torch.equal(x[running], y[running])
        running &= ~a.done
        one, other = a.obs, b.obs


def test_waves_have_equal_sizes() -> None:
    assert [rmc_envs.trials("CartPole-v1", "gymnasium", n).num_envs for n in (1, 32, 33, 100)] == [
        1,
        32,
        17,
        25,
    ]


@pytest.mark.parametrize(
    ("env_id", "kind"),
    [
        ("MiniGrid-MemoryS7-v0", "farama"),
        ("MiniGrid-MemoryS17Random-v0", "farama"),
        ("MiniGrid-DoorKey-5x5-v0", "farama"),
        ("MiniGrid-MemoryS65-v0", "batched"),
        ("MiniGrid-MemoryS9Hallway5-v0", "batched"),
        ("rmc/Recall-v0", "batched"),
        ("CartPole-v1", "gymnasium"),
    ],
)
def test_farama_is_the_default_for_its_registered_ids(env_id: str, kind: str) -> None:
    assert rmc_envs.choose_implementation(env_id) == kind


def test_missing_implementation_is_refused() -> None:
    assert rmc_envs.choose_implementation("MiniGrid-MemoryS65-v0", "farama") == "farama"
    with pytest.raises(ValueError, match="no batched implementation"):
        rmc_envs.choose_implementation("CartPole-v1", "batched")
    with pytest.raises(ValueError, match="not one of Farama's"):
        rmc_envs.choose_implementation("CartPole-v1", "farama")


def test_suite_contains_mazes_that_can_be_built() -> None:
    suite = rmc_envs.SUITES["memory-mazes"]
    assert len(set(suite)) == 10
    lengths = [spec.hallway_length for env_id in suite if (spec := rmc_envs.MazeSpec.from_id(env_id))]
    assert lengths == [1, 3, 5, 7, None, None, 11, 19, 27, 59]


@pytest.mark.parametrize("actions", [3, 7])
@pytest.mark.parametrize("env_id", ["MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS9Random-v0"])
def test_exact_random_walk_equals_a_simulated_one(env_id: str, actions: Literal[3, 7]) -> None:
    spec = rmc_envs.MazeSpec.from_id(env_id)
    assert spec is not None
    success, steps, reward = rmc_envs.random_walk(spec, actions)
    n = 4000
    mazes = rmc_envs.make(env_id, n, actions=actions)
    mazes.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    running = torch.ones(n, dtype=torch.bool)
    walked = torch.zeros(3, n)
    while running.any():
        step = mazes.step(torch.randint(actions, (n,), generator=generator))
        assert step.success is not None
        walked += torch.stack([step.success, torch.ones(n), step.reward]) * running
        running &= ~step.done
    error = 4 * walked.std(dim=1) / n**0.5
    for expected, mean, most in zip((success, steps, reward), walked.mean(dim=1), error, strict=True):
        assert abs(expected - mean) < most
    assert success < 0.5

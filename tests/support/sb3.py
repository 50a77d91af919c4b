"""Small SB3 models and environments for the tests."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO

import rmc_envs
from rmc_agents.sb3 import BatchedVecEnv, RMCPolicy
from tests.conftest import small_options

MAZE = "MiniGrid-MemoryS7-v0"
SMALL = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": {"pi": [16], "vf": [16]}}
CRITIC_MEMORIES = {
    "separate": {"shared_lstm": False, "enable_critic_lstm": True},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "none": {"shared_lstm": False, "enable_critic_lstm": False},
}
"""The kinds of critic memory of `AgentConfig`, as sb3-contrib's arguments."""


def recall(num_envs: int = 4, **options: Any) -> BatchedVecEnv:
    """Return recall tasks with episodes of four steps, so that a rollout has many episode starts."""
    options = {"num_symbols": 3, "delay": 2, **options}
    return BatchedVecEnv(rmc_envs.make("rmc/Recall-v0", num_envs, **options), seed=0)


def maze(num_envs: int = 4, env_id: str = MAZE, **options: Any) -> BatchedVecEnv:
    return BatchedVecEnv(rmc_envs.make(env_id, num_envs, **options), seed=0)


def small_model(
    env: Any, core: str = "rmc", algorithm: dict[str, Any] | None = None, **kwargs: Any
) -> RecurrentPPO:
    """Return a small model whose policy is far from uniform, so that an error shows in its probabilities.

    Args:
        env: environments.
        core: name of the memory core.
        algorithm: arguments of `RecurrentPPO`.
        kwargs: arguments of `RMCPolicy`.
    """
    settings = {
        "n_steps": 16,
        "batch_size": 32,
        "n_epochs": 2,
        "seed": 0,
        "device": "cpu",
        **(algorithm or {}),
    }
    model = RecurrentPPO(
        RMCPolicy, env, policy_kwargs={"core": core, **SMALL, **small_options(core), **kwargs}, **settings
    )
    if hasattr(model.policy.action_net, "weight"):
        torch.nn.init.normal_(model.policy.action_net.weight)
    return model


def collect(model: RecurrentPPO, rollouts: int = 2) -> None:
    """Fill the rollout buffer more than once, so that the last rollout starts with a carried state."""
    _, callback = model._setup_learn(10**6)
    for _ in range(rollouts):
        assert model.env is not None
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)


class RandomObservations(gymnasium.Env):
    """An environment with the given spaces, random observations and episodes of five steps."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.time += 1
        return self.observation_space.sample(), 1.0, False, self.time == 5, {}


def sample_observations(model: RecurrentPPO, steps: int) -> list[Any]:
    """Return random observations of the model's environments for each step."""
    return [stack([model.observation_space.sample() for _ in range(model.n_envs)]) for _ in range(steps)]


def stack(observations: list[Any]) -> Any:
    """Stack observations to a batch."""
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


def predict_actions(model: RecurrentPPO, observations: list[Any], starts: list[list[bool]]) -> list[Any]:
    """Return the model's actions for a sequence of observations, by `predict`."""
    state, actions = None, []
    for obs, start in zip(observations, starts, strict=True):
        action, state = model.predict(obs, state, np.array(start), deterministic=True)
        actions.append(action)
    return actions

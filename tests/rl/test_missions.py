"""Agents learn what the mission asks for, and cannot without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents import ActorCritic, AnnotatedText, PPOConfig, Trainer, evaluate

FETCH_WITHOUT_MISSION = 1 / 12 + 11 / 12 / 2
"""Best score in Fetch with two objects, which are equal in one episode of twelve."""
COLORS = ("red", "blue", "green")


class Order(gymnasium.Env[Any, Any]):
    """Choose the color that the mission names first. A bag of words does not say which one that is."""

    observation_space = spaces.Dict(mission=AnnotatedText([*COLORS, "put", "near"], 4), x=spaces.Discrete(2))
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.first, second = self.np_random.permutation(3)[:2].tolist()
        return {"mission": f"put {COLORS[self.first]} near {COLORS[second]}", "x": 0}, {}

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:
        right = bool(action == self.first)
        return {"mission": "", "x": 0}, float(right), True, False, {"is_success": right}


def success_after(env: rmc_envs.BatchedEnv, folder: Path, config: PPOConfig) -> float:
    """Train an agent, and return its success rate in 400 further episodes, with actions drawn at random."""
    torch.manual_seed(0)
    agent = ActorCritic(env.observation_space, env.action_space, "gru")
    Trainer(agent, env, config, folder).run()
    success = evaluate(agent, env, 400, deterministic=False).success_rate
    assert success is not None
    env.close()
    return success


@pytest.mark.parametrize("reads", [True, False])
def test_order_of_words_is_learned(reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not reads:
        without = spaces.Dict(mission=spaces.Text(20), x=spaces.Discrete(2))
        monkeypatch.setattr(Order, "observation_space", without)
    spec = gymnasium.envs.registration.EnvSpec("test/Order-v0", Order, disable_env_checker=True)
    monkeypatch.setitem(gymnasium.registry, "test/Order-v0", spec)
    config = PPOConfig(
        total_steps=8_192, num_steps=32, bptt_length=8, minibatch_size=256, learning_rate=3e-3, gamma=0.0
    )
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make("test/Order-v0")] * 32,
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    success = success_after(rmc_envs.GymnasiumEnvs(vector), tmp_path, config)
    assert success > 0.9 if reads else success < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("mission", ["auto", "drop"])
@pytest.mark.filterwarnings("ignore:.*does not see it")
def test_agent_fetches_what_the_mission_names(mission: str, tmp_path: Path) -> None:
    env = rmc_envs.make("MiniGrid-Fetch-5x5-N2-v0", 32, mission=mission)
    config = PPOConfig(
        total_steps=81_920 if mission == "auto" else 32_768,
        num_steps=64,
        minibatch_size=256,
        learning_rate=1e-3,
        learning_rate_end=5e-4,
        entropy_coef=0.02,
        entropy_coef_end=0.01,
    )
    success = success_after(env, tmp_path, config)
    assert (success > FETCH_WITHOUT_MISSION + 0.1) == (mission == "auto")

"""Small agents and rollouts for the tests."""

from __future__ import annotations

from typing import Any

import torch

import envs
from rmc_agents import ActorCritic
from rmc_agents.ppo import gae
from rmc_agents.rollout import Carry, Chunks, Rollout, collect, cut, final_values, first_carry
from tests.conftest import small_options

MAZE = "MiniGrid-MemoryS7-v0"


def small_env(num_envs: int = 4, **options: Any) -> envs.BatchedEnv:
    """A recall task of short episodes, so that a rollout holds many starts."""
    return envs.make("rmc/Recall-v0", num_envs, **{"num_symbols": 3, "delay": 2, **options})


def fresh_agent(core: str, env: envs.BatchedEnv, **options: Any) -> ActorCritic:
    """A small agent as a user would get it, its policy nearly uniform."""
    sizes = {"features": 16, "hidden_size": 16}
    return ActorCritic(env.observation_space, env.action_space, core, small_options(core), **sizes, **options)


def small_agent(core: str, env: envs.BatchedEnv | None = None, **options: Any) -> ActorCritic:
    """A small agent with a policy far from uniform, so that an error shows in its probabilities."""
    agent = fresh_agent(core, env or small_env(), **options)
    torch.nn.init.normal_(agent.policy.linear.weight)
    return agent


def collected(agent: ActorCritic, steps: int, env: envs.BatchedEnv | None = None) -> tuple[Carry, Rollout]:
    """A rollout, not from the very first step on: the carried state matters."""
    env = env or small_env()
    generator = torch.Generator().manual_seed(0)
    carry = first_carry(agent, env, seed=0)
    rollout = Rollout.allocate(agent, carry, steps)
    carry = collect(agent, env, carry, rollout, generator)
    return collect(agent, env, carry, rollout, generator), rollout


def chunks_of(agent: ActorCritic, rollout: Rollout, bptt_length: int) -> Chunks:
    """A rollout's chunks with their advantages."""
    advantages = gae(
        rollout.rewards,
        rollout.values,
        rollout.terminated,
        rollout.truncated,
        final_values(agent, rollout),
        rollout.last_value,
        0.99,
        0.95,
    )
    return cut(rollout, advantages, advantages + rollout.values, bptt_length)


def evaluation_figures(success: float | None, value: float) -> dict[str, Any]:
    """Figures of a policy, as evaluation.json has them: success rate and mean return, the rest fixed."""
    return {
        "success_rate": success,
        "success_ci95": None if success is None else [0.111, 0.999],
        "mean_return": value,
        "return_ci95": [0.2, 0.3],
        "mean_length": 12.0,
        "episodes": 1000,
        "implementation": "farama",
    }

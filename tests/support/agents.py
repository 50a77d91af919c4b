"""Small agents, rollouts and chunks."""

from __future__ import annotations

from typing import Any

import torch

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.rl.ppo import gae
from rmc_agents.rl.rollout import (
    Carry,
    Chunks,
    Rollout,
    collect,
    final_values,
    initial_carry,
    split_into_chunks,
)
from tests.conftest import small_options

MAZE = "MiniGrid-MemoryS7-v0"


def small_env(num_envs: int = 4, **options: Any) -> rmc_envs.BatchedEnv:
    """Build a recall task of short episodes, so that a rollout holds many starts."""
    return rmc_envs.make("rmc/Recall-v0", num_envs, **{"num_symbols": 3, "delay": 2, **options})


def fresh_agent(core: str, env: rmc_envs.BatchedEnv, **options: Any) -> ActorCritic:
    """Build a small agent as a user would; its policy is nearly uniform."""
    sizes = {"features": 16, "hidden_size": 16}
    return ActorCritic(env.observation_space, env.action_space, core, small_options(core), **sizes, **options)


def small_agent(core: str, env: rmc_envs.BatchedEnv | None = None, **options: Any) -> ActorCritic:
    """Build a small agent whose policy is far from uniform, so that an error shows in its probabilities."""
    agent = fresh_agent(core, env or small_env(), **options)
    torch.nn.init.normal_(agent.policy.linear.weight)
    return agent


def collected(
    agent: ActorCritic, steps: int, env: rmc_envs.BatchedEnv | None = None
) -> tuple[Carry, Rollout]:
    """Collect a second rollout, which depends on the state carried over from the first one."""
    env = env or small_env()
    generator = torch.Generator().manual_seed(0)
    carry = initial_carry(agent, env, seed=0)
    rollout = Rollout.allocate(agent, carry, steps)
    carry = collect(agent, env, carry, rollout, generator)
    return collect(agent, env, carry, rollout, generator), rollout


def chunks_of(agent: ActorCritic, rollout: Rollout, bptt_length: int) -> Chunks:
    """Split a rollout into chunks, with its advantages."""
    advantages = gae(
        rewards=rollout.rewards,
        values=rollout.values,
        terminated=rollout.terminated,
        truncated=rollout.truncated,
        final_values=final_values(agent, rollout),
        last_value=rollout.last_value,
        gamma=0.99,
        gae_lambda=0.95,
    )
    return split_into_chunks(rollout, advantages, advantages + rollout.values, bptt_length)


def evaluation_figures(success: float | None, value: float) -> dict[str, Any]:
    """Return a policy's figures as in evaluation.json: success rate and mean return, the rest fixed."""
    return {
        "success_rate": success,
        "success_ci95": None if success is None else [0.111, 0.999],
        "mean_return": value,
        "return_ci95": [0.2, 0.3],
        "mean_length": 12.0,
        "episodes": 1000,
        "implementation": "farama",
    }

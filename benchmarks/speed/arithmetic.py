"""Upper bound on training speed: the time of an iteration's matrix products alone.

However fast everything else becomes, an iteration takes at least as long as its products.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Rollout, collect, initial_carry, split_into_chunks


def iteration_flops(
    maze: str, core: str, options: dict[str, int], num_envs: int, config: PPOConfig
) -> tuple[int, int]:
    """Return the floating-point operations of the matrix products of one rollout, and of its update.

    A product of [n, k] and [k, m] has 2 n k m of them. They are counted on the meta device, where nothing is
    computed and no core uses its C kernel. The count is an upper one: it ignores that equal observations are
    encoded once.
    """
    env = rmc_envs.make(maze, num_envs, "meta")
    agent = ActorCritic(env.observation_space, env.action_space, core, options).to("meta")
    carry = initial_carry(agent, env, None)
    rollout = Rollout.allocate(agent, carry, config.num_steps)
    with FlopCounterMode(display=False) as acting:
        collect(agent, env, carry, rollout, None)
    chunks = split_into_chunks(rollout, rollout.values, rollout.values, config.bptt_length)
    size = config.minibatch_size // config.bptt_length
    batch = chunks.select(torch.arange(size, device="meta"))
    with FlopCounterMode(display=False) as learning:
        ppo_loss(agent, batch, config, 0.01)[0].backward()
    minibatches = config.epochs * num_envs * config.num_steps // config.minibatch_size
    return acting.get_total_flops(), minibatches * learning.get_total_flops()


def product_rate(size: int = 256, rows: int = 512, seconds: float = 1.0) -> float:
    """Return the floating-point operations per second of a product like those of an update.

    It is a product of [rows, size] and [size, size], with the current number of threads; the median over
    calls.
    """
    a, b, out = torch.randn(rows, size), torch.randn(size, size), torch.empty(rows, size)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - started)
    return 2 * rows * size * size / statistics.median(times)

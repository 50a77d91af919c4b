"""How fast training could be at best: its matrix products, at the rate at which this machine does them.

Whatever is done about everything else, an iteration takes no less time than its products do.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import envs
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.ppo import ppo_loss
from rmc_agents.rollout import Rollout, collect, cut, first_carry


def iteration_flops(
    maze: str, core: str, options: dict[str, int], num_envs: int, config: PPOConfig
) -> tuple[int, int]:
    """Floating-point operations of the matrix products of one rollout, and of the update after it.

    Counted on the meta device, where nothing is computed and no core has a shortcut in C. A product of
    [n, k] and [k, m] has 2 n k m of them. That equal observations are encoded once is left out of account,
    so the count is an upper one.
    """
    env = envs.make(maze, num_envs, "meta")
    agent = ActorCritic(env.observation_space, env.action_space, core, options).to("meta")
    carry = first_carry(agent, env, None)
    rollout = Rollout.allocate(agent, carry, config.num_steps)
    with FlopCounterMode(display=False) as acting:
        collect(agent, env, carry, rollout, None)
    chunks = cut(rollout, rollout.values, rollout.values, config.bptt_length)
    size = config.minibatch_size // config.bptt_length
    batch = chunks.select(torch.arange(size, device="meta"))
    with FlopCounterMode(display=False) as learning:
        ppo_loss(agent, batch, config, 0.01)[0].backward()
    minibatches = config.epochs * num_envs * config.num_steps // config.minibatch_size
    return acting.get_total_flops(), minibatches * learning.get_total_flops()


def product_rate(size: int = 256, rows: int = 512, seconds: float = 1.0) -> float:
    """Floating-point operations per second of a product like those of an update: the median over calls.

    It is one of [rows, size] by [size, size], in the present number of threads.
    """
    a, b, out = torch.randn(rows, size), torch.randn(size, size), torch.empty(rows, size)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - began)
    return 2 * rows * size * size / statistics.median(times)

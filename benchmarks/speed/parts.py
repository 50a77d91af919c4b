"""Time of the parts of a gradient step: encoder, memory core, heads and loss, optimizer."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common import take_turns
from benchmarks.report import Row
from rmc_agents import Trainer
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Chunks, split_into_chunks


def time_parts(trainer: Trainer, seconds: float) -> Row:
    """Return the milliseconds of each part of a minibatch's forward and backward pass, and of the optimizer.

    Each part is run alone, on the inputs that it gets in training. Heads and loss are the rest: the whole
    pass without encoder and core.
    """
    agent, config = trainer.agent, trainer.config
    chunks = minibatch(trainer)
    given = chunks.obs, chunks.actions, chunks.rewards, chunks.starts
    inputs = agent.core_inputs(*given)
    features = _features(inputs).detach().requires_grad_()

    def unroll() -> Tensor:
        memory, starts = chunks.state.memory, chunks.starts
        if isinstance(inputs, IndexedInputs):
            return agent.core.unroll_indexed(inputs._replace(rows=features), memory, starts)[0]
        return agent.core.unroll(features, memory, starts)[0]

    upstream_features, upstream_outputs = torch.randn_like(features), torch.randn_like(unroll())

    def encoder() -> None:
        _features(agent.core_inputs(*given)).backward(upstream_features)

    def core() -> None:
        unroll().backward(upstream_outputs)

    def whole() -> None:
        ppo_loss(agent, chunks, config, 0.01)[0].backward()

    def optimizer() -> None:
        # As in an update, but with steps so small that the agent stays the one that is measured.
        trainer.optimizer.step(torch.tensor(1e-12), torch.tensor(0.0))

    calls: dict[str, Callable[[], None]] = {
        "encoder": encoder,
        "core": core,
        "whole": whole,
        "optimizer": optimizer,
    }
    times = {name: 1e3 * statistics.median(ts) for name, ts in take_turns(calls, seconds).items()}
    for parameter in agent.parameters():
        parameter.grad = None
    return {
        "encoder (ms)": times["encoder"],
        "core (ms)": times["core"],
        "heads and loss (ms)": times["whole"] - times["encoder"] - times["core"],
        "optimizer (ms)": times["optimizer"],
        "gradient step (ms)": times["whole"] + times["optimizer"],
    }


def _features(inputs: Tensor | IndexedInputs) -> Tensor:
    """Return the features of all observations, or of the distinct ones."""
    return inputs.rows if isinstance(inputs, IndexedInputs) else inputs


def minibatch(trainer: Trainer) -> Chunks:
    """Return one minibatch of the trainer's latest rollout, with random advantages."""
    rollout, config = trainer.rollout, trainer.config
    advantages: Tensor = torch.randn_like(rollout.values)
    chunks = split_into_chunks(rollout, advantages, advantages + rollout.values, config.bptt_length)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(chunks.starts.shape[1], generator=generator)
    return chunks.select(order[: config.minibatch_size // config.bptt_length])

"""Time of the parts of a gradient step: encoder, memory core, heads and loss, optimizer."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from benchmarks.common import take_turns
from benchmarks.report import Row
from rmc_agents import Trainer
from rmc_agents.rl.prepared_step import PreparedStep, prepare_step
from rmc_agents.rl.rollout import Chunks, split_into_chunks
from rmc_agents.training.processes import ALONE


@torch.no_grad()
def time_parts(trainer: Trainer, seconds: float) -> Row:
    """Return the milliseconds of each part of a gradient step: its forward and backward pass, alone.

    The rest of the whole step is selecting the minibatch, and what Python does between the parts.

    Raises:
        RuntimeError: the step is not prepared, as without the compiled kernels.
    """
    chunks, size = rollout_chunks(trainer), trainer.config.minibatch_size // trainer.config.bptt_length
    index = torch.randperm(chunks.starts.shape[1], generator=torch.Generator().manual_seed(0))[:size]
    step = _prepare(trainer, chunks)
    networks, loss = step.networks, step.loss
    step.selection.copy(index)
    num_distinct = networks.encoder.forward()
    outputs = networks.core.forward(num_distinct)
    d_features = torch.randn_like(networks.encoder.rows)
    # Each part's gradients are those of real losses: the time depends on the numbers.
    loss(outputs, num_distinct)

    def encoder() -> None:
        networks.encoder.forward()
        networks.encoder.backward(d_features)

    def core() -> None:
        networks.core.forward(num_distinct)
        networks.core.backward(loss.d_outputs)

    def heads() -> None:
        loss(outputs, num_distinct)

    def optimizer() -> None:
        step.adam.step()

    def whole() -> None:
        step(index, None)

    calls: dict[str, Callable[[], None]] = {
        "encoder": encoder,
        "core": core,
        "heads and loss": heads,
        "optimizer": optimizer,
        "gradient step": whole,
    }
    times = {name: 1e3 * statistics.median(ts) for name, ts in take_turns(calls, seconds).items()}
    rest = times["gradient step"] - sum(ms for name, ms in times.items() if name != "gradient step")
    return {f"{name} (ms)": ms for name, ms in {**times, "rest": rest}.items()}


def _prepare(trainer: Trainer, chunks: Chunks) -> PreparedStep:
    """Return a gradient step so small that the agent stays the one that is measured."""
    rates = torch.tensor(1e-12), torch.tensor(0.01), torch.tensor(0.0)
    trainer.optimizer.attach()
    step = prepare_step(trainer.agent, trainer.optimizer, chunks, trainer.config, rates, ALONE)
    if step is None:
        raise RuntimeError("this benchmark measures gradient steps in C, which need a C compiler and x86-64")
    return step


def rollout_chunks(trainer: Trainer) -> Chunks:
    """Return the trainer's latest rollout, with random advantages."""
    rollout = trainer.rollout
    advantages = torch.randn_like(rollout.values)
    return split_into_chunks(rollout, advantages, advantages + rollout.values, trainer.config.bptt_length)

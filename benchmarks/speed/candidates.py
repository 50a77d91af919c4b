"""Modules to time forward and backward, and the measurement of one size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.common import num_threads, take_turns, time_each
from benchmarks.report import Row
from rmc_agents.cores import MemoryCore
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.tree import leaves

INPUT_SIZE = 128
START_RATE = 0.01
"""Probability that an episode starts at a step."""

Unroll = Callable[[Tensor, Tensor], Tensor]
"""inputs [T, B, D], starts [T, B] -> outputs [T, B, H]."""


class Candidate(NamedTuple):
    """A module to time, and how to run it."""

    module: nn.Module
    unroll: Unroll


def ours(core: MemoryCore) -> Candidate:
    """Return a core with its own `unroll`."""

    def unroll(inputs: Tensor, starts: Tensor) -> Tensor:
        return core.unroll(inputs, core.initial_state(inputs.shape[1]), starts)[0]

    return Candidate(core, unroll)


def plain_loop(core: MemoryCore) -> Candidate:
    """Return a core with the loop over `step` that every core inherits."""

    def unroll(inputs: Tensor, starts: Tensor) -> Tensor:
        return MemoryCore.unroll(core, inputs, core.initial_state(inputs.shape[1]), starts)[0]

    return Candidate(core, unroll)


def indexed(core: MemoryCore, distinct: int) -> Candidate:
    """Return a core that reads the first inputs of a sequence again and again, each by its id."""

    def unroll(inputs: Tensor, starts: Tensor) -> Tensor:
        rows = inputs.flatten(0, 1)[:distinct]
        ids = (torch.arange(starts.numel(), dtype=torch.int32) * 7919 % len(rows)).view(starts.shape)
        state = core.initial_state(inputs.shape[1])
        return core.unroll_indexed(IndexedInputs(rows, ids), state, starts)[0]

    return Candidate(core, unroll)


def torch_module(module: nn.RNNBase) -> Candidate:
    """Return a module of torch's; it cannot start an episode within a sequence, and does not have to."""
    return Candidate(module, lambda inputs, starts: module(inputs)[0])


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())


def state_size(core: MemoryCore) -> int:
    """Return how many numbers a core carries from step to step for each row of the batch."""
    return sum(leaf[0].numel() for leaf in leaves(core.initial_state(1)))


def lstm_with(parameters: int) -> nn.LSTM:
    """Return the `nn.LSTM` whose number of parameters is nearest to this."""

    def distance(hidden_size: int) -> int:
        return abs(4 * hidden_size * (INPUT_SIZE + hidden_size + 2) - parameters)

    return nn.LSTM(INPUT_SIZE, min(range(1, 4096), key=distance))


def forward_backward(candidate: Candidate, steps: int, batch: int) -> Callable[[], None]:
    """Return a call that runs a sequence forward and backward, with the gradient of the inputs."""
    inputs = torch.randn(steps, batch, INPUT_SIZE, requires_grad=True)
    starts = torch.rand(steps, batch) < START_RATE
    with torch.no_grad():
        gradient = torch.randn_like(candidate.unroll(inputs, starts))

    def call() -> None:
        candidate.unroll(inputs, starts).backward(gradient)
        inputs.grad = None
        candidate.module.zero_grad(set_to_none=True)

    return call


def affordable_steps(candidates: Mapping[str, Candidate], steps: int, batch: int, limit: float) -> int:
    """Halve the steps until the slowest candidate takes at most `limit` seconds; return 8 or more."""
    few = min(steps, 8)
    calls = {name: forward_backward(c, few, batch) for name, c in candidates.items()}
    time_each(calls)
    slowest = max(time_each(calls).values())
    while steps > few and slowest * steps / few > limit:
        steps //= 2
    return max(steps, few)


def measure_size(
    label: str, candidates: Mapping[str, Candidate], size: tuple[int, int], threads: int, quick: bool
) -> tuple[Row, dict[str, list[float]]]:
    """Time one core at one size: return its row, and the seconds of every candidate in each round."""
    steps, batch = size
    with num_threads(threads):
        run = affordable_steps(candidates, steps, batch, limit=2.0)
        calls = {name: forward_backward(c, run, batch) for name, c in candidates.items()}
        times = take_turns(calls, seconds=0.02 if quick else 4.0, rounds=(2, 2) if quick else (3, 200))
    times = {name: [t * steps / run for t in ts] for name, ts in times.items()}
    row: Row = {"core": label, "T": steps, "B": batch, "threads": threads, "steps measured": run}
    module = candidates["ours"].module
    row["parameters"] = count_parameters(module)
    row["state"] = state_size(module) if isinstance(module, MemoryCore) else None
    row |= {f"{name} (ms)": 1e3 * statistics.median(ts) for name, ts in times.items()}
    return row, times

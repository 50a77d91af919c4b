"""Kernels, bytes, memory and waits of training on a GPU, counted without one.

    python -m benchmarks.speed.counts            # half a minute; writes results/counts.{json,md}
    python -m benchmarks.speed.counts --report   # the report from stored counts
    python -m benchmarks.speed.counts --quick    # see whether it runs: seconds

The trainer runs on torch's meta device, where it takes its branches for GPUs (see `operations.py`). Kernels
are what the operations launch on CUDA, by ATen's source: good to some 10 %.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch._dynamo

import rmc_envs
from benchmarks.common import Tables, make_parser, make_report
from benchmarks.report import Row, target
from benchmarks.speed.operations import Count, counting
from rmc_agents import ActorCritic, PPOConfig, Trainer
from rmc_agents.cli.presets import find_preset
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Chunks, collect, final_values, split_into_chunks

MODULE = "benchmarks.speed.counts"
MAZE = "MiniGrid-MemoryS13-v0"
META = torch.device("meta")
COUNTED_STEPS = 2
"""Gradient steps of an iteration that are counted one by one; the others are like the last of them."""


@dataclass(frozen=True)
class Code:
    """A memory core, and how it is computed."""

    core: str
    name: str
    triton: bool = False


CODES = (
    Code("rmc", "RMC"),
    Code("rmc", "RMC, Triton", triton=True),
    Code("lstm", "LSTM"),
    Code("lstm", "LSTM, Triton", triton=True),
)


@dataclass(frozen=True)
class Sizes:
    """Sizes of an iteration."""

    num_envs: int
    num_steps: int
    bptt_length: int
    minibatch_size: int


PRESET = Sizes(64, 128, 32, 512)
LARGE = Sizes(4096, 128, 16, 65_536)
LARGEST = Sizes(16_384, 128, 16, 65_536)
QUICK = Sizes(8, 8, 4, 32)


def make_trainer(code: Code, sizes: Sizes, curriculum: bool = False) -> Trainer:
    """Return the preset's trainer with these sizes, on the meta device."""
    preset = find_preset(MAZE)
    assert preset is not None
    environment = preset.environment
    tasks = environment.train_on if curriculum and environment.train_on else MAZE
    env = rmc_envs.make(tasks, sizes.num_envs, META, actions=3)
    options = preset.agent.core_options if code.core == "rmc" else {}
    agent = ActorCritic(env.observation_space, env.action_space, code.core, options).to(META)
    given = {name: value for name, value in asdict(sizes).items() if name != "num_envs"}
    config: PPOConfig = replace(preset.ppo, **given)
    return Trainer(agent, env, config, tempfile.gettempdir(), curriculum=curriculum)


def count_call(code: Code, call: Callable[[], Any], times: int = 1) -> tuple[Any, Count]:
    """Call a function; return its result, and its counts divided by `times`."""
    with counting(code.triton) as count:
        result = call()
    return result, replace(count, kernels=round(count.kernels / times), bytes=count.bytes // times)


def collecting(code: Code, sizes: Sizes) -> Iterator[Row]:
    """Count the parts of collecting a rollout."""
    steps = min(sizes.num_steps, sizes.bptt_length)
    trainer = make_trainer(code, replace(sizes, num_steps=steps, minibatch_size=steps * sizes.num_envs))
    agent, env, rollout = trainer.agent, trainer.env, trainer.rollout
    obs, starts, state = trainer.carry
    actions = agent.initial_state(sizes.num_envs).action
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "act": (torch.no_grad()(lambda: agent.act(obs, starts, state)), 1),
        "env.step": (lambda: [env.step(actions) for _ in range(steps)], steps),
        "collect": (lambda: collect(agent, env, trainer.carry, rollout, None), steps),
        "final values": (lambda: final_values(agent, rollout, sizes.num_envs), 1),
    }
    for part, (call, times) in calls.items():
        _, count = count_call(code, call, times)
        yield {
            "core": code.name,
            "part": part,
            "environments": sizes.num_envs,
            "kernels": count.kernels,
            "MB": count.bytes / 1e6,
            "peak MB": count.peak_bytes / 1e6,
        }


def gradient_step(code: Code, sizes: Sizes) -> Row:
    """Count a gradient step and its parts."""
    chunks_of_a_step = sizes.minibatch_size // sizes.bptt_length
    one_step = replace(sizes, num_envs=chunks_of_a_step, num_steps=sizes.bptt_length)
    trainer = make_trainer(code, one_step)
    chunks = _chunks(trainer)
    index = torch.arange(chunks_of_a_step, device=META)
    entropy_coef = torch.zeros((), device=META)
    batch, select = count_call(code, lambda: chunks.select(index))
    (loss, _), forward = count_call(
        code, lambda: ppo_loss(trainer.agent, batch, trainer.config, entropy_coef)
    )
    _, backward = count_call(code, loss.backward)
    _, whole = count_call(code, lambda: trainer.updater.take_step(chunks, index, None))
    parts = {"select": select, "forward": forward, "backward": backward}
    kernels = {name: count.kernels for name, count in parts.items()}
    return {
        "core": code.name,
        "minibatch": sizes.minibatch_size,
        "L": sizes.bptt_length,
        **kernels,
        "optimizer": whole.kernels - sum(kernels.values()),
        "kernels": whole.kernels,
        "MB": whole.bytes / 1e6,
        "peak MB": whole.peak_bytes / 1e6,
    }


def iteration(code: Code, sizes: Sizes, curriculum: bool) -> Row:
    """Count a whole iteration of the trainer, with the buffers that it keeps."""
    with counting(code.triton) as count:
        trainer = make_trainer(code, sizes, curriculum)
        held = count.peak_bytes
        if trainer.curriculum is not None:  # the first task is solved, so that tasks are assigned anew
            others = [0.0] * (len(trainer.env.tasks) - 1)
            trainer.curriculum.episodes = trainer.curriculum.solved = [1e4, *others]
        before = replace(count)
        _skip_steps(trainer, count)
        trainer.iterate()
    steps = sizes.num_envs * sizes.num_steps
    kernels = count.kernels - before.kernels
    return {
        "core": code.name,
        "environments": sizes.num_envs,
        "steps": sizes.num_steps,
        "minibatch": sizes.minibatch_size,
        "L": sizes.bptt_length,
        "epochs": trainer.config.epochs,
        "kernels": kernels,
        "kernels per environment step": kernels / steps,
        "kB per environment step": (count.bytes - before.bytes) / steps / 1e3,
        "waits": count.waits - before.waits,
        "peak GB": count.peak_bytes / 1e9,
        "GB held between iterations": held / 1e9,
    }


def _skip_steps(trainer: Trainer, count: Count) -> None:
    """Let the trainer take the first gradient steps only; the others are counted like the last of them."""
    take_step = trainer.updater.take_step
    taken: list[tuple[Any, int, int]] = []

    def step(*args: Any) -> Any:
        if len(taken) < COUNTED_STEPS:
            before = replace(count)
            result = take_step(*args)
            taken.append((result, count.kernels - before.kernels, count.bytes - before.bytes))
        else:
            result, kernels, size = taken[-1]
            count.kernels += kernels
            count.bytes += size
        return result

    trainer.updater.take_step = step  # pyright: ignore[reportAttributeAccessIssue]


def _chunks(trainer: Trainer) -> Chunks:
    rollout = trainer.rollout
    return split_into_chunks(rollout, rollout.values, rollout.values, trainer.config.bptt_length)


def measure(args: argparse.Namespace) -> Tables:
    """Make all counts."""
    sizes = (PRESET, LARGE) if not args.quick else (QUICK,)
    iterations = [(code, sizes[0], True) for code in CODES]
    if not args.quick:
        iterations += [(code, LARGEST, False) for code in CODES if not code.triton]
    return {
        "Collecting": [row for code in CODES for row in collecting(code, sizes[-1])],
        "Gradient step": [gradient_step(code, each) for each in sizes for code in CODES],
        "Iteration": [iteration(*each) for each in iterations],
    }


def targets(tables: Tables) -> list[Row]:
    """Return the targets, and whether they are reached."""
    whole, steps = tables["Iteration"], tables["Gradient step"]
    preset = [
        row["kernels"] for row in steps if row["core"] == "RMC, Triton" and row["L"] == PRESET.bptt_length
    ]
    largest = [row["peak GB"] for row in whole if row["environments"] == LARGEST.num_envs]
    sizes = f"{LARGEST.num_envs:,} x {LARGEST.num_steps}"
    return [
        target(
            "kernels of a gradient step of RMC, L = 32, with Triton", max(preset, default=None), at_most=300
        ),
        target("waits of an iteration, most of all cores", max(row["waits"] for row in whole), at_most=2),
        target(
            f"peak memory of an iteration at {sizes} (GB), larger of RMC and LSTM",
            max(largest, default=None),
            at_most=20,
        ),
    ]


NOTES = [
    f"{MAZE}, default agents with the preset's options, on torch's meta device: no GPU was used, and "
    "nothing was timed.",
    "Kernels: dispatched operations other than views, times what each launches on CUDA (the gradient "
    "of a layer norm 2, randperm 6, sort 8, ...); a launch of a Triton kernel is one. From ATen's "
    "source: good to some 10 %.",
    "Bytes: inputs and outputs of each kernel, as if no cache helped; a Triton kernel keeps its "
    "intermediate values on the chip. Operations that pick rows read what they return.",
    "Peak memory: the largest sum of the live storages that the code made. A part is counted without "
    "what exists before it, an iteration with agent, optimizer and rollout. CUDA's context, the "
    "workspaces of its libraries and the allocator's rounding come on top.",
    "Waits: how often the host reads a tensor, or copies one to the device from memory that is not "
    "pinned. Reads other than `tolist` would raise on the meta device.",
    "collect is per step, with everything that is stored; final values are those of one batch of "
    "truncated steps, of which an iteration computes as many as it needs. The preset's iteration has "
    "its curriculum, and assigns tasks.",
    f"The first {COUNTED_STEPS} gradient steps of an iteration are run; the others count like the last "
    "of them.",
    "The optimizer counts the clipping of the gradient, one kernel of Adam, and the metrics.",
]


def main() -> None:
    """Count, and write the report."""
    args = make_parser(__doc__, threads=(1,)).parse_args()
    report = make_report(MODULE, "Counts of GPU work", args, measure)
    report.tables.pop("Targets", None)
    report.tables["Targets"] = targets(report.tables)
    report.notes = NOTES
    report.print()
    report.write(args.out)


if __name__ == "__main__":
    main()

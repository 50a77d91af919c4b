"""Growth of an update's time and memory with slots, width, sequence length and environments.

    python -m benchmarks.speed.scaling            # about three minutes; writes results/scaling.{json,md,png}
    python -m benchmarks.speed.scaling --report   # the report from stored measurements
    python -m benchmarks.speed.scaling --quick    # see whether it runs: seconds

An update is the PPO loss of one minibatch of a maze, B sequences of T steps, and its gradient. Its memory is
measured twice: the bytes that autograd keeps for the backward pass, and the peak memory of a separate process
according to the system. Exponents are slopes on logarithmic axes.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import rmc_envs
from benchmarks.common import ROOT, Tables, make_parser, make_report, num_threads, take_turns
from benchmarks.report import Row, target
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.plots.style import OKABE_ITO
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import Carry, Chunks, Rollout, collect, initial_carry, split_into_chunks

MODULE = "benchmarks.speed.scaling"
MAZE = "MiniGrid-MemoryS7-v0"
"""The size of the maze does not matter to an update."""
MIB = 2**20


@dataclass(frozen=True)
class Sweep:
    """A series of measurements in which one size grows and the others stay."""

    axis: str
    """Name of the size: a field of `Sizes`."""
    core: str
    values: tuple[int, ...]
    time: str
    """Expected exponent of the time, for large sizes."""
    memory: str
    """Expected exponent of the memory, for large sizes."""


SWEEPS = (
    Sweep("slots", "rmc", (2, 4, 8, 16, 32), "1 to 2 (attention: 2)", "1 to 2 (attention: 2)"),
    Sweep("width", "rmc", (32, 64, 128, 256, 512), "1 to 2 (products: 2)", "1"),
    Sweep("width", "lstm", (64, 128, 256, 512, 1024), "1 to 2 (products: 2)", "1"),
    Sweep("T", "rmc", (16, 32, 64, 128, 256), "1", "1"),
    Sweep("T", "lstm", (16, 32, 64, 128, 256), "1", "1"),
    Sweep("B", "rmc", (16, 32, 64, 128, 256, 512), "1", "1"),
    Sweep("B", "lstm", (16, 32, 64, 128, 256, 512), "1", "1"),
)


@dataclass(frozen=True)
class Sizes:
    """Sizes of one measurement; a sweep changes one of them."""

    core: str = "rmc"
    slots: int = 4
    width: int = 64
    """Of a slot, or of the LSTM."""
    T: int = 16
    B: int = 32

    def options(self) -> dict[str, int]:
        """Return the core's options."""
        if self.core == "lstm":
            return {"hidden_size": self.width}
        return {"num_slots": self.slots, "num_heads": 4, "head_size": self.width // 4}


class Update:
    """The loss and the gradient of one minibatch."""

    def __init__(self, sizes: Sizes) -> None:
        env = rmc_envs.make(MAZE, sizes.B)
        self.agent = ActorCritic(env.observation_space, env.action_space, sizes.core, sizes.options())
        self.config = PPOConfig(num_steps=sizes.T, bptt_length=sizes.T, minibatch_size=sizes.T * sizes.B)
        self.env, self.generator = env, torch.Generator().manual_seed(0)
        self.carry: Carry = initial_carry(self.agent, env, seed=0)
        self.rollout = Rollout.allocate(self.agent, self.carry, sizes.T)
        self.collect()
        numbers = torch.randn(2, *self.rollout.rewards.shape)
        self.chunks: Chunks = split_into_chunks(self.rollout, numbers[0], numbers[1], sizes.T)

    def collect(self) -> None:
        """Collect a rollout."""
        self.carry = collect(self.agent, self.env, self.carry, self.rollout, self.generator)

    def __call__(self) -> None:
        loss, _ = ppo_loss(self.agent, self.chunks, self.config, 0.01)
        loss.backward()
        self.agent.zero_grad(set_to_none=True)

    def saved_bytes(self) -> int:
        """Return the bytes that autograd keeps between forward and backward, without the parameters."""
        own = {p.untyped_storage().data_ptr() for p in self.agent.parameters()}
        own |= {leaf.untyped_storage().data_ptr() for leaf in self.agent.buffers()}
        found: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()  # many views of one storage count once
            return x.detach()  # the tensor itself would form a cycle that is never freed

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss, _ = ppo_loss(self.agent, self.chunks, self.config, 0.01)
        total = sum(found.values())  # the graph still exists, so no address was used twice
        del loss
        return total


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y over log x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def last_exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope between the two largest sizes."""
    return math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2])


def measure_sweep(sweep: Sweep, quick: bool) -> list[Row]:
    """Measure time and saved bytes at every size of a sweep."""
    base = Sizes(core=sweep.core, width=64 if sweep.core == "rmc" else 128)
    values = sweep.values[:2] if quick else sweep.values
    sizes = [Sizes(**{**vars(base), sweep.axis: value}) for value in values]
    updates = {str(value): Update(size) for value, size in zip(values, sizes, strict=True)}
    seconds, rounds = (0.0, (1, 1)) if quick else (8.0, (3, 50))
    times = take_turns(updates, seconds, rounds)
    return [
        {
            "core": sweep.core,
            "axis": sweep.axis,
            "value": value,
            "ms": 1e3 * median(times[str(value)]),
            "MiB saved": updates[str(value)].saved_bytes() / MIB,
        }
        for value in values
    ]


def measure_rollouts(quick: bool) -> list[Row]:
    """Time 16 steps of acting and stepping, for growing numbers of environments."""
    rows: list[Row] = []
    values = (16, 64) if quick else (16, 64, 256, 1024, 4096)
    for core in ("rmc", "lstm"):
        width = 64 if core == "rmc" else 128
        agents = {str(n): Update(Sizes(core=core, width=width, B=n)).collect for n in values}
        times = take_turns(agents, *((0.0, (1, 1)) if quick else (5.0, (3, 50))))
        rows += [
            {
                "core": core,
                "environments": n,
                "ms": 1e3 * median(times[str(n)]),
                "steps/s": 16 * n / median(times[str(n)]),
            }
            for n in values
        ]
    return rows


def exponent_row(sweep: Sweep, rows: Sequence[Row]) -> Row:
    """Return the exponents of a sweep."""
    x = [row["value"] for row in rows]
    found: Row = {"core": sweep.core, "axis": sweep.axis, "from": x[0], "to": x[-1]}
    for key, expected in (("ms", sweep.time), ("MiB saved", sweep.memory)):
        name = "time" if key == "ms" else "memory"
        y = [row[key] for row in rows]
        found |= {f"{name} exponent": exponent(x, y), f"{name}, last": last_exponent(x, y)}
        found[f"{name} expected"] = expected
    return found


def quadratic_share(rows: Sequence[Row]) -> float | None:
    """Return the share of a T^2 term in the memory at the largest T: least squares on 1, T and T^2.

    It is negative where memory grows more slowly than T: longer sequences have more equal observations.
    """
    T = np.array([row["value"] for row in rows], dtype=float) / rows[-1]["value"]
    y = np.array([row["MiB saved"] for row in rows]) / rows[-1]["MiB saved"]
    return float(np.polyfit(T, y, 2)[0]) if len(rows) > 2 else None


def peak_table(quick: bool) -> list[Row]:
    """Measure the peak memory of updates, each in a process of its own; on Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    rows = []
    for T, B in ((16, 16),) if quick else ((64, 64), (128, 64), (256, 64), (64, 256)):
        command = [sys.executable, "-m", MODULE, "--peak", str(T), str(B)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        peak = float(done.stdout)
        rows.append({"T": T, "B": B, "T x B": T * B, "MiB": peak, "KiB per step": 1024 * peak / (T * B)})
    return rows


def print_peak(T: int, B: int) -> None:
    """Make two updates, and print the MiB that they added to this process at their peak."""
    torch.set_num_threads(1)
    Update(Sizes(T=1, B=1))()  # loads what does not count
    update = Update(Sizes(T=T, B=B))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, so that imports do not count
    before = _status("VmRSS")
    update()
    update()
    print(_status("VmHWM") - before)


def _status(name: str) -> float:
    """Return a figure of this process in MiB: VmRSS is its memory now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def target_table(found: dict[Sweep, list[Row]], peaks: Sequence[Row]) -> list[Row]:
    """Return the targets: memory is linear in T x B, without a term in T^2."""
    checks = []
    for sweep, rows in found.items():
        if sweep.axis in ("T", "B"):
            slope = exponent_row(sweep, rows)["memory exponent"]
            checks.append(target(f"{sweep.core}: exponent of memory in {sweep.axis}", slope, at_most=1.01))
        if sweep.axis == "T":
            quantity = f"{sweep.core}: share of a T^2 term in the memory at the largest T"
            checks.append(target(quantity, quadratic_share(rows), at_most=0.01))
    peak = {(row["T"], row["B"]): row["MiB"] for row in peaks}
    long, wide = peak.get((256, 64)), peak.get((64, 256))
    ratio = long / wide if long and wide else None
    quantity = "rmc: peak memory at T=256, B=64, relative to T=64, B=256"
    checks.append(target(quantity, ratio, at_most=1.1))
    return checks


def measure(args: argparse.Namespace) -> Tables:
    """Measure all sweeps, rollouts and peaks."""
    with num_threads(args.threads[0]):
        found = {sweep: measure_sweep(sweep, args.quick) for sweep in SWEEPS}
        collected = measure_rollouts(args.quick)
    peaks = peak_table(args.quick)
    return {
        "Targets": target_table(found, peaks),
        "Exponents": [exponent_row(sweep, rows) for sweep, rows in found.items()],
        "Updates": [row for rows in found.values() for row in rows],
        "Peak memory of an RMC update": peaks,
        "Rollouts": collected,
    }


NOTES = [
    f"An update of {MAZE}: forward and backward through encoder, core, heads and loss. Sizes that do not "
    "grow: RMC with 4 slots of 64 and 4 heads, LSTM with 128 units, T=16 steps, B=32 sequences.",
    "`MiB saved`: the storages that autograd keeps from forward to backward, each counted once, including "
    "what it keeps of the minibatch, without the parameters.",
    "`last`: the slope between the two largest sizes. At smaller sizes the fixed cost of starting operations "
    "still counts. Encoder, heads and biases do not grow with slots or width, so slopes start low there.",
    "Peak memory: the most that a process of its own held during two updates according to the system, minus "
    "what it held before them.",
]


def plot(rows: Sequence[Row], collected: Sequence[Row]) -> Figure:
    """Draw a column for each axis, with time above and memory below; the last column shows rollouts."""
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(3.6 * (len(axes_names) + 1), 7), layout="constrained")
    grid = figure.subplots(2, len(axes_names) + 1, squeeze=False)
    labels = {"slots": "slots", "width": "width", "T": "steps of a sequence, T", "B": "sequences, B"}
    panels: list[tuple[Any, Sequence[Row], str, str, str, str]] = []
    for column, name in enumerate(axes_names):
        own = [row for row in rows if row["axis"] == name]
        panels.append((grid[0, column], own, "value", "ms", labels[name], "update [ms]"))
        panels.append((grid[1, column], own, "value", "MiB saved", labels[name], "kept for backward [MiB]"))
    panels.append((grid[0, -1], collected, "environments", "ms", "environments", "rollout of 16 steps [ms]"))
    panels.append((grid[1, -1], collected, "environments", "steps/s", "environments", "steps per second"))
    for panel in panels:
        _draw_panel(*panel)
    grid[0, axes_names.index("T")].legend(title="dotted: proportional")  # the panels with both cores
    return figure


def _draw_panel(axes: Any, rows: Sequence[Row], x: str, y: str, x_label: str, y_label: str) -> None:
    for core, color, marker in (("rmc", OKABE_ITO[0], "o"), ("lstm", OKABE_ITO[1], "s")):
        points = [(row[x], row[y]) for row in rows if row["core"] == core]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), marker=marker, color=color, label=core)
        if y != "steps/s":
            slope = points[-1][1] / points[-1][0]
            line = [slope * value for value, _ in points]
            axes.plot([value for value, _ in points], line, ":", color=color, alpha=0.6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)


def main() -> None:
    """Measure, and write the report."""
    parser = make_parser(__doc__, threads=(1,))
    parser.add_argument("--peak", type=int, nargs=2, metavar=("T", "B"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(*args.peak)
        return
    report = make_report(MODULE, "Scaling of time and memory", args, measure)
    report.notes = list(NOTES)
    report.print()
    report.write(args.out, plot(report.tables["Updates"], report.tables["Rollouts"]))


if __name__ == "__main__":
    main()

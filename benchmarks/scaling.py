"""How time and memory of an update grow with slots, width, sequence length and environments.

    python benchmarks/scaling.py            # some three minutes; writes results/scaling.{json,md,png}
    python benchmarks/scaling.py --quick    # does it run? seconds

An update is the PPO loss of one minibatch of a maze, B sequences of T steps, and its gradient. Its memory
is what autograd keeps for the way back, counted byte by byte, and the peak of a process of its own, as the
system sees it. Exponents are slopes on logarithmic axes.
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
from common import Report, Row, num_threads, parse, prepare, take_turns, target
from matplotlib.figure import Figure
from torch import Tensor

import envs
from rmc_agents import ActorCritic, PPOConfig
from rmc_agents.palette import OKABE_ITO
from rmc_agents.ppo import ppo_loss
from rmc_agents.rollout import Carry, Chunks, Rollout, collect, cut, first_carry

MAZE = "MiniGrid-MemoryS7-v0"  # the size of a maze is nothing to an update
MIB = 2**20


@dataclass(frozen=True)
class Sweep:
    """One number grows, the others stay."""

    axis: str
    core: str
    values: tuple[int, ...]
    time: str
    """The exponent that is expected of the time of large sizes."""
    memory: str
    """The exponent that is expected of the memory of large sizes."""


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
    """Of one measurement; a sweep replaces one of them."""

    core: str = "rmc"
    slots: int = 4
    width: int = 64
    """Of a slot, or of the LSTM."""
    T: int = 16
    B: int = 32

    def options(self) -> dict[str, int]:
        if self.core == "lstm":
            return {"hidden_size": self.width}
        return {"num_slots": self.slots, "num_heads": 4, "head_size": self.width // 4}


class Update:
    """The loss and gradient of one minibatch."""

    def __init__(self, sizes: Sizes) -> None:
        env = envs.make(MAZE, sizes.B)
        self.agent = ActorCritic(env.observation_space, env.action_space, sizes.core, sizes.options())
        self.config = PPOConfig(num_steps=sizes.T, bptt_length=sizes.T, minibatch_size=sizes.T * sizes.B)
        self.env, self.generator = env, torch.Generator().manual_seed(0)
        self.carry: Carry = first_carry(self.agent, env, seed=0)
        self.rollout = Rollout.allocate(self.agent, self.carry, sizes.T)
        self.collect()
        numbers = torch.randn(2, *self.rollout.rewards.shape)
        self.chunks: Chunks = cut(self.rollout, numbers[0], numbers[1], sizes.T)

    def collect(self) -> None:
        self.carry = collect(self.agent, self.env, self.carry, self.rollout, self.generator)

    def __call__(self) -> None:
        loss, _ = ppo_loss(self.agent, self.chunks, self.config, 0.01)
        loss.backward()
        self.agent.zero_grad(set_to_none=True)

    def saved_bytes(self) -> int:
        """Bytes of the tensors that autograd keeps between forward and backward, parameters left out."""
        own = {p.untyped_storage().data_ptr() for p in self.agent.parameters()}
        own |= {leaf.untyped_storage().data_ptr() for leaf in self.agent.buffers()}
        found: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()  # one storage, many views: counted once
            return x.detach()  # the tensor itself would be a cycle that nobody frees

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss, _ = ppo_loss(self.agent, self.chunks, self.config, 0.01)
        total = sum(found.values())  # the graph is still alive, so no address was used twice
        del loss
        return total


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of log y over log x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def last_exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope between the two largest sizes."""
    return math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2])


def measure(sweep: Sweep, quick: bool) -> list[Row]:
    """Time and saved bytes at every size of a sweep."""
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


def measure_collect(quick: bool) -> list[Row]:
    """Time of 16 steps of acting and stepping, as environments are added."""
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


def exponents(sweep: Sweep, rows: Sequence[Row]) -> Row:
    x = [row["value"] for row in rows]
    found: Row = {"core": sweep.core, "grows": sweep.axis, "from": x[0], "to": x[-1]}
    for key, expected in (("ms", sweep.time), ("MiB saved", sweep.memory)):
        name = "time" if key == "ms" else "memory"
        y = [row[key] for row in rows]
        found |= {f"{name} exponent": exponent(x, y), f"{name}, last": last_exponent(x, y)}
        found[f"{name} expected"] = expected
    return found


def quadratic_share(rows: Sequence[Row]) -> float | None:
    """The share of a T^2 term in the memory at the largest T: least squares on 1, T and T^2.

    Negative where memory grows more slowly than T (the longer, the more observations are equal).
    """
    T = np.array([row["value"] for row in rows], dtype=float) / rows[-1]["value"]
    y = np.array([row["MiB saved"] for row in rows]) / rows[-1]["MiB saved"]
    return float(np.polyfit(T, y, 2)[0]) if len(rows) > 2 else None


def peak_rows(quick: bool) -> list[Row]:
    """The most memory that updates needed at once, each in a process of its own; Linux alone can say."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    rows = []
    for T, B in ((16, 16),) if quick else ((64, 64), (128, 64), (256, 64), (64, 256)):
        command = [sys.executable, str(Path(__file__)), "--peak", str(T), str(B)]
        peak = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        rows.append({"T": T, "B": B, "T x B": T * B, "MiB": peak, "KiB a step": 1024 * peak / (T * B)})
    return rows


def print_peak(T: int, B: int) -> None:
    """Make two updates and print how many MiB they added to this process at most."""
    torch.set_num_threads(1)
    Update(Sizes(T=1, B=1))()  # what the first one loads is no part of it
    update = Update(Sizes(T=T, B=B))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, that of the imports
    before = _status("VmRSS")
    update()
    update()
    print(_status("VmHWM") - before)


def _status(name: str) -> float:
    """A figure of this process in MiB: VmRSS is its memory now, VmHWM the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def targets(found: dict[Sweep, list[Row]], peaks: Sequence[Row]) -> list[Row]:
    """The project's own mark: memory linear in T x B, no term in T^2."""
    checks = []
    for sweep, rows in found.items():
        if sweep.axis in ("T", "B"):
            slope = exponents(sweep, rows)["memory exponent"]
            checks.append(target(f"{sweep.core}: exponent of memory in {sweep.axis}", slope, at_most=1.01))
        if sweep.axis == "T":
            what = f"{sweep.core}: share of a T^2 term in the memory at the largest T"
            checks.append(target(what, quadratic_share(rows), at_most=0.01))
    peak = {(row["T"], row["B"]): row["MiB"] for row in peaks}
    long, wide = peak.get((256, 64)), peak.get((64, 256))
    ratio = long / wide if long and wide else None
    checks.append(target("rmc: peak memory of T=256, B=64 over that of T=64, B=256", ratio, at_most=1.1))
    return checks


def plot(rows: Sequence[Row], collected: Sequence[Row]) -> Figure:
    """A column for each axis: time above, memory below; the last column is the rollout."""
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
    for panel, own, x, y, x_label, y_label in panels:
        for core, colour, marker in (("rmc", OKABE_ITO[0], "o"), ("lstm", OKABE_ITO[1], "s")):
            points = [(row[x], row[y]) for row in own if row["core"] == core]
            if points:
                panel.plot(*zip(*points, strict=True), marker=marker, color=colour, label=core)
                if y != "steps/s":
                    slope = points[-1][1] / points[-1][0]
                    line = [slope * p[0] for p in points]
                    panel.plot([p[0] for p in points], line, ":", color=colour, alpha=0.6)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel(x_label)
        panel.set_ylabel(y_label)
        panel.grid(alpha=0.3)
    grid[0, axes_names.index("T")].legend(title="dotted: proportional")  # where both cores are
    return figure


def main() -> None:
    parser = parse(__doc__, threads=(1,))
    parser.add_argument("--peak", type=int, nargs=2, metavar=("T", "B"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        return print_peak(*args.peak)
    machine = prepare(args)
    with num_threads(args.threads[0]):
        found = {sweep: measure(sweep, args.quick) for sweep in SWEEPS}
        collected = measure_collect(args.quick)
    peaks = peak_rows(args.quick)
    rows = [row for sweep_rows in found.values() for row in sweep_rows]
    report = Report(
        "scaling",
        machine,
        {
            "Targets": targets(found, peaks),
            "Exponents": [exponents(sweep, sweep_rows) for sweep, sweep_rows in found.items()],
            "Updates": rows,
            "Peak memory of an RMC update": peaks,
            "Rollouts": collected,
        },
    )
    report.notes = [
        f"An update of {MAZE}: forward and backward through encoder, core, heads and loss. Where it does "
        "not grow: RMC 4 slots x 64 with 4 heads, LSTM 128 wide, T=16 steps, B=32 sequences.",
        "`MiB saved` counts the storages that autograd keeps from forward to backward, each once; what it "
        "keeps of the minibatch is in it, parameters are not.",
        "`last` is the slope between the two largest sizes: below, fixed costs of starting operations still "
        "count. Encoder, heads and biases do not grow with slots or width, so slopes start low there.",
        "Peak memory: the most that a process of its own held during two updates, as the system counts it, "
        "above what it held before them.",
    ]
    report.print()
    report.write(args.out, plot(rows, collected))
    return None


if __name__ == "__main__":
    main()

"""Speed of every memory core, forward and backward, against plain code and against torch's own modules.

    python -m benchmarks.speed.cores            # about five minutes; writes results/cores.{json,md,png}
    python -m benchmarks.speed.cores --report   # the report from stored measurements
    python -m benchmarks.speed.cores --quick    # see whether it runs: seconds

RMC is compared with a direct port of its equations, and with an `nn.LSTM` with the same number of parameters;
LSTM, GRU and RNN with `nn.LSTM`, `nn.GRU` and `nn.RNN`; every other core with a plain loop over its step.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.common import (
    Tables,
    make_parser,
    make_report,
    num_threads,
    speed_up,
    take_turns,
    time_each,
)
from benchmarks.report import Row, Summary, show, target
from benchmarks.speed.ported_rmc import PortedRMC, multiply_adds, require_same
from rmc_agents.cores import CORES, RMC, MemoryCore, make_core
from rmc_agents.plots.style import OKABE_ITO

INPUT_SIZE = 128
SIZES = ((16, 32), (128, 64), (128, 512))
"""(T, B): steps and sequences."""
RMC_SIZES = {
    "rmc 4x64": {"num_slots": 4, "num_heads": 4, "head_size": 16},
    "rmc 8x256": {"num_slots": 8, "num_heads": 8, "head_size": 32},
}
"""Options by name: slots x slot size."""
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
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


def torch_module(module: nn.RNNBase) -> Candidate:
    """Return a module of torch's; it cannot start an episode within a sequence, and does not have to."""
    return Candidate(module, lambda inputs, starts: module(inputs)[0])


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())


def lstm_with(parameters: int) -> nn.LSTM:
    """Return the `nn.LSTM` whose number of parameters is nearest to this."""

    def distance(hidden_size: int) -> int:
        return abs(4 * hidden_size * (INPUT_SIZE + hidden_size + 2) - parameters)

    return nn.LSTM(INPUT_SIZE, min(range(1, 4096), key=distance))


def make_rmc(options: Mapping[str, Any]) -> RMC:
    """Build an RMC."""
    core = make_core("rmc", INPUT_SIZE, options)
    assert isinstance(core, RMC)
    return core


def rmc_candidates(options: Mapping[str, Any]) -> dict[str, Candidate]:
    """Return an RMC, its port, and an LSTM with the same number of parameters."""
    core = make_rmc(options)
    port = PortedRMC(core)
    require_same(core, port)
    return {
        "ours": ours(core),
        "port": Candidate(port, port),
        "nn.LSTM": torch_module(lstm_with(count_parameters(core))),
    }


def other_candidates(name: str) -> dict[str, Candidate]:
    """Return a core, torch's module of the same kind if there is one, and the plain loop if it has its
    own."""
    core = make_core(name, INPUT_SIZE)
    candidates = {"ours": ours(core)}
    if name in TORCH:
        candidates["torch"] = torch_module(TORCH[name](INPUT_SIZE, core.output_size))
    if type(core).unroll is not MemoryCore.unroll:
        candidates["loop"] = plain_loop(core)
    return candidates


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
    row["parameters"] = count_parameters(candidates["ours"].module)
    row |= {f"{name} (ms)": 1e3 * statistics.median(ts) for name, ts in times.items()}
    return row, times


def rmc_table(sizes: Sequence[tuple[int, int]], threads: Sequence[int], quick: bool) -> list[Row]:
    """Time RMCs of two sizes."""
    rows = []
    for label, options in RMC_SIZES.items():
        candidates = rmc_candidates(options)
        for size in sizes:
            for n in threads:
                row, times = measure_size(label, candidates, size, n, quick)
                row["speed-up over port"] = speed_up(times, "ours", over="port")
                row["time relative to nn.LSTM"] = speed_up(times, "nn.LSTM", over="ours")
                rows.append(row)
    return rows


def other_table(sizes: Sequence[tuple[int, int]], threads: Sequence[int], quick: bool) -> list[Row]:
    """Time all other cores."""
    rows = []
    for name in (name for name in CORES if name != "rmc"):
        candidates = other_candidates(name)
        for size in sizes:
            for n in threads:
                row, times = measure_size(name, candidates, size, n, quick)
                for other in ("torch", "loop"):
                    row.setdefault(f"{other} (ms)", None)
                for other in ("torch", "loop"):
                    known = other in times
                    row[f"speed-up over {other}"] = speed_up(times, "ours", other) if known else None
                rows.append(row)
    return rows


def target_table(rows: Sequence[Row]) -> list[Row]:
    """Return the targets, which are for RMC only."""
    found = {(row["core"], row["T"], row["B"], row["threads"]): row for row in rows}
    checks = []
    for n in (1, 2):
        for core in RMC_SIZES:
            for T, B in SIZES[:2]:
                measured = found.get((core, T, B, n), {}).get("speed-up over port")
                quantity = f"{core}: speed-up over its port, T={T} B={B}, threads={n}"
                checks.append(target(quantity, measured, at_least=3.0))
        measured = found.get(("rmc 4x64", 128, 64, n), {}).get("time relative to nn.LSTM")
        quantity = f"rmc 4x64: time relative to nn.LSTM with the same parameters, T=128 B=64, threads={n}"
        checks.append(target(quantity, measured, at_most=3.0))
    return checks


def measure(args: argparse.Namespace) -> Tables:
    """Time every core."""
    sizes = ((2, 3),) if args.quick else SIZES
    threads = args.threads[:1] if args.quick else args.threads
    rmc, others = rmc_table(sizes, threads, args.quick), other_table(sizes, threads, args.quick)
    return {"Targets": target_table(rmc), "RMC": rmc, "Other cores": others}


def make_notes() -> list[str]:
    """Return how the cores are measured."""
    small = make_rmc(RMC_SIZES["rmc 4x64"])
    lstm = lstm_with(count_parameters(small))
    ratio = multiply_adds(small) / (4 * lstm.hidden_size * (INPUT_SIZE + lstm.hidden_size))
    return [
        f"Time of a sequence [T, B, {INPUT_SIZE}] forward and backward, with the gradients of inputs and all "
        "weights; float32; medians over interleaved rounds (at least 3, about 4 s for each row).",
        f"In our cores and the port an episode starts at a step with probability {START_RATE}; nn.LSTM, "
        "nn.GRU and nn.RNN cannot start one within a sequence, and do not have to.",
        "Where the slowest candidate would take over 2 s, fewer steps are run (`steps measured`), and their "
        "time is multiplied up to T.",
        "The port is `PortedRMC` in benchmarks/speed/ported_rmc.py: the equations step by step under "
        "autograd. Before anything is timed, its values and gradients are checked against RMC's.",
        f"`rmc 4x64` takes {ratio:.2f} times the multiplications of the nn.LSTM beside it "
        f"({count_parameters(small):,} parameters, hidden size {lstm.hidden_size}).",
        "Cores other than RMC have their default options.",
        "`loop` is the core's own step in the loop that every core inherits, with the input projections "
        "inside the loop.",
    ]


def summarize(rows: Sequence[Row]) -> Summary:
    """Return the ratios of the RMCs, with a column for each number of threads."""
    threads = sorted({row["threads"] for row in rows})
    by_case: dict[tuple[str, int, int], Row] = {}
    for row in rows:
        case = by_case.setdefault((row["core"], row["T"], row["B"]), {})
        case[row["threads"]] = row
    columns = ("speed-up over port", "time relative to nn.LSTM")
    return Summary(
        "summary",
        "Summary",
        [
            {"core": core.replace("rmc", "RMC"), "steps x sequences": f"{T} x {B}"}
            | {
                f"{column}, {_threads(n)}": show(case[n][column]) if n in case else ""
                for column in columns
                for n in threads
            }
            for (core, T, B), case in by_case.items()
        ],
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def plot(tables: Tables) -> Figure:
    """Draw the milliseconds of every row: a panel for each table, a marker for each candidate."""
    series = {
        "RMC": {
            "ours (ms)": "ours",
            "port (ms)": "port, step by step",
            "nn.LSTM (ms)": "nn.LSTM, same number of parameters",
        },
        "Other cores": {"ours (ms)": "ours", "torch (ms)": "torch's own", "loop (ms)": "plain loop"},
    }
    figure = Figure(figsize=(13, 4.2 * len(series)), layout="constrained")
    for axes, (title, labels) in zip(figure.subplots(len(series), 1), series.items(), strict=True):
        rows = tables[title]
        for (key, label), colour, marker in zip(labels.items(), OKABE_ITO, "osD", strict=False):
            points = [(x, row[key]) for x, row in enumerate(rows) if row[key]]
            axes.plot(*zip(*points, strict=True), marker, color=colour, label=label, markersize=7)
        cores = [row["core"].replace("feedforward", "feed-\nforward") for row in rows]
        names = [f"{c}\n{r['T']}x{r['B']}\n{r['threads']} thr." for c, r in zip(cores, rows, strict=True)]
        axes.set_xticks(range(len(rows)), names, fontsize=6)
        axes.set_yscale("log")
        axes.set_ylabel("forward + backward [ms]")
        axes.set_xlabel("core, T x B, threads")
        axes.set_title(title, loc="left")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def main() -> None:
    """Measure, and write the report."""
    args = make_parser(__doc__).parse_args()
    report = make_report("benchmarks.speed.cores", "Speed of memory cores", args, measure)
    report.notes = make_notes()
    report.summaries = [summarize(report.tables["RMC"])]
    report.print()
    report.write(args.out, plot(report.tables))


if __name__ == "__main__":
    main()

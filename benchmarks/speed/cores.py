"""Speed of every memory core, forward and backward, against plain code and against torch's own modules.

    python -m benchmarks.speed.cores            # about ten minutes; writes results/cores.{json,md,png}
    python -m benchmarks.speed.cores --report   # the report from stored measurements
    python -m benchmarks.speed.cores --quick    # see whether it runs: seconds

RMC is compared with a direct port of its equations, and with an `nn.LSTM` with the same number of parameters;
LSTM, GRU and RNN with `nn.LSTM`, `nn.GRU` and `nn.RNN`; every other core with a plain loop over its step. The
cores that are scans are also compared with our LSTM of the same number of parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from benchmarks.common import Tables, make_parser, make_report, speed_up
from benchmarks.report import Row, Summary, show, target
from benchmarks.speed.candidates import (
    INPUT_SIZE,
    START_RATE,
    Candidate,
    count_parameters,
    indexed,
    lstm_with,
    measure_size,
    ours,
    plain_loop,
    torch_module,
)
from benchmarks.speed.ported_rmc import PortedRMC, multiply_adds, require_same
from rmc_agents.cores import CORES, RMC, MemoryCore, make_core
from rmc_agents.cores.sizes import match_parameters
from rmc_agents.plots.style import OKABE_ITO

SIZES = ((16, 32), (128, 64), (128, 512))
"""(T, B): steps and sequences."""
RMC_SIZES = {
    "rmc 4x64": {"num_slots": 4, "num_heads": 4, "head_size": 16},
    "rmc 8x256": {"num_slots": 8, "num_heads": 8, "head_size": 32},
}
"""Options by name: slots x slot size."""
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SCANS = ("mingru", "lru")
"""Cores that are compared with our LSTM."""
SCAN_SIZES = {(128, 64): 1.5, (1024, 64): 2.0}
"""(T, B): how many times as fast as the LSTM a scan should be."""
TYPICAL = (128, 64)
"""(T, B) at which all cores are compared in one table."""
DISTINCT = 512
"""Number of distinct inputs of a sequence, in the second comparison with the LSTM."""


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


def scan_table(sizes: Sequence[tuple[int, int]], threads: Sequence[int], quick: bool) -> list[Row]:
    """Time cores that are scans beside our LSTM with the same number of parameters."""
    rows = []
    for name in SCANS:
        core = make_core(name, INPUT_SIZE)
        lstm = make_core("lstm", INPUT_SIZE, match_parameters("lstm", INPUT_SIZE, count_parameters(core)))
        for distinct in (None, DISTINCT):
            candidates = {
                key: ours(each) if distinct is None else indexed(each, distinct)
                for key, each in (("ours", core), ("lstm", lstm))
            }
            for size in sizes:
                for n in threads:
                    row, times = measure_size(name, candidates, size, n, quick)
                    row["distinct inputs"] = distinct or size[0] * size[1]
                    row["speed relative to our LSTM"] = speed_up(times, "ours", over="lstm")
                    rows.append(row)
    return rows


def scan_targets(rows: Sequence[Row]) -> list[Row]:
    """Return the targets of the cores that are scans."""
    found = {(row["core"], row["T"], row["B"], row["threads"], row["distinct inputs"]): row for row in rows}
    checks = []
    for name in SCANS:
        for (T, B), least in SCAN_SIZES.items():
            for distinct in (T * B, DISTINCT):
                measured = found.get((name, T, B, 1, distinct), {}).get("speed relative to our LSTM")
                quantity = f"{name}: speed relative to our LSTM with the same parameters, T={T} B={B}, "
                quantity += f"{distinct:,} distinct inputs, threads=1"
                checks.append(target(quantity, measured, at_least=least))
    return checks


def target_table(rows: Sequence[Row]) -> list[Row]:
    """Return the targets of RMC."""
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
    scans = scan_table(sizes if args.quick else list(SCAN_SIZES), threads[:1], args.quick)
    targets = [*target_table(rmc), *scan_targets(scans)]
    return {"Targets": targets, "RMC": rmc, "Other cores": others, "Scans": scans}


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
        "Cores other than RMC have their default options. `state` is how many numbers a core carries from "
        "step to step for each sequence.",
        "minGRU and LRU take as many multiplications for a parameter as an LSTM does, and our LSTM runs at "
        "three quarters of what one core can multiply in float32: with inputs that all differ, no scan can "
        f"be 1.5 times as fast. With {DISTINCT} distinct inputs, as in tasks with few observations, each is "
        "projected once.",
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


def compare(tables: Tables) -> Summary:
    """Return a row for each core with its parameters, its state and its time at `TYPICAL`, on one thread."""
    rows = typical([*tables["RMC"], *tables["Other cores"]])
    columns = {
        "core": "core",
        "parameters": "parameters",
        "state": "state",
        "ours (ms)": "forward + backward (ms)",
        "speed-up over loop": "speed-up over a plain loop",
    }
    return Summary(
        "by-core",
        "All cores: {} steps of {} sequences, one thread".format(*TYPICAL),
        [{label: show(row.get(key)) for key, label in columns.items()} for row in rows],
    )


def typical(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of `TYPICAL` on one thread; all rows, if none is."""
    chosen = [row for row in rows if (row["T"], row["B"], row["threads"]) == (*TYPICAL, 1)]
    return chosen or list(rows)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def plot(tables: Tables) -> Figure:
    """Draw the milliseconds of all rows of RMC and of the typical ones of other cores, by candidate."""
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
        rows = tables[title] if title == "RMC" else typical(tables[title])
        for (key, label), color, marker in zip(labels.items(), OKABE_ITO, "osD", strict=False):
            points = [(x, row[key]) for x, row in enumerate(rows) if row[key]]
            axes.plot(*zip(*points, strict=True), marker, color=color, label=label, markersize=7)
        cores = [row["core"].replace("feedforward", "feed-\nforward") for row in rows]
        names = [f"{c}\n{r['T']}x{r['B']}\n{r['threads']} thr." for c, r in zip(cores, rows, strict=True)]
        axes.set_xticks(range(len(rows)), names, fontsize=7)
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
    report.summaries = [summarize(report.tables["RMC"]), compare(report.tables)]
    report.print()
    report.write(args.out, plot(report.tables))


if __name__ == "__main__":
    main()

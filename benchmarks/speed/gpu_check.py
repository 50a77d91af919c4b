"""All checks and measurements that need a GPU, in one command.

    python -m benchmarks.speed.gpu_check                # ten minutes; writes results/gpu_check.{json,md,png}
    python -m benchmarks.speed.gpu_check --quick        # smaller sizes
    python -m benchmarks.speed.gpu_check --device cpu   # see whether it runs, on a machine without a GPU

Without a CUDA device it says so and exits with 0. With one, 0 means that every check passed, and 1 that one
failed. Checked: cores, environments, rollouts, gradients and updates compute the same as on a CPU; neither
collecting nor updating makes the host wait. Measured: steps per second and memory with 1024 to 16384
environments, plain, with `torch.compile(mode="reduce-overhead")` (CUDA graphs), and with bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure

import rmc_envs
from benchmarks.common import Tables, make_parser, make_report
from benchmarks.report import Row
from benchmarks.speed.device_checks import TOLERANCE, Run, describe, install, run_checks, synchronize
from rmc_agents.cores import CORES
from rmc_agents.plots.style import OKABE_ITO

MAZE = "MiniGrid-MemoryS13-v0"
MINIBATCHES = 8
"""Minibatches per epoch."""
MODES = ("plain", "compile", "bf16", "bf16 + compile")


def measure_mode(core: str, device: torch.device, num_envs: int, mode: str, quick: bool) -> Row:
    """Measure the steps per second of collecting, updating and both, and the peak memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps, epochs = (8, 1) if quick else (32, 4)
    transitions = num_envs * steps
    run = Run(core, device, num_envs, steps, transitions // MINIBATCHES, epochs, MAZE)
    if mode != "plain":
        install(run.agent, mode)
    times: dict[str, list[float]] = {"collect": [], "update": []}
    for number in range(2 if quick else 6):
        for part, call in (("collect", run.collect), ("update", run.update)):
            synchronize(device)
            started = time.perf_counter()
            call()
            synchronize(device)
            if number > 0:  # the first is a warm-up, and compiles
                times[part].append(time.perf_counter() - started)
    seconds = {part: sorted(ts)[len(ts) // 2] for part, ts in times.items()}
    return {
        "core": core,
        "environments": num_envs,
        "mode": mode,
        "steps/s": transitions / sum(seconds.values()),
        "collect steps/s": transitions / seconds["collect"],
        "update steps/s": transitions / seconds["update"],
        "peak MiB": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
        "note": "",
    }


def measure_modes(
    device: torch.device, cores: Sequence[str], sizes: Sequence[int], quick: bool
) -> Iterator[Row]:
    """Measure every mode; yield a row for each, with the reason if it does not run."""
    for core in cores:
        for mode in MODES[::2] if device.type == "cpu" else MODES:  # compiling takes minutes on a CPU
            for num_envs in sizes:
                try:
                    yield measure_mode(core, device, num_envs, mode, quick)
                except Exception as error:
                    empty = dict.fromkeys(("steps/s", "collect steps/s", "update steps/s", "peak MiB"))
                    row = {"core": core, "environments": num_envs, "mode": mode, **empty}
                    yield {**row, "note": describe(error)}


def measure(args: argparse.Namespace) -> Tables:
    """Run all checks and measurements."""
    device = torch.device(args.device)
    warnings.filterwarnings("ignore", category=UserWarning)  # the compiler's, about itself
    torch.set_num_threads(args.threads[0])
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    sizes = ((16,) if device.type == "cpu" else (1024,)) if args.quick else (1024, 4096, 16384)
    cores = [core for core in ("rmc", "lstm") if core in args.cores]
    return {
        "Checks": list(run_checks(device, args.cores, args.tasks, args.quick)),
        "Speed": list(measure_modes(device, cores, sizes, args.quick)),
    }


def make_notes(quick: bool) -> list[str]:
    """Return how it is checked and measured."""
    return [
        f"Checks compare with the CPU: within {TOLERANCE:.0e} of a tensor's largest number, in float32 "
        "without TF32.",
        f"Speed: {MAZE} as tensors on the device, default agents, rollouts of "
        f"{'8 steps, one epoch' if quick else '32 steps, 4 epochs'} of {MINIBATCHES} minibatches, chunks of "
        f"at most 16 steps; medians of {1 if quick else 5} iterations after a warm-up.",
        "compile: encoder, core and heads by torch.compile, mode reduce-overhead. bf16: torch.autocast.",
    ]


def plot(rows: Sequence[Row]) -> Figure:
    """Draw steps per second by number of environments, with a panel for each core."""
    cores = list(dict.fromkeys(row["core"] for row in rows))
    figure = Figure(figsize=(6 * len(cores), 4.5), layout="constrained")
    panels = figure.subplots(1, len(cores), sharey=True, squeeze=False)[0]
    for axes, core in zip(panels, cores, strict=True):
        for mode, colour, marker in zip(MODES, OKABE_ITO, "osD^", strict=False):
            own = [row for row in rows if (row["core"], row["mode"]) == (core, mode) and row["steps/s"]]
            x, y = [row["environments"] for row in own], [row["steps/s"] for row in own]
            axes.plot(x, y, marker=marker, color=colour, label=mode)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("environments")
        axes.set_title(f"{core}: rollout and update", loc="left")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("environment steps per second")
    panels[0].legend()
    return figure


def main() -> None:
    """Check and measure, and write the report."""
    parser = make_parser(__doc__, threads=(1,))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to see whether it runs")
    parser.add_argument("--cores", nargs="+", default=list(CORES), help="check only these cores")
    parser.add_argument("--tasks", nargs="+", default=list(rmc_envs.NATIVE), help="check only these tasks")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available() and not args.report:
        print("no CUDA device")
        return
    args.quick = args.quick or device.type == "cpu"  # a CPU's figures must not become the results
    report = make_report("benchmarks.speed.gpu_check", "Checks and speed on a GPU", args, measure)
    if device.type == "cuda" and not args.report:
        report.machine |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    report.notes = make_notes(args.quick)
    report.print()
    measured = report.tables["Speed"]
    report.write(args.out, plot(measured) if measured else None)
    if any(row["passed"] == "no" for row in report.tables["Checks"]):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Environment steps per second of whole training runs, against sb3-contrib's RecurrentPPO.

    python -m benchmarks.speed.training            # about five minutes; writes results/training.{json,md,png}
    python -m benchmarks.speed.training --report   # the report from stored measurements
    python -m benchmarks.speed.training --quick    # see whether it runs: seconds

Both train in MiniGrid-MemoryS13-v0 with 32 environments, rollouts of 128 steps, minibatches of 512
transitions and 4 epochs. Iterations (a rollout and its update) take turns.

RecurrentPPO's speed depends on how often episodes end, so two phases of training are measured. At the
*beginning* the policy is random and few episodes end. *Walking* is most of training: every agent soon walks
straight to the junction, and episodes take about 8 steps. In that phase the policy's actions are replaced by
such a walk, so that no agent has to be trained first; everything else is as in training.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.common import ROOT, Tables, make_parser, make_report, num_threads
from benchmarks.report import Row, Summary, show, target
from benchmarks.speed.arithmetic import iteration_flops, product_rate
from benchmarks.speed.parallel_training import ParallelTrainings
from benchmarks.speed.parts import time_parts
from benchmarks.speed.timed_training import (
    HIDDEN_SIZE,
    MAZE,
    RMC_4X64,
    OurTraining,
    Sb3Training,
    Seconds,
    Sizes,
)
from rmc_agents import PPOConfig
from rmc_agents.cli.presets import find_preset
from rmc_agents.plots.style import OKABE_ITO
from rmc_agents.training.processes import ALONE, Processes

PHASES = ("walking", "beginning")
SHARED, SEPARATE = "sb3-contrib LSTM(128), one shared", "sb3-contrib LSTM(128), its default"
OURS = {
    "RMC 4x64": ("rmc", RMC_4X64),
    "LSTM(128)": ("lstm", {"hidden_size": HIDDEN_SIZE}),
}
"""Our agents: name -> core and its options."""
QUICK = Sizes(num_envs=2, num_steps=16, minibatch_size=32, epochs=1, rounds=1)


def divided_trainings(sizes: Sizes, processes: Processes) -> dict[str, OurTraining]:
    """Return our agents, walking, divided among processes, by sizes and name.

    benchmark: `sizes`. preset: those of MemoryS13's preset, with twice the environments.
    """
    preset = find_preset(MAZE)
    assert preset is not None
    larger = replace(sizes, num_envs=2 * sizes.num_envs)
    made = {}
    for kind, each, length in (
        ("benchmark", sizes, PPOConfig.bptt_length),
        ("preset", larger, preset.ppo.bptt_length),
    ):
        for name, (core, options) in OURS.items():
            tuned = preset.agent.core_options if kind == "preset" and core == "rmc" else options
            length = min(length, sizes.num_steps)
            made[f"{kind}: {name}"] = OurTraining(core, tuned, each, length, True, processes)
    return made


def measure_processes(sizes: Sizes, threads: Sequence[int]) -> list[Row]:
    """Time iterations on two cores, walking: of two processes, of one, and of sb3-contrib on two threads."""
    if not {1, 2} <= set(threads):
        return []
    times: dict[tuple[str, int], list[float]] = {}
    with num_threads(1), ParallelTrainings(divided_trainings, sizes, 2) as both:
        alone, theirs = divided_trainings(sizes, ALONE), Sb3Training(sizes, False, True)
        for _ in range(sizes.rounds + 1):
            for name, run in alone.items():
                times.setdefault((name, 1), []).append(sum(run.iterate()))
                times.setdefault((name, 2), []).append(sum(both.iterate(name)))
            with num_threads(2):
                times.setdefault((SEPARATE, 2), []).append(sum(theirs.iterate()))
    found: list[Row] = []
    for name, run in alone.items():
        kind, _, agent = name.partition(": ")
        base = {"one process": times[name, 1]}
        if kind == "benchmark":
            base["sb3 default on two threads"] = times[SEPARATE, 2]
        for number in (1, 2):
            seconds = times[name, number]
            row: Row = {"sizes": kind, "agent": agent, "processes": number}
            row["steps/s"] = run.trainer.rollout.rewards.numel() / statistics.median(seconds[1:])
            for label in ("one process", "sb3 default on two threads"):
                ratios = [b / own for b, own in zip(base.get(label, ()), seconds, strict=False)][1:]
                row[f"speed-up over {label}"] = statistics.median(ratios) if ratios else None
            found.append(row)
    return found


def our_trainings(sizes: Sizes, walks: bool) -> dict[str, OurTraining]:
    """Return our agents with the default BPTT length, and with that of the whole rollout."""
    short, whole = min(PPOConfig.bptt_length, sizes.num_steps), sizes.num_steps
    return {
        f"{name}{ending}": OurTraining(core, options, sizes, length, walks)
        for ending, length in (("", short), (f", BPTT {whole}", whole))
        for name, (core, options) in OURS.items()
    }


def measure_phase(sizes: Sizes, phase: str, threads: int) -> list[Row]:
    """Time iterations in turns; return a row for each candidate."""
    with num_threads(threads):
        walks = phase == "walking"
        runs: dict[str, OurTraining | Sb3Training] = {
            SEPARATE: Sb3Training(sizes, False, walks),
            SHARED: Sb3Training(sizes, True, walks),
            **our_trainings(sizes, walks),
        }
        times: dict[str, list[Seconds]] = {name: [] for name in runs}
        for number in range(sizes.rounds + 1):
            for name, run in runs.items():
                seconds = run.iterate()
                if number > 0:  # the first is a warm-up
                    times[name].append(seconds)
    steps = sizes.num_envs * sizes.num_steps
    rows = []
    for name, run in runs.items():
        row: Row = {"phase": phase, "agent": name, "threads": threads, "parameters": run.parameters}
        row["steps/s"] = steps / statistics.median(sum(seconds) for seconds in times[name])
        for part in Seconds._fields:
            row[f"{part} (s)"] = statistics.median(getattr(seconds, part) for seconds in times[name])
        for base, label in ((SEPARATE, "default"), (SHARED, "shared")):
            pairs = zip(times[base], times[name], strict=True)
            row[f"speed-up over sb3 {label}"] = statistics.median(sum(b) / sum(own) for b, own in pairs)
        rows.append(row)
    return rows


def part_table(sizes: Sizes, threads: Sequence[int], seconds: float) -> list[Row]:
    """Time the parts of a gradient step of ours, walking: a row for each agent and number of threads."""
    found: list[Row] = []
    for n in threads:
        with num_threads(n):
            for agent, run in our_trainings(sizes, walks=True).items():
                run.iterate()
                found.append({"agent": agent, "threads": n, **time_parts(run.trainer, seconds)})
    return found


def startup_seconds(repeats: int) -> float:
    """Return the seconds from starting `python train/ppo.py` to a saved rollout of 16 steps: the median."""
    tiny = ["--env", MAZE, "--num-envs", "32", "--num-steps", "16", "--total-steps", "512", "--epochs", "1"]
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            command = [sys.executable, str(ROOT / "train" / "ppo.py"), *tiny, "--bptt-length", "16"]
            command += ["--run-dir", str(Path(folder) / "run")]
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def bound_table(rows: Sequence[Row], sizes: Sizes, seconds: float) -> list[Row]:
    """Return how fast an iteration could be if everything but its matrix products took no time.

    Args:
        rows: of `measure_phase`.
        sizes: of the measurement.
        seconds: time for measuring the rate of products.
    """
    config = PPOConfig(
        num_steps=sizes.num_steps,
        bptt_length=min(PPOConfig.bptt_length, sizes.num_steps),
        minibatch_size=sizes.minibatch_size,
        epochs=sizes.epochs,
    )
    measured = {(row["phase"], row["agent"], row["threads"]): row["steps/s"] for row in rows}
    found: list[Row] = []
    for threads in sorted({row["threads"] for row in rows}):
        with num_threads(threads):
            rate = product_rate(seconds=seconds)
        for agent, (core, options) in OURS.items():
            flops = sum(iteration_flops(MAZE, core, options, sizes.num_envs, config))
            bound = sizes.num_envs * sizes.num_steps / (flops / rate)
            own, theirs = (measured["walking", name, threads] for name in (agent, SEPARATE))
            found.append(
                {
                    "agent": agent,
                    "threads": threads,
                    "GFLOP per iteration": flops / 1e9,
                    "GFLOP/s of a product": rate / 1e9,
                    "bound, steps/s": bound,
                    "bound, speed-up over sb3 default": bound / theirs,
                    "measured (walking), steps/s": own,
                    "measured / bound": own / bound,
                }
            )
    return found


def target_table(rows: Sequence[Row], processes: Sequence[Row], startup: float) -> list[Row]:
    """Return the targets of training and of its start."""
    found = {(row["phase"], row["agent"], row["threads"]): row for row in rows}
    pairs = {(row["sizes"], row["agent"]): row for row in processes if row["processes"] == 2}
    return [
        *(
            target(
                f"{agent}: speed-up over sb3-contrib's LSTM(128) (default), walking, one thread",
                found.get(("walking", agent, 1), {}).get("speed-up over sb3 default"),
                at_least=wanted,
            )
            for agent, wanted in (("RMC 4x64", 7.0), ("LSTM(128)", 8.0))
        ),
        *(
            target(
                f"{agent}: speed-up over the same, walking, both on two cores (two processes; two threads)",
                pairs.get(("benchmark", agent), {}).get("speed-up over sb3 default on two threads"),
                at_least=wanted,
            )
            for agent, wanted in (("RMC 4x64", 10.0), ("LSTM(128)", 14.0))
        ),
        *(
            target(
                f"{agent}: two processes on two cores, times one, sizes of MemoryS13's preset",
                pairs.get(("preset", agent), {}).get("speed-up over one process"),
                at_least=1.7,
            )
            for agent in OURS
        ),
        target("from starting `python train/ppo.py` to a first rollout (s)", startup, at_most=5.0),
    ]


def measure(args: argparse.Namespace) -> Tables:
    """Time a whole training run, its parts, its start and its bound."""
    # SB3 advises another policy for pictures, but MiniGrid's grid of codes is no picture.
    warnings.filterwarnings("ignore", module="stable_baselines3")
    sizes = QUICK if args.quick else Sizes()
    threads = args.threads[:1] if args.quick else args.threads
    rows = [row for phase in PHASES for n in threads for row in measure_phase(sizes, phase, n)]
    startup = startup_seconds(1 if args.quick else 3)
    processes = measure_processes(sizes, (1, 2) if args.quick else args.threads)
    return {
        "Targets": target_table(*([], []) if args.quick else (rows, processes), startup),
        "Training": rows,
        "Processes": processes,
        "Parts of a gradient step": part_table(sizes, threads, 0.1 if args.quick else 4.0),
        "Bound": bound_table(rows, sizes, 0.1 if args.quick else 1.0),
    }


def make_notes(sizes: Sizes) -> list[str]:
    """Return how training is measured."""
    return [
        f"{MAZE}, {sizes.num_envs} environments, {sizes.num_steps} steps, minibatches of "
        f"{sizes.minibatch_size} transitions, {sizes.epochs} epochs: "
        f"{sizes.epochs * sizes.num_envs * sizes.num_steps // sizes.minibatch_size} gradient steps per "
        f"iteration in both libraries. Medians over {sizes.rounds} interleaved iterations after a warm-up.",
        "beginning: the policy is still random. walking: its actions are replaced by those of an agent that "
        "walks straight to a choice, as agents do through most of training; episodes take about 8 steps. "
        "sb3-contrib runs a sequence as one operation if no episode starts in a minibatch, and step by step "
        "otherwise; and a reset of MiniGrid costs as much as many steps.",
        "sb3-contrib: RecurrentPPO('MlpLstmPolicy'), LSTM of 128, on `make_vec_env` (DummyVecEnv) with "
        "MiniGrid's ImgObsWrapper, the cheapest observation that its users take; denormals are flushed for "
        "it, too. `default` has one LSTM each for actor and critic, and heads of two hidden layers. "
        "`shared` is cheaper and resembles ours: one LSTM that the critic reads, too, and heads of one "
        "hidden layer of 64.",
        "sb3-contrib flattens 7x7x3 numbers into the LSTM; we embed them as categories and add a layer of "
        "128 before the memory. Both act with MiniGrid's 7 actions.",
        f"We split rollouts into chunks of {PPOConfig.bptt_length} steps; sb3-contrib propagates gradients "
        f"through up to {sizes.num_steps} steps, as the rows with BPTT {sizes.num_steps} do.",
        "environment: inside step(). policy: the rest of the rollout. update: from there to the next rollout "
        "(sb3-contrib computes advantages within `policy`, we within `update`).",
        "Parts of a gradient step: forward and backward of each part alone on a minibatch of a rollout; the "
        "optimizer with the clipping before it; rest: selecting the minibatch, and Python between the parts.",
        "Processes: two processes with one thread each, which train together (`--processes 2`), in turns "
        "with one process, and with sb3-contrib's default on two threads. benchmark: the sizes above. "
        "preset: 64 environments and BPTT over 32 steps, in MemoryS13 alone.",
        "Bound: the matrix products of an iteration at the rate of a 512 x 256 x 256 product on this "
        "machine, with everything else free, compared with sb3-contrib's default while walking.",
        "Speed-ups are medians over rounds of the ratio of whole iterations within a round.",
    ]


def summarize(rows: Sequence[Row]) -> Summary:
    """Return the speed of our agents while walking, as they do through most of training."""
    return Summary(
        "summary",
        "Summary: walking, as in most of training",
        [
            {
                "agent": row["agent"],
                "threads": str(row["threads"]),
                "environment steps/s": show(row["steps/s"]),
                "speed-up over sb3-contrib's default": show(row["speed-up over sb3 default"]),
                "speed-up over sb3-contrib with a shared LSTM": show(row["speed-up over sb3 shared"]),
            }
            for row in rows
            if row["phase"] == "walking" and row["agent"] not in (SEPARATE, SHARED)
        ],
    )


def plot(rows: Sequence[Row]) -> Figure:
    """Draw the microseconds of an environment step, stacked by part: a panel per phase and threads."""
    threads = sorted({row["threads"] for row in rows})
    figure = Figure(figsize=(7.5 * len(threads), 3.5 * len(PHASES)), layout="constrained")
    panels = figure.subplots(len(PHASES), len(threads), sharex=True, squeeze=False)
    for axes, (phase, n) in zip(panels.flat, itertools.product(PHASES, threads), strict=True):
        own = [row for row in rows if (row["phase"], row["threads"]) == (phase, n)][::-1]
        left = [0.0] * len(own)
        for part, color in zip(Seconds._fields, OKABE_ITO, strict=False):
            # Shares of the median iteration, so that the length of a bar agrees with its steps/s.
            shares = [row[f"{part} (s)"] / sum(row[f"{p} (s)"] for p in Seconds._fields) for row in own]
            widths = [1e6 / row["steps/s"] * share for row, share in zip(own, shares, strict=True)]
            axes.barh([row["agent"] for row in own], widths, left=left, color=color, label=part)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, row in enumerate(own):
            axes.annotate(f" {row['steps/s']:,.0f} steps/s", (left[y], y), va="center", fontsize=8)
        axes.set_xlim(0, 1.25 * max(1e6 / row["steps/s"] for row in rows))
        axes.set_xlabel("time of an environment step [microseconds]")
        axes.set_title(f"{MAZE}, {phase}, {n} thread{'s' * (n > 1)}", loc="left")
    panels[0, 0].legend(loc="lower right")
    return figure


def main() -> None:
    """Measure, and write the report."""
    args = make_parser(__doc__).parse_args()
    report = make_report("benchmarks.speed.training", "Speed of training", args, measure)
    rows = report.tables["Training"]
    report.notes = make_notes(QUICK if args.quick else Sizes())
    report.summaries = [summarize(rows)]
    report.print()
    report.write(args.out, plot(rows))


if __name__ == "__main__":
    main()

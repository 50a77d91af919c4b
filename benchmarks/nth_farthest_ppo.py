"""Nth Farthest as reinforcement learning: PPO is told whether its one answer was right, and nothing else.

    python benchmarks/nth_farthest_ppo.py                       # every run that has no result yet: an hour
    python benchmarks/nth_farthest_ppo.py --only whole-rmc      # some of them
    python benchmarks/nth_farthest_ppo.py --report              # the table and the picture of what there is
    python benchmarks/nth_farthest_ppo.py --quick               # does it run? a minute

A run is `python train/ppo.py` with the flags in `RUNS`, then `python train/evaluate.py` on 20,000 fresh
episodes. It can be stopped at any time: the same command goes on where it was. What a run gave is kept in
results/nth_farthest_ppo/NAME.json.
"""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

from common import ROOT, Machine, Report, Row, kept_results, parse_study, prepare, run_script
from matplotlib.figure import Figure

from rmc_agents.checkpoint import write_json
from rmc_agents.curves import read_log, success_curve
from rmc_agents.palette import FAINT, styles
from rmc_agents.results import read_evaluation

ENV = "rmc/NthFarthest-v0"
EPISODES, POINTS, WINDOW = 20_000, 100, 10

SETTINGS = (
    *("--num-envs", "256", "--num-steps", "24", "--bptt-length", "24", "--minibatch-size", "768"),
    *("--epochs", "2", "--entropy-coef-end", "0"),
)
"""Of every run. Episodes have 3, 4 or 8 steps, so that a chunk of 24 is whole episodes."""
CREDIT = {
    "": ("--gamma", "0", "--gae-lambda", "0", "--learning-rate", "3e-4"),
    "-gamma1": ("--gamma", "1", "--learning-rate", "1e-3"),
}
"""By the end of a run's name: only the answer gets credit for its reward; or every action of the episode, of
which all but the answer do nothing. The first was found on the paper's task with RMC and seed 1."""
TASKS = {
    "small": ("--env-options", "num_objects=3", "num_dims=2", "--total-steps", "2e6"),
    "middle": ("--env-options", "num_objects=4", "num_dims=2", "--total-steps", "4e6"),
    "whole": ("--total-steps", "4e6"),
}
"""Three and four objects of two dimensions, and the paper's task."""
CHANCE = {"small": (1 / 3, 2 / 3), "middle": (1 / 4, 2 / 4), "whole": (1 / 8, 2 / 8)}
"""A guess; and what takes no relation between vectors (see `envs.NthFarthest`)."""
CORES = {
    "rmc": ("num_slots=8", "num_heads=4", "head_size=16"),
    "lstm": ("hidden_size=105",),
    "dnc": ("hidden_size=61", "num_rows=16", "row_size=32", "num_reads=4"),
}
"""About as many parameters each."""
SEED = 11
RUNS = {
    f"{task}-{core}{credit}": (*TASKS[task], *CREDIT[credit], "--core", core, "--core-options", *CORES[core])
    for credit in CREDIT
    for task in TASKS
    for core in CORES
}
QUICK = ("--num-envs", "32", "--total-steps", "768")


def main() -> None:
    args = parse_study(__doc__, RUNS, ROOT / "runs" / "nth-farthest-ppo")
    machine = prepare(args)
    kept, runs = args.out / "nth_farthest_ppo", args.out / "runs" if args.quick else args.runs
    for name in args.only or RUNS:
        if not args.report and not (kept / f"{name}.json").exists():
            make(name, runs / name, kept, machine, args.quick)
    results = kept_results(kept, RUNS)
    report(results, machine).write(args.out, draw(results))


def make(name: str, run_dir: Path, kept: Path, machine: Machine, quick: bool) -> None:
    """Train, or go on training, and keep what came of it."""
    flags = ["--env", ENV, *SETTINGS, *RUNS[name], "--seed", str(SEED), *(QUICK if quick else ())]
    threads = ["--threads", str(machine.facts["torch threads"][0])]
    run_script(["train/ppo.py", *flags, *threads, "--run-dir", str(run_dir), "--auto-resume"])
    episodes = "100" if quick else str(EPISODES)
    run_script(["train/evaluate.py", str(run_dir), "--episodes", episodes, "--no-gif", "--no-report"])
    log, entry = read_log(run_dir), read_evaluation(run_dir)[ENV]
    curve = success_curve(log, ENV)
    assert curve is not None
    smoothed, every = curve.smoothed(WINDOW), max(len(curve.steps) // POINTS, 1)
    points = list(zip(smoothed.steps, smoothed.values, strict=True))
    result = {
        "command": shlex.join(["python", "train/ppo.py", *flags]),
        "steps": int(curve.steps[-1]),
        "seconds": round(float(log["time/total_seconds"].values[-1]), 1),
        "accuracy": entry["success_rate"],
        "ci95": entry["success_ci95"],
        "episodes": entry["episodes"],
        "curve": [[int(step), round(float(right), 4)] for step, right in points[every - 1 :: every]],
        "machine": machine.facts,
    }
    write_json(kept / f"{name}.json", result)


def gamma(name: str) -> str:
    """Of a run, as its flags have it."""
    return RUNS[name][RUNS[name].index("--gamma") + 1]


def report(results: dict[str, dict[str, Any]], machine: Machine) -> Report:
    tables: dict[str, list[Row]] = {}
    titles = {
        "small": "Three objects, two dimensions",
        "middle": "Four objects, two dimensions",
        "whole": "The paper's task: eight objects, sixteen dimensions",
    }
    for name, result in results.items():
        task, core, *_ = name.split("-")
        low, high = result["ci95"]
        row: Row = {
            "core": core,
            "gamma": gamma(name),
            "steps (M)": result["steps"] / 1e6,
            "minutes": result["seconds"] / 60,
            "right": f"{result['accuracy']:.4f}",
            "95 %": f"[{low:.4f}, {high:.4f}]",
            "a guess": f"{CHANCE[task][0]:.3f}",
            "without relations": f"{CHANCE[task][1]:.3f}",
        }
        tables.setdefault(titles[task], []).append(row)
    made = Report("nth_farthest_ppo", machine, tables)
    made.notes = [
        f"Reward 1 for the right answer at the last object. {EPISODES:,} fresh episodes, the most likely "
        "action, 95 % intervals (Wilson); one seed.",
        "PPO has no aids here: no hints, no levels, no answers in between, no Muon.",
        "With gamma 0 only the answer gets credit for its reward (learning rate 3e-4), with gamma 1 every "
        "action of the episode (1e-3).",
        "About as many parameters for every core (130,000 to 135,000 in all), and the same settings.",
        *(f"`{result['command']}`" for result in results.values()),
    ]
    missing = [name for name in RUNS if name not in results]
    if missing:
        made.notes.append(f"Not made yet: {', '.join(missing)}.")
    made.print()
    return made


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Learning curves, a panel for each task that has any."""
    tasks = [task for task in TASKS if any(name.startswith(f"{task}-") for name in results)] or ["whole"]
    figure = Figure(figsize=(5.5 * len(tasks), 4), layout="constrained")
    look = styles(CORES)
    for task, axes in zip(tasks, figure.subplots(1, len(tasks), squeeze=False)[0], strict=True):
        for core, credit in itertools.product(CORES, CREDIT):
            name = f"{task}-{core}{credit}"
            if name in results:
                steps, shares = zip(*results[name]["curve"], strict=True)
                colour, marker = look[core]
                axes.plot(
                    [s / 1e6 for s in steps],
                    shares,
                    color=colour,
                    marker=marker,
                    markevery=12,
                    linestyle="--" if credit else "-",
                    label=f"{core}, gamma {gamma(name)}",
                )
        for level, style in zip(CHANCE[task], (":", "--"), strict=True):
            axes.axhline(level, color=FAINT, linewidth=1, linestyle=style)
        axes.set(
            title=f"PPO, {task} task", xlabel="steps (millions)", ylabel="right in training", ylim=(0, 1)
        )
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()

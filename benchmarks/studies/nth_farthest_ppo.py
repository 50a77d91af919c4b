"""Nth Farthest as reinforcement learning: PPO learns only from whether its one answer was right.

    python -m benchmarks.studies.nth_farthest_ppo                   # all runs without a result: an hour
    python -m benchmarks.studies.nth_farthest_ppo --only whole-rmc  # some of them
    python -m benchmarks.studies.nth_farthest_ppo --report          # table and picture from stored results
    python -m benchmarks.studies.nth_farthest_ppo --quick           # tiny runs: a few minutes

A run is `python train/ppo.py` with the flags in `RUNS`, then `python train/evaluate.py` on 20,000 fresh
episodes. Its result is stored in results/nth_farthest_ppo/NAME.json. The study can be stopped at any time:
the same command resumes it.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common import (
    ROOT,
    make_study_parser,
    prepare,
    run_script,
    stored_results,
    study_machine,
    with_current_flags,
)
from benchmarks.report import CORE_NAMES, Report, Row, Summary, with_interval
from rmc_agents.evaluation.curves import read_log, success_curve
from rmc_agents.evaluation.results import read_evaluation
from rmc_agents.plots.style import FAINT, styles
from rmc_agents.runs.files import write_json

ENV = "rmc/NthFarthest-v0"
EPISODES, POINTS, WINDOW = 20_000, 100, 10
"""Episodes of the evaluation; points of a stored curve, at most about; rollouts that a point averages."""

SETTINGS = (
    *("--num-envs", "256", "--num-steps", "24", "--bptt-length", "24", "--minibatch-size", "768"),
    *("--epochs", "2", "--entropy-coef-end", "0"),
)
"""Flags of every run. Episodes have 3, 4 or 8 steps, so that a chunk of 24 consists of whole episodes."""
CREDIT = {
    "": ("--gamma", "0", "--gae-lambda", "0", "--learning-rate", "3e-4"),
    "-gamma1": ("--gamma", "1", "--learning-rate", "1e-3"),
}
"""Flags by the ending of a run's name. Either only the answer is credited with its reward, or every action of
the episode is, although all but the answer have no effect. The first were found on the paper's task with RMC
and seed 1."""
TASKS = {
    "small": ("--env-options", "num_objects=3", "num_dims=2", "--total-steps", "2e6"),
    "middle": ("--env-options", "num_objects=4", "num_dims=2", "--total-steps", "4e6"),
    "whole": ("--total-steps", "4e6"),
}
"""Flags by task."""
TITLES = {
    "small": "Three objects, two dimensions",
    "middle": "Four objects, two dimensions",
    "whole": "Paper's task: eight objects, sixteen dimensions",
}
CHANCE = {"small": 1 / 3, "middle": 1 / 4, "whole": 1 / 8}
"""Accuracy of guessing."""
NO_RELATION = {"small": 2 / 3, "middle": 2 / 4, "whole": 2 / 8}
"""Accuracy without relating vectors to each other (see `rmc_envs.NthFarthest`)."""
CORES = {
    "rmc": ("num_slots=8", "num_heads=4", "head_size=16"),
    "lstm": ("hidden_size=105",),
    "dnc": ("hidden_size=61", "num_rows=16", "row_size=32", "num_reads=4"),
}
"""Options of each core; agents have about the same number of parameters."""
SEED = 11
RUNS = {
    f"{task}-{core}{credit}": (*TASKS[task], *CREDIT[credit], "--core", core, "--core-options", *CORES[core])
    for credit in CREDIT
    for task in TASKS
    for core in CORES
}
"""Flags of each run, by its name."""
QUICK = ("--num-envs", "32", "--total-steps", "768")

Result = dict[str, Any]
"""The stored result of one run."""


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    parser = make_study_parser(__doc__, ROOT / "runs" / "nth-farthest-ppo")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), metavar="NAME", help="make only these runs")
    args = parser.parse_args()
    machine = prepare(args)
    folder, runs = args.out / "nth_farthest_ppo", args.out / "runs" if args.quick else args.runs
    missing = [name for name in args.only or RUNS if not (folder / f"{name}.json").exists()]
    for name in () if args.report else missing:
        make_run(name, runs / name, folder, machine, args.quick)
    results = stored_results(folder, RUNS)
    machine = study_machine(args, "nth_farthest_ppo", machine, bool(missing) and not args.report)
    report = make_report(results, machine)
    report.print()
    report.write(args.out, draw(results))


def make_run(name: str, run_dir: Path, folder: Path, machine: Row, quick: bool) -> None:
    """Train and evaluate, from where an earlier call stopped, and store the result."""
    flags = ["--env", ENV, *SETTINGS, *RUNS[name], "--seed", str(SEED), *(QUICK if quick else ())]
    threads = ["--threads", str(machine["torch threads"][0]), "--processes", "1"]
    run_script(["train/ppo.py", *flags, *threads, "--run-dir", str(run_dir), "--auto-resume"])
    episodes = "100" if quick else str(EPISODES)
    run_script(["train/evaluate.py", str(run_dir), "--episodes", episodes, "--no-gif", "--no-report"])
    log, figures = read_log(run_dir), read_evaluation(run_dir)[ENV].figures
    curve = success_curve(log, ENV)
    assert curve is not None
    smoothed, every = curve.smoothed(WINDOW), max(len(curve.steps) // POINTS, 1)
    points = list(zip(smoothed.steps, smoothed.values, strict=True))
    result = {
        "command": shlex.join(["python", "train/ppo.py", *flags]),
        "steps": int(curve.steps[-1]),
        "seconds": round(float(log["time/total_seconds"].values[-1]), 1),
        "accuracy": figures.success_rate,
        "ci95": figures.success_ci95,
        "episodes": figures.episodes,
        "curve": [[int(step), round(float(share), 4)] for step, share in points[every - 1 :: every]],
        "machine": machine,
    }
    write_json(folder / f"{name}.json", result)


def gamma_of(name: str) -> str:
    """Return a run's discount, as its flags have it."""
    return RUNS[name][RUNS[name].index("--gamma") + 1]


def make_report(results: Mapping[str, Result], machine: Row) -> Report:
    """Return the report of the runs that were made."""
    tables: dict[str, list[Row]] = {}
    for name, result in results.items():
        task, core, *_ = name.split("-")
        low, high = result["ci95"]
        row: Row = {
            "core": core,
            "gamma": gamma_of(name),
            "steps (M)": result["steps"] / 1e6,
            "minutes": result["seconds"] / 60,
            "accuracy": f"{result['accuracy']:.4f}",
            "95 % interval": f"[{low:.4f}, {high:.4f}]",
            "chance": f"{CHANCE[task]:.3f}",
            "without relations": f"{NO_RELATION[task]:.3f}",
        }
        tables.setdefault(TITLES[task], []).append(row)
    notes = [
        f"The reward is 1 for the right answer at the last object. Accuracy: {EPISODES:,} fresh episodes, "
        "the most likely action, 95 % intervals (Wilson); one seed.",
        "PPO has no auxiliary losses, no levels and no Muon here.",
        "Without relations: the accuracy that needs no relation between vectors.",
        "With gamma 0 only the answer is credited with its reward (learning rate 3e-4), with gamma 1 every "
        "action of the episode (1e-3).",
        "Agents have about the same number of parameters (130,000 to 135,000) and the same settings.",
    ]
    missing = [name for name in RUNS if name not in results]
    if missing:
        notes.append(f"Not made yet: {', '.join(missing)}.")
    report = Report(
        "benchmarks.studies.nth_farthest_ppo",
        "PPO on Nth Farthest: from rewards alone",
        machine,
        tables,
        notes,
    )
    if results:
        report.summaries = [summarize(results)]
        report.sections["Commands"] = "\n".join(
            f"- {name}: `{with_current_flags(result['command'])}`" for name, result in results.items()
        )
    return report


def summarize(results: Mapping[str, Result]) -> Summary:
    """Return the accuracy of every core, a row for each task and discount."""
    rows: list[Row] = []
    for task, credit in itertools.product(TASKS, CREDIT):
        found = {core: results.get(f"{task}-{core}{credit}") for core in CORES}
        steps = [result["steps"] for result in found.values() if result is not None]
        if not steps:
            continue
        row: Row = {
            "task": TITLES[task],
            "without relations": f"{NO_RELATION[task]:.3f}",
            "gamma": gamma_of(f"{task}-rmc{credit}"),
        }
        for core, result in found.items():
            rate = "" if result is None else with_interval(result["accuracy"], result["ci95"])
            row[CORE_NAMES[core]] = rate
        rows.append(row | {"environment steps (M)": f"{max(steps) / 1e6:.1f}"})
    return Summary("ppo", "Cores", rows, "Accuracy with its 95 % interval; one seed each.")


def draw(results: Mapping[str, Result]) -> Figure:
    """Draw learning curves, with a panel for each task that has any."""
    tasks = [task for task in TASKS if any(name.startswith(f"{task}-") for name in results)] or ["whole"]
    figure = Figure(figsize=(5.5 * len(tasks), 4), layout="constrained")
    looks = styles(CORES)
    for task, axes in zip(tasks, figure.subplots(1, len(tasks), squeeze=False)[0], strict=True):
        for core, credit in itertools.product(CORES, CREDIT):
            name = f"{task}-{core}{credit}"
            if name in results:
                steps, shares = zip(*results[name]["curve"], strict=True)
                color, marker = looks[core]
                axes.plot(
                    [step / 1e6 for step in steps],
                    shares,
                    color=color,
                    marker=marker,
                    markevery=12,
                    linestyle="--" if credit else "-",
                    label=f"{core}, gamma {gamma_of(name)}",
                )
        for level, style in ((CHANCE[task], ":"), (NO_RELATION[task], "--")):
            axes.axhline(level, color=FAINT, linewidth=1, linestyle=style)
        axes.set(
            title=f"PPO, {TITLES[task].partition(':')[0].lower()}",
            xlabel="environment steps (millions)",
            ylabel="accuracy in training",
            ylim=(0, 1),
        )
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()

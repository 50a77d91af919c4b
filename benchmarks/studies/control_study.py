"""Studies of control: make the runs that have no result yet, and report all results.

Our runs are `python train/ppo.py` with the preset of the task, then `python train/evaluate.py`. Results are
stored in results/STUDY/RUN.json.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.common import ROOT, make_study_parser, prepare, run_script, stored_results, study_machine
from benchmarks.report import CORE_NAMES, Report, Row
from benchmarks.studies.control_runs import Job, Study
from benchmarks.studies.control_sb3 import train_and_evaluate
from rmc_agents.evaluation.curves import Curve, band, read_log
from rmc_agents.evaluation.results import read_evaluation
from rmc_agents.plots.style import styles
from rmc_agents.runs.files import write_json

EPISODES, POINTS = 100, 100
"""Episodes of an evaluation; points of a stored learning curve, at most about."""
QUICK_STEPS = 2048
COLUMNS = 3
"""Panels side by side."""
MOST_NAMES = 8
"""Names of agents that fit into a panel."""
RETURNS = "rollout/ep_rew_mean"
"""Logged mean return of the episodes that ended in a rollout."""

Result = dict[str, Any]
"""The stored result of one run."""


def main(study: Study, doc: str | None) -> None:
    """Make the runs of a study that have no result yet, and write the report."""
    parser = make_study_parser(doc, ROOT / "runs" / study.name.replace("_", "-"))
    seeds = sorted({job.seed for job in study.jobs.values()})
    parser.add_argument("--tasks", nargs="+", choices=list(study.tasks), default=list(study.tasks))
    parser.add_argument("--agents", nargs="+", choices=study.agents, default=study.agents)
    parser.add_argument("--seeds", nargs="+", type=int, choices=seeds, default=seeds)
    parser.add_argument("--steps", type=int, help="steps of every run, for a trial; give --out, too")
    args = parser.parse_args()
    if args.steps is not None and args.out is None:
        parser.error("--steps is for trials: give --out, so that they are not stored among the results")
    machine = prepare(args)
    jobs = [] if args.report else _chosen(study, args)
    folder, runs = args.out / study.name, args.out / "runs" if args.quick else args.runs
    missing = [job for job in jobs if not (folder / f"{job.name}.json").exists()]
    missing = [job for job in missing if can_be_made(study, job, runs)]
    for job in missing:
        result = make_run(study, job, runs, QUICK_STEPS if args.quick else args.steps, machine, args.quick)
        write_json(folder / f"{job.name}.json", result)
    results = stored_results(folder, study.jobs)
    machine = study_machine(args, study.name, machine, bool(missing))
    report = make_report(study, results, machine)
    report.print()
    report.write(args.out, draw(study, results))


def _chosen(study: Study, args: argparse.Namespace) -> list[Job]:
    """Return the runs that the flags ask for; with --quick, the first two kinds of agents on one task."""
    jobs = [
        job
        for job in study.jobs.values()
        if job.task in args.tasks and job.agent in args.agents and job.seed in args.seeds
    ]
    if not args.quick:
        return jobs
    return [job for job in jobs if job.agent in ("gru", "sb3") and job.seed == args.seeds[0]][:2]


def make_run(study: Study, job: Job, runs: Path, steps: int | None, machine: Row, quick: bool) -> Result:
    """Train and evaluate one agent, and return its result.

    Args:
        study: that of the run.
        job: the run.
        runs: folder of run folders.
        steps: environment steps, if not those of the study.
        machine: this machine, for the result.
        quick: whether only to see if it runs.
    """
    episodes = 2 if quick else EPISODES
    shared: Result = {"task": job.task, "agent": job.agent, "seed": job.seed, "machine": machine}
    task = study.tasks[job.task]
    if job.agent in study.sb3:
        steps = steps or study.settings_of(job).steps or task.steps
        return shared | train_and_evaluate(study, job, steps, episodes, quick)
    run_dir, task = runs / job.name, replace(task, steps=steps or task.steps)
    flags = [*task.flags, "--core", job.agent, *task.agents.get(job.agent, ()), "--seed", str(job.seed)]
    if not is_finished(run_dir, task.steps):
        run_script(["train/ppo.py", *flags, "--run-dir", str(run_dir), "--auto-resume"])
    command = ["train/evaluate.py", str(run_dir), "--episodes", str(episodes), "--no-gif", "--no-report"]
    run_script(command)
    log, figures = read_log(run_dir), read_evaluation(run_dir)[task.env_id].figures
    return shared | {
        "command": shlex.join(["python", "train/ppo.py", *flags]),
        "steps": int(log["time/total_seconds"].steps[-1]),
        "seconds": round(float(log["time/total_seconds"].values[-1]), 1),
        "mean_return": figures.mean_return,
        "return_ci95": figures.return_ci95,
        **({} if figures.success_rate is None else {"success_rate": figures.success_rate}),
        "episodes": figures.episodes,
        "curve": thinned(log[RETURNS]) if RETURNS in log else [],
    }


def is_finished(run_dir: Path, steps: int) -> bool:
    """Return whether a run has been trained for so many steps, here or on another machine."""
    if not (run_dir / "config.json").exists():
        return False
    seconds = read_log(run_dir).get("time/total_seconds")
    return seconds is not None and seconds.steps[-1] >= steps


def can_be_made(study: Study, job: Job, runs: Path) -> bool:
    """Return whether a run can be made here: it needs no GPU, there is one, or it was trained elsewhere."""
    task = study.tasks[job.task]
    return not task.gpu or torch.cuda.is_available() or is_finished(runs / job.name, task.steps)


def thinned(curve: Curve) -> list[list[float]]:
    """Return about `POINTS` points of a learning curve, each the mean return since the one before."""
    every = max(len(curve.steps) // POINTS, 1)
    smoothed = curve.smoothed(every)
    points = list(zip(smoothed.steps, smoothed.values, strict=True))[every - 1 :: every]
    return [[int(step), round(float(value), 2)] for step, value in points]


def steps_to(points: Sequence[Sequence[float]], level: float) -> int | None:
    """Return the first step of a learning curve at which the mean of three points is at a level, or None."""
    values = [value for _, value in points]
    for i in range(2, len(points)):
        if statistics.mean(values[i - 2 : i + 1]) >= level:
            return int(points[i][0])
    return None


def make_report(study: Study, results: Mapping[str, Result], machine: Row) -> Report:
    """Return the report of the runs that were made."""
    tables: dict[str, list[Row]] = {}
    for task, agent in ((task, agent) for task in study.tasks for agent in study.agents):
        found = _of(results, task, agent)
        if found:
            tables.setdefault(study.tasks[task].title, []).append(_row(study, task, agent, found))
    missing = [name for name in study.jobs if name not in results]
    notes = [
        f"Mean return of {EPISODES} fresh episodes for each seed, with the most likely action, after the "
        "last step of training. The 95 % interval is that of the mean over these seeds, from their episodes; "
        "how much other seeds may differ is seen from the lowest and the highest one.",
        *study.notes,
        "Runs were made on several machines, one of which is named below, and some beside other work: "
        "minutes of different rows do not compare.",
        *([f"Not made yet: {', '.join(missing)}."] if missing else []),
    ]
    report = Report(study.module, study.title, machine, tables, notes)
    if results:
        report.sections["Commands"] = "\n".join(f"- {n}: `{each['command']}`" for n, each in results.items())
    return report


def _of(results: Mapping[str, Result], task: str, agent: str) -> list[Result]:
    return [each for each in results.values() if (each["task"], each["agent"]) == (task, agent)]


def _row(study: Study, task: str, agent: str, found: Sequence[Result]) -> Row:
    """Return the row of the runs of one agent on one task."""
    returns, level = [each["mean_return"] for each in found], study.tasks[task].level
    row: Row = {
        "agent": name_of(study, agent),
        "seeds": len(found),
        "steps": f"{max(each['steps'] for each in found):,}",
        "mean return": _shown(statistics.mean(returns)),
        "95 % interval": _interval(found),
        "lowest seed": _shown(min(returns)),
        "highest seed": _shown(max(returns)),
        "minutes per run": f"{statistics.mean(each['seconds'] for each in found) / 60:.1f}",
    }
    solved = [each["success_rate"] for each in found if "success_rate" in each]
    if len(solved) == len(found):
        spread = f" ({min(solved):.3f} to {max(solved):.3f})" if len(solved) > 1 else ""
        row["success rate"] = f"{statistics.mean(solved):.3f}{spread}"
    if level is None:
        return row
    reached = [steps_to(each["curve"], level) for each in found]
    shown = ", ".join("never" if step is None else f"{step:,}" for step in reached)
    return row | {f"steps to {level:g} in training": shown}


def _interval(found: Sequence[Result]) -> str:
    """Return the interval of the mean over seeds, from those of the single runs."""
    halves = [(high - low) / 2 for each in found for low, high in [each["return_ci95"]]]
    mean = statistics.mean(each["mean_return"] for each in found)
    half = math.hypot(*halves) / len(halves)
    return f"{_shown(mean - half)} to {_shown(mean + half)}"


def _shown(mean_return: float) -> str:
    return f"{mean_return:.1f}" if abs(mean_return) >= 10 else f"{mean_return:.3f}"


def name_of(study: Study, agent: str) -> str:
    """Return the name of an agent in tables and figures."""
    return study.sb3.get(agent) or CORE_NAMES[agent]


def draw(study: Study, results: Mapping[str, Result]) -> Figure:
    """Draw the learning curves, with a panel for each task that has any."""
    tasks = [task for task in study.tasks if any(each["task"] == task for each in results.values())]
    columns = min(max(len(tasks), 1), COLUMNS)
    rows = max(math.ceil(len(tasks) / columns), 1)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    looks = styles(study.agents)
    for task, axes in zip(tasks, panels, strict=False):
        for agent in study.agents:
            curves = [
                Curve.of(*zip(*each["curve"], strict=True))
                for each in _of(results, task, agent)
                if each["curve"]
            ]
            if not curves:
                continue
            middle, color = band(curves), looks[agent][0]
            axes.plot(middle.steps / 1e3, middle.middle, color=color, label=name_of(study, agent))
            if middle.low is not None and middle.high is not None:
                axes.fill_between(middle.steps / 1e3, middle.low, middle.high, color=color, alpha=0.15)
        axes.set(
            title=textwrap.fill(study.tasks[task].title, 52),
            xlabel="environment steps (thousands)",
            ylabel="return in training",
        )
        # Many names would cover the curves.
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(axes.get_lines()) > MOST_NAMES else {}
        axes.legend(fontsize=8, **beside)
    for axes in figure.axes[len(tasks) :]:
        axes.set_visible(False)
    return figure

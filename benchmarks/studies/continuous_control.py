"""Control with hidden velocities: our cores and sb3-contrib's RecurrentPPO at equal steps.

    python -m benchmarks.studies.continuous_control                          # all runs without a result: days
    python -m benchmarks.studies.continuous_control --tasks pendulum --seeds 11
    python -m benchmarks.studies.continuous_control --report                 # from stored results
    python -m benchmarks.studies.continuous_control --quick                  # tiny runs: a minute

Our runs are `python train/ppo.py` with the task's preset, then `python train/evaluate.py`; RecurrentPPO has
the settings of rl-zoo3. Results are stored in results/continuous_control/RUN.json. The study can be stopped
at any time: the same command resumes it (a run of RecurrentPPO starts again).
"""

from __future__ import annotations

import argparse
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common import ROOT, make_study_parser, prepare, run_script, stored_results, study_machine
from benchmarks.report import CORE_NAMES, Report, Row
from benchmarks.studies.continuous_control_runs import AGENTS, JOBS, NAMES, SB3, SEEDS, TASKS, Job
from benchmarks.studies.continuous_control_sb3 import train_and_evaluate
from rmc_agents.evaluation.curves import Curve, band, read_log
from rmc_agents.evaluation.results import read_evaluation
from rmc_agents.plots.style import styles
from rmc_agents.runs.files import write_json

EPISODES, POINTS = 100, 100
"""Episodes of an evaluation; points of a stored learning curve, at most about."""
QUICK_STEPS = 2048

Result = dict[str, Any]
"""The stored result of one run."""


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    parser = make_study_parser(__doc__, ROOT / "runs" / "continuous-control")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--steps", type=int, help="steps of every run, for a trial; give --out, too")
    args = parser.parse_args()
    if args.steps is not None and args.out is None:
        parser.error("--steps is for trials: give --out, so that they are not stored among the results")
    machine = prepare(args)
    jobs = [] if args.report else _chosen(args)
    folder, runs = args.out / "continuous_control", args.out / "runs" if args.quick else args.runs
    missing = [job for job in jobs if not (folder / f"{job.name}.json").exists()]
    for job in missing:
        steps = QUICK_STEPS if args.quick else args.steps or TASKS[job.task].steps
        result = make_run(job, runs, steps, machine, args.quick)
        write_json(folder / f"{job.name}.json", result)
    results = stored_results(folder, JOBS)
    machine = study_machine(args, "continuous_control", machine, bool(missing))
    report = make_report(results, machine)
    report.print()
    report.write(args.out, draw(results))


def _chosen(args: argparse.Namespace) -> list[Job]:
    """Return the runs that the flags ask for; with --quick, the first two kinds of agents on one task."""
    jobs = [
        job
        for job in JOBS.values()
        if job.task in args.tasks and job.agent in args.agents and job.seed in args.seeds
    ]
    if not args.quick:
        return jobs
    return [job for job in jobs if job.agent in ("gru", SB3) and job.seed == args.seeds[0]][:2]


def make_run(job: Job, runs: Path, steps: int, machine: Row, quick: bool) -> Result:
    """Train and evaluate one agent, and return its result."""
    episodes = 2 if quick else EPISODES
    shared: Result = {"task": job.task, "agent": job.agent, "seed": job.seed, "machine": machine}
    if job.agent == SB3:
        return shared | train_and_evaluate(job, steps, episodes, quick)
    run_dir, env_id = runs / job.name, TASKS[job.task].env_id
    flags = ["--env", env_id, "--core", job.agent, "--total-steps", str(steps), "--seed", str(job.seed)]
    run_script(["train/ppo.py", *flags, "--run-dir", str(run_dir), "--auto-resume"])
    command = ["train/evaluate.py", str(run_dir), "--episodes", str(episodes), "--no-gif", "--no-report"]
    run_script(command)
    log, figures = read_log(run_dir), read_evaluation(run_dir)[env_id].figures
    curve = log["rollout/ep_rew_mean"]
    return shared | {
        "command": shlex.join(["python", "train/ppo.py", *flags]),
        "steps": int(log["time/total_seconds"].steps[-1]),
        "seconds": round(float(log["time/total_seconds"].values[-1]), 1),
        "mean_return": figures.mean_return,
        "return_ci95": figures.return_ci95,
        "episodes": figures.episodes,
        "curve": thinned(curve),
    }


def thinned(curve: Curve) -> list[list[float]]:
    """Return about `POINTS` points of a learning curve, each the mean return since the one before."""
    every = max(len(curve.steps) // POINTS, 1)
    smoothed = curve.smoothed(every)
    points = list(zip(smoothed.steps, smoothed.values, strict=True))[every - 1 :: every]
    return [[int(step), round(float(value), 2)] for step, value in points]


def name_of(agent: str) -> str:
    """Return the name of an agent in tables and figures."""
    return NAMES.get(agent) or CORE_NAMES[agent]


def make_report(results: Mapping[str, Result], machine: Row) -> Report:
    """Return the report of the runs that were made."""
    tables: dict[str, list[Row]] = {}
    for task, agent in ((task, agent) for task in TASKS for agent in AGENTS):
        found = [each for each in results.values() if (each["task"], each["agent"]) == (task, agent)]
        if not found:
            continue
        returns = [each["mean_return"] for each in found]
        row: Row = {
            "agent": name_of(agent),
            "seeds": len(found),
            "steps": f"{max(each['steps'] for each in found):,}",
            "mean return": f"{statistics.mean(returns):.1f}",
            "lowest seed": f"{min(returns):.1f}",
            "highest seed": f"{max(returns):.1f}",
            "minutes per run": f"{statistics.mean(each['seconds'] for each in found) / 60:.1f}",
        }
        tables.setdefault(TASKS[task].env_id, []).append(row)
    missing = [name for name in JOBS if name not in results]
    notes = [
        f"Mean return of {EPISODES} fresh episodes for each seed, with the most likely action, after the "
        "last step of training.",
        "Our agents have the presets of the tasks; RecurrentPPO has the settings of rl-zoo3's ppo_lstm.yml, "
        "which were tuned by the zoo for the task without velocities (Pendulum, CartPole) or for the full "
        "task (MuJoCo). The feedforward agent is the control without memory.",
        *([f"Not made yet: {', '.join(missing)}."] if missing else []),
    ]
    report = Report(
        "benchmarks.studies.continuous_control", "Control with hidden velocities", machine, tables, notes
    )
    if results:
        report.sections["Commands"] = "\n".join(f"- {n}: `{each['command']}`" for n, each in results.items())
    return report


def draw(results: Mapping[str, Result]) -> Figure:
    """Draw the learning curves, with a panel for each task that has any."""
    tasks = [task for task in TASKS if any(each["task"] == task for each in results.values())]
    figure = Figure(figsize=(5 * max(len(tasks), 1), 4), layout="constrained")
    looks = styles(AGENTS)
    for task, axes in zip(tasks, figure.subplots(1, max(len(tasks), 1), squeeze=False)[0], strict=False):
        for agent in AGENTS:
            found = [each for each in results.values() if (each["task"], each["agent"]) == (task, agent)]
            curves = [Curve.of(*zip(*each["curve"], strict=True)) for each in found if each["curve"]]
            if not curves:
                continue
            middle, colour = band(curves), looks[agent][0]
            axes.plot(middle.steps / 1e6, middle.middle, color=colour, label=name_of(agent))
            if middle.low is not None and middle.high is not None:
                axes.fill_between(middle.steps / 1e6, middle.low, middle.high, color=colour, alpha=0.15)
        axes.set(title=TASKS[task].env_id, xlabel="environment steps (millions)", ylabel="return in training")
        axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()

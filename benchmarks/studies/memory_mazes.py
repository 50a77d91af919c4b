"""Memory cores on memory mazes: which of them learn a maze, how fast, and how they do in longer mazes.

    python -m benchmarks.studies.memory_mazes                               # all runs without a result: hours
    python -m benchmarks.studies.memory_mazes --mazes S13 --cores rmc lstm  # some of them
    python -m benchmarks.studies.memory_mazes --report                      # the report from stored results
    python -m benchmarks.studies.memory_mazes --quick                       # one tiny run: half a minute

A run is `python train/ppo.py` with the maze's preset, then `python train/evaluate.py` on Farama's own maze.
Its result is stored in results/memory_mazes/RUN.json. The study can be stopped at any time: the same command
resumes it. The best RMC agent of each maze is exported to trained/.
"""

from __future__ import annotations

import json
import resource
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, make_study_parser, prepare, run_script, study_machine
from benchmarks.studies.memory_mazes_report import own_success, read_results, write_report
from benchmarks.studies.memory_mazes_runs import (
    CORES,
    EPISODES,
    LEARNED,
    LONGER,
    SEEDS,
    SUCCESS_TARGETS,
    Job,
    make_jobs,
)
from rmc_agents.agent.saved import export_agent
from rmc_agents.evaluation.curves import Curve, read_log, success_curve
from rmc_agents.evaluation.results import read_evaluation
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import read_config

RUNS = ROOT / "runs" / "memory-mazes"
TRAINED = ROOT / "trained"
POINTS, WINDOW = 150, 5
"""About how many points of a learning curve are stored, and over how many rollouts each is averaged."""


def main() -> None:
    """Make the runs that have no result yet, and write the report."""
    parser = make_study_parser(__doc__, RUNS)
    parser.add_argument("--mazes", nargs="+", default=[], help="such as S13, or S9v3 for view size 3")
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=list(CORES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    machine = prepare(args)
    results, runs = args.out / "memory_mazes", args.out / "runs" if args.quick else args.runs
    jobs = [] if args.report else make_jobs(args.mazes, args.cores, args.seeds)
    missing = [job for job in jobs if not (results / f"{job.name}.json").is_file()]
    for job in missing[:1] if args.quick else missing:
        make_run(job, results, runs, args.quick, args.threads[0])
    found = read_results(results)
    if not found:
        print(f"no results in {results} yet")
        return
    write_report(found, study_machine(args, "memory_mazes", machine, bool(missing)), args.out)


def make_run(job: Job, results: Path, runs: Path, quick: bool, threads: int = 1) -> dict[str, Any]:
    """Train and evaluate one agent, from where an earlier call stopped; store and return the result."""
    run_dir = runs / job.name
    budget = ["--total-steps", "8192"] if quick else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    flags = [*job.flags(), *budget, "--threads", str(threads), "--processes", "1"]
    run_script(["train/ppo.py", *flags, "--run-dir", str(run_dir), "--auto-resume"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    evaluation = ["train/evaluate.py", str(run_dir), "--no-gif", "--no-report"]
    evaluation += ["--episodes", "20" if quick else str(EPISODES)]
    run_script(evaluation)
    if (job.maze, job.view_size) == ("S13", 7):
        longer = ",".join(f"MiniGrid-Memory{maze}-v0" for maze in LONGER)
        run_script([*evaluation, "--env", longer])
    result = summarize(job, run_dir) | {"cpu_seconds": round(cpu, 1)}
    write_json(results / f"{job.name}.json", result)
    if job.core == "rmc" and not quick:
        export_best(job, run_dir, result)
    return result


def summarize(job: Job, run_dir: Path) -> dict[str, Any]:
    """Return everything about a run that tables and plots need."""
    log = read_log(run_dir)
    curve = success_curve(log, job.env_id)
    assert curve is not None
    stored = ("success_rate", "success_ci95", "mean_return", "mean_length", "episodes", "first_seed")
    stored += ("implementation", "deterministic", "hallway")
    entries = {env_id: entry.to_json() for env_id, entry in read_evaluation(run_dir).items()}
    every = max(len(curve.steps) // POINTS, 1)
    return {
        "maze": job.maze,
        "view_size": job.view_size,
        "core": job.core,
        "seed": job.seed,
        "command": shlex.join(["python", "train/ppo.py", *job.flags()]),
        "steps": int(curve.steps[-1]),
        "seconds": round(float(log["time/total_seconds"].values[-1]), 1),
        "steps_to_learn": steps_to(curve, LEARNED),
        "curve": {
            "steps": [int(x) for x in curve.steps[::every]],
            "success": [round(float(x), 4) for x in curve.smoothed(WINDOW).values[::every]],
        },
        "evaluation": {
            env_id: {name: entry[name] for name in stored if name in entry}
            for env_id, entry in entries.items()
        },
        "versions": read_config(run_dir)["versions"],
    }


def steps_to(curve: Curve, rate: float) -> int | None:
    """Return the step from which on the smoothed success rate stays at `rate` or above, to the end.

    The first step that reaches it may come too early: at the start of a curriculum a rollout may hold two
    episodes of the maze, both solved by guessing.
    """
    smoothed = curve.smoothed(WINDOW)
    below = np.flatnonzero(smoothed.values < rate)
    first = int(below[-1]) + 1 if len(below) else 0
    return int(smoothed.steps[first]) if first < len(smoothed.steps) else None


def export_best(job: Job, run_dir: Path, result: dict[str, Any]) -> None:
    """Export an RMC agent to trained/ if it reaches the target and is the best so far in its maze."""
    name = f"memory-{job.maze.lower()}" + ("" if job.view_size == 7 else f"-view{job.view_size}")
    folder, success = TRAINED / name, own_success(result)
    about = folder / "about.json"
    if about.is_file() and json.loads(about.read_text())["success_rate"] >= success:
        return
    if success >= SUCCESS_TARGETS[job.maze, job.view_size]:
        export_agent(run_dir, folder)
        write_json(about, {"command": result["command"], "success_rate": success, "steps": result["steps"]})


if __name__ == "__main__":
    main()

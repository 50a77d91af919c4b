"""Tables and plots of the memory-maze study."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.report import CORE_NAMES, Report, Row, Summary, target
from benchmarks.studies.memory_mazes_runs import (
    COMPARED,
    CORES,
    EPISODES,
    FLAGS,
    LASTING_TARGETS,
    LEARNED,
    LONGER,
    LONGER_TARGETS,
    RMC_OPTIONS,
    SUCCESS_TARGETS,
)
from rmc_agents.evaluation.curves import Curve
from rmc_agents.evaluation.statistics import interquartile_mean, iqm_interval
from rmc_agents.plots.learning import Point, learning_curves, success_by_hallway
from rmc_agents.plots.style import save
from rmc_envs import MazeSpec

Result = dict[str, Any]
"""The stored result of one run."""


def read_results(folder: Path) -> list[Result]:
    """Return the results of all runs that were made."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def success_in(result: Result, maze: str) -> float:
    """Return the success rate of a run in a maze."""
    return result["evaluation"][f"MiniGrid-Memory{maze}-v0"]["success_rate"]


def own_success(result: Result) -> float:
    """Return the success rate of a run in the maze that it was trained for."""
    return success_in(result, result["maze"])


def group(results: Sequence[Result]) -> dict[tuple[str, int, str], list[Result]]:
    """Return the results by maze, view size and core, in the order of the study."""
    keys = [(maze, view, core) for maze, view in SUCCESS_TARGETS for core in CORES]
    by_key = {key: [r for r in results if (r["maze"], r["view_size"], r["core"]) == key] for key in keys}
    return {key: runs for key, runs in by_key.items() if runs}


def steps_to_learn(runs: Sequence[Result]) -> list[int]:
    """Return the steps that each run needed to learn its maze; runs that did not learn it are left out."""
    return [run["steps_to_learn"] for run in runs if run["steps_to_learn"] is not None]


def maze_table(results: Sequence[Result]) -> list[Row]:
    """Return a row for each maze and core."""
    rows: list[Row] = []
    for (maze, view, core), runs in group(results).items():
        rates = [own_success(run) for run in runs]
        interval = iqm_interval([rates])
        learned = steps_to_learn(runs)
        rows.append(
            {
                "maze": maze,
                "view size": view,
                "core": core,
                "seeds": ", ".join(str(run["seed"]) for run in runs),
                "success rate, mean": statistics.mean(rates),
                "IQM [95 %]": f"{interquartile_mean([rates]):.3f}"
                + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"),
                "each seed": ", ".join(f"{rate:.3f}" for rate in rates),
                f"reached {LEARNED}": f"{len(learned)} of {len(runs)}",
                f"steps to {LEARNED}, median": statistics.median(learned) if learned else None,
                "steps, median": statistics.median(run["steps"] for run in runs),
                "wall time (s), median": statistics.median(run["seconds"] for run in runs),
                "CPU time (s), median": statistics.median(run["cpu_seconds"] for run in runs),
            }
        )
    return rows


def longer_table(results: Sequence[Result]) -> list[Row]:
    """Return success rates in longer mazes of agents trained for S13: a row for each core, means of seeds."""
    return [
        {"core": core, "seeds": len(runs)}
        | {name: statistics.mean(success_in(run, name) for run in runs) for name in ("S13", *LONGER)}
        for (maze, view, core), runs in group(results).items()
        if (maze, view) == ("S13", 7)
    ]


def target_table(results: Sequence[Result]) -> list[Row]:
    """Return the targets of the study, and whether they were reached."""
    by_key = group(results)

    def mean(maze: str, view: int, core: str, evaluated_in: str) -> float | None:
        rates = [success_in(run, evaluated_in) for run in by_key.get((maze, view, core), [])]
        return statistics.mean(rates) if rates else None

    rows = [
        target(f"RMC in {maze}, view size {view}: success rate", mean(maze, view, "rmc", maze), at_least=rate)
        for (maze, view), rate in SUCCESS_TARGETS.items()
    ]
    rows += [
        target(f"RMC trained up to S13, in {maze}: success rate", mean("S13", 7, "rmc", maze), at_least=rate)
        for maze, rate in LONGER_TARGETS.items()
    ]
    rows += [
        target(f"{CORE_NAMES[core]}, in {maze}: success rate", mean("S13", 7, core, maze), at_least=rate)
        for core, rates in LASTING_TARGETS.items()
        for maze, rate in rates.items()
    ]
    rows += [
        target(
            f"feedforward in {maze}, view size {view}: success rate",
            mean(maze, view, "feedforward", maze),
            at_most=0.55,
        )
        for maze, view in COMPARED
    ]
    runs = by_key.get(("S13", 7, "rmc"), [])
    # A seed that did not learn the maze counts as slower than all others.
    steps = [run["steps_to_learn"] or float("inf") for run in runs]
    minutes = [run["seconds"] / 60 for run in runs]
    return [
        *rows,
        target(
            f"RMC in S13: millions of steps to {LEARNED}, median of seeds",
            statistics.median(steps) / 1e6 if steps else None,
            at_most=2.5,
        ),
        target(
            "RMC in S13: minutes of training (wall time), median of seeds",
            statistics.median(minutes) if minutes else None,
            at_most=6,
        ),
    ]


def summarize_mazes(results: Sequence[Result]) -> Summary:
    """Return RMC's results in every maze, seed by seed."""
    rows: list[Row] = []
    for (maze, view, core), runs in group(results).items():
        if core == "rmc":
            seeds = ", ".join(str(run["seed"]) for run in runs)
            rows.append(
                {
                    "maze": f"Memory{maze}",
                    "view size": str(view),
                    "seeds": seeds,
                    "success rate": ", ".join(f"{own_success(run):.3f}" for run in runs),
                    "environment steps (M)": ", ".join(f"{run['steps'] / 1e6:.2f}" for run in runs),
                    "training, wall time (s)": ", ".join(f"{run['seconds']:.0f}" for run in runs),
                }
            )
    return Summary("mazes", "RMC in every maze", rows)


def summarize_cores(results: Sequence[Result]) -> Summary:
    """Return each core's success rates in the mazes that compare cores, and in longer ones."""
    by_key, rows = group(results), []
    for core in CORES:
        row: Row = {"core": CORE_NAMES[core]}
        for maze, view in COMPARED:
            runs = by_key.get((maze, view, core), [])
            learned = steps_to_learn(runs)
            rate = f"{statistics.mean(map(own_success, runs)):.3f}" if runs else ""
            steps = f", {statistics.median(learned) / 1e6:.2f} M" if learned else ""
            row[f"Memory{maze}" + ("" if view == 7 else f", view size {view}")] = rate + steps
        runs = by_key.get(("S13", 7, core), [])
        for maze in LONGER:
            rates = [success_in(run, maze) for run in runs]
            row[f"S13 agent in {maze}"] = f"{statistics.mean(rates):.3f}" if rates else ""
        if any(value for name, value in row.items() if name != "core"):
            rows.append(row)
    note = (
        "Mean success rate over seeds, and the median number of environment steps to a success rate of "
        f"{LEARNED} in training. Agents at view size 7 have the same number of parameters within 1 % (those "
        "of RMC with coupled gates 5 % fewer). Trained to last: with "
        f"`{shlex.join(FLAGS['delta_rmc-lasting'])}`, an RMC with `{shlex.join(FLAGS['rmc-lasting'])}`. The "
        f"last {len(LONGER)} columns show agents that were trained for MemoryS13, without further training."
    )
    return Summary("cores", "Cores", rows, note)


def draw(results: Sequence[Result], folder: Path) -> list[str]:
    """Draw learning curves of the mazes that compare cores, and success by hallway; return the file names."""
    figures: dict[str, Figure] = {}
    by_key = group(results)
    for maze, view in COMPARED:
        curves = {
            core: [Curve.of(run["curve"]["steps"], run["curve"]["success"]) for run in runs]
            for (m, v, core), runs in by_key.items()
            if (m, v) == (maze, view)
        }
        if curves:
            title = f"Memory{maze}, view size {view}"
            figures[f"memory_mazes-{maze.lower()}-view{view}"] = learning_curves(curves, title)
    points = {
        core: [
            [
                Point(entry["hallway"], entry["success_rate"], tuple(entry["success_ci95"]))
                for entry in run["evaluation"].values()
            ]
            for run in runs
        ]
        for (maze, view, core), runs in by_key.items()
        if (maze, view) == ("S13", 7)
    }
    if points:
        specs = [MazeSpec(int(maze[1:])) for maze in ("S13", *LONGER)]
        hallways = {spec.hallway_length: f"S{spec.size}" for spec in specs if spec.hallway_length}
        figures["memory_mazes-longer"] = success_by_hallway(
            points, hallways, "trained for MemoryS13", min(hallways)
        )
    for name, figure in figures.items():
        save(figure, folder / name)
    return list(figures)


NOTES = [
    "Every run: `python train/ppo.py` with the preset of its maze (rmc_agents/cli/presets.py) and the flags "
    "below; one process (`--processes 1`), one thread. Settings were chosen with RMC on seeds 0 to 3.",
    f"Success rate: share of {EPISODES} episodes with unseen seeds on Farama's own MiniGrid, with the most "
    "likely action. Longer mazes: agents trained for S13, without further training, in our batched mazes, "
    "which equal Farama's bit for bit.",
    f"Steps to {LEARNED}: the step from which on the mean success rate of five rollouts, with drawn actions, "
    "stays there.",
    "Agents at view size 7 have the same number of parameters within 1 % (RMC with coupled gates 5 % fewer): "
    + ", ".join(
        " ".join([core, options or RMC_OPTIONS, *FLAGS.get(core, ())]) for core, options in CORES.items()
    )
    + ".",
    "Wall time was measured on a machine that did other work at the same time. CPU time is the process's "
    "own, including its start and end.",
    "IQM: interquartile mean over seeds, with its bootstrap interval (Agarwal et al. 2021). Of three seeds "
    "it is their mean, and the interval is their range.",
]


def write_report(results: Sequence[Result], machine: Row, folder: Path) -> None:
    """Print the tables, and write report and plots of the given results."""
    tables = {
        "Targets": target_table(results),
        "Mazes and cores": maze_table(results),
        "Longer mazes": longer_table(results),
    }
    report = Report(
        "benchmarks.studies.memory_mazes",
        "Memory cores on memory mazes",
        machine,
        {title: rows for title, rows in tables.items() if rows},
        NOTES,
    )
    report.summaries = [each for each in (summarize_mazes(results), summarize_cores(results)) if each.rows]
    pictures = draw(results, folder)
    if pictures:
        report.sections["Plots"] = "\n\n".join(f"![{name}]({name}.png)" for name in pictures)
    report.sections["Commands"] = "\n".join(
        f"- {run['core']}, seed {run['seed']}: `{run['command']}`" for run in results
    )
    report.print()
    report.write(folder)

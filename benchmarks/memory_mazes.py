"""Memory cores on memory mazes: who learns them, how fast, and what is left in longer mazes.

    python benchmarks/memory_mazes.py                                # every run that has no result yet: hours
    python benchmarks/memory_mazes.py --mazes S13 --cores rmc lstm   # some of them
    python benchmarks/memory_mazes.py --report                       # tables and plots of what there is
    python benchmarks/memory_mazes.py --quick                        # does it run?

A run is `python train/ppo.py` with the maze's preset, then `python train/evaluate.py` on Farama's own maze.
Its figures are kept as results/memory_mazes/RUN.json, from which tables and plots are made, so that the study
may be stopped at any time and goes on with the same command. Runs go to runs/memory-mazes/; the best RMC
agent of each maze is kept, without what training needs, in trained/.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, ROOT, Machine, Report, Row, run_script, target
from matplotlib.figure import Figure

from envs import MazeSpec
from rmc_agents.checkpoint import export_agent, read_config, write_json
from rmc_agents.curves import Curve, read_log, success_curve
from rmc_agents.plots import Point, learning_curves, save, success_by_hallway
from rmc_agents.results import read_evaluation
from rmc_agents.statistics import interquartile_mean, iqm_interval

RUNS = ROOT / "runs" / "memory-mazes"
TRAINED = ROOT / "trained"

CORES = {
    "rmc": "",
    "lstm": "hidden_size=82 forget_bias=3",
    "gru": "hidden_size=98 update_bias=3",
    "rnn": "hidden_size=180",
    "feedforward": "hidden_size=308",
}
"""Core options with which agents at view size 7 have as many parameters as with RMC, within 1 %, and gates
that keep the memory at first, as RMC's do in the presets of these mazes."""
RMC_OPTIONS = "4 slots of 64, forget_bias=3 input_bias=-2 normalize_output=True (from the preset)"
COMPARED = (("S11", 7), ("S13", 7), ("S9", 3))
"""Mazes in which all cores are compared: none of their observations shows the cue and a choice together."""
MARKS = {
    ("S7", 7): 0.99,
    ("S9", 7): 0.99,
    ("S11", 7): 0.99,
    ("S13", 7): 0.99,
    ("S13Random", 7): 0.98,
    ("S17Random", 7): 0.98,
    ("S9", 3): 0.97,
    ("S11", 3): 0.97,
    ("S13", 3): 0.97,
}
"""What RMC is to reach by maze and view size: the mean over seeds of its success rate."""
ZERO_SHOT = {"S17": 0.95, "S25": 0.90, "S33": 0.80}
"""What RMC trained up to S13 is to reach in longer mazes that it has never seen."""
LONGER = (*ZERO_SHOT, "S65")
"""Where agents trained up to S13 are judged, too."""
SEEDS = (11, 12, 13)
"""None of them was used to choose settings."""
EPISODES = 1000
LEARNED = 0.95
POINTS, WINDOW = 150, 5


@dataclass(frozen=True)
class Job:
    """One run of the study."""

    maze: str
    view_size: int
    core: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.maze.lower()}-view{self.view_size}-{self.core}-s{self.seed}"

    @property
    def env_id(self) -> str:
        return f"MiniGrid-Memory{self.maze}-v0"

    def flags(self) -> list[str]:
        """Of train/ppo.py."""
        view = [] if self.view_size == 7 else ["--env-options", f"view_size={self.view_size}"]
        options = ["--core-options", *CORES[self.core].split()] if CORES[self.core] else []
        return ["--env", self.env_id, *view, "--core", self.core, *options, "--seed", str(self.seed)]


def jobs(mazes: Sequence[str], cores: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """RMC in every maze, the others where cores are compared; a seed of all before the next seed of any."""
    return [
        Job(maze, view, core, seed)
        for seed in seeds
        for maze, view in MARKS
        for core in CORES
        if core in cores and (not mazes or f"{maze}v{view}" in mazes or maze in mazes)
        if core == "rmc" or (maze, view) in COMPARED
    ]


def work(job: Job, results: Path, runs: Path, quick: bool) -> dict[str, Any]:
    """Train and judge one agent; what is already done is not done again."""
    run_dir = runs / job.name
    budget = ["--total-steps", "8192"] if quick else []
    train = ["train/ppo.py", *job.flags(), *budget, "--run-dir", str(run_dir), "--auto-resume"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_script(train)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    judge = ["train/evaluate.py", str(run_dir), "--no-gif", "--no-report"]
    episodes = "20" if quick else str(EPISODES)
    run_script([*judge, "--episodes", episodes])
    if (job.maze, job.view_size) == ("S13", 7):
        longer = ",".join(f"MiniGrid-Memory{maze}-v0" for maze in LONGER)
        run_script([*judge, "--episodes", episodes, "--env", longer])
    result = summary(job, run_dir) | {"cpu_seconds": round(cpu, 1)}
    write_json(results / f"{job.name}.json", result)
    if job.core == "rmc" and not quick:
        keep(job, run_dir, result)
    return result


def summary(job: Job, run_dir: Path) -> dict[str, Any]:
    """Everything about a run that the tables and plots are made of."""
    log = read_log(run_dir)
    curve = success_curve(log, job.env_id)
    assert curve is not None
    entries = read_evaluation(run_dir)
    kept = ("success_rate", "success_ci95", "mean_return", "mean_length", "episodes", "first_seed")
    kept += ("implementation", "deterministic", "hallway")
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
            env_id: {name: entry[name] for name in kept if name in entry} for env_id, entry in entries.items()
        },
        "versions": read_config(run_dir)["versions"],
    }


def steps_to(curve: Curve, rate: float) -> int | None:
    """The step from which on this share of the latest episodes was solved, to the end.

    Early in a curriculum a rollout may have two episodes of the maze, both guessed right.
    """
    smoothed = curve.smoothed(WINDOW)
    below = np.flatnonzero(smoothed.values < rate)
    first = int(below[-1]) + 1 if len(below) else 0
    return int(smoothed.steps[first]) if first < len(smoothed.steps) else None


def keep(job: Job, run_dir: Path, result: dict[str, Any]) -> None:
    """Keep the best RMC agent of a maze in trained/, by its success on Farama's maze."""
    name = f"memory-{job.maze.lower()}" + ("" if job.view_size == 7 else f"-view{job.view_size}")
    folder, success = TRAINED / name, result["evaluation"][job.env_id]["success_rate"]
    note = folder / "about.json"
    if note.is_file() and json.loads(note.read_text())["success_rate"] >= success:
        return
    if success >= MARKS[job.maze, job.view_size]:
        export_agent(run_dir, folder)
        write_json(note, {"command": result["command"], "success_rate": success, "steps": result["steps"]})


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]


def own(result: dict[str, Any]) -> float:
    """Success on Farama's maze, the one that the run was trained for."""
    return result["evaluation"][f"MiniGrid-Memory{result['maze']}-v0"]["success_rate"]


def groups(found: Sequence[dict[str, Any]]) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    """Results by maze, view size and core, in the order of the study."""
    keys = [(maze, view, core) for maze, view in MARKS for core in CORES]
    by_key = {key: [r for r in found if (r["maze"], r["view_size"], r["core"]) == key] for key in keys}
    return {key: runs for key, runs in by_key.items() if runs}


def table(found: Sequence[dict[str, Any]]) -> list[Row]:
    """A row for each maze and core."""
    rows: list[Row] = []
    for (maze, view, core), runs in groups(found).items():
        rates = [own(run) for run in runs]
        interval = iqm_interval([rates])
        learned = [run["steps_to_learn"] for run in runs if run["steps_to_learn"] is not None]
        rows.append(
            {
                "maze": maze,
                "view": view,
                "core": core,
                "seeds": ", ".join(str(run["seed"]) for run in runs),
                "success, mean": statistics.mean(rates),
                "IQM [95 %]": f"{interquartile_mean([rates]):.3f}"
                + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"),
                "each seed": ", ".join(f"{rate:.3f}" for rate in rates),
                f"reached {LEARNED}": f"{len(learned)} of {len(runs)}",
                "steps to it, median": statistics.median(learned) if learned else None,
                "steps, median": statistics.median(run["steps"] for run in runs),
                "wall s, median": statistics.median(run["seconds"] for run in runs),
                "CPU s, median": statistics.median(run["cpu_seconds"] for run in runs),
            }
        )
    return rows


def longer(found: Sequence[dict[str, Any]]) -> list[Row]:
    """Agents trained for S13 in longer mazes, without further training: the mean over seeds."""
    rows: list[Row] = []
    for (maze, view, core), runs in groups(found).items():
        if (maze, view) != ("S13", 7):
            continue
        row: Row = {"core": core, "seeds": len(runs), "S13": statistics.mean(map(own, runs))}
        for longer_maze in LONGER:
            rates = [run["evaluation"][f"MiniGrid-Memory{longer_maze}-v0"]["success_rate"] for run in runs]
            row[longer_maze] = statistics.mean(rates)
        rows.append(row)
    return rows


def targets(found: Sequence[dict[str, Any]]) -> list[Row]:
    by_key = groups(found)

    def mean(maze: str, view: int, core: str, env: str) -> float | None:
        runs = by_key.get((maze, view, core), [])
        rates = [run["evaluation"][f"MiniGrid-Memory{env}-v0"]["success_rate"] for run in runs]
        return statistics.mean(rates) if rates else None

    rows = [
        target(f"RMC on {maze}, view {view}", mean(maze, view, "rmc", maze), at_least=mark)
        for (maze, view), mark in MARKS.items()
    ]
    rows += [
        target(f"RMC trained up to S13, on {maze}", mean("S13", 7, "rmc", maze), at_least=mark)
        for maze, mark in ZERO_SHOT.items()
    ]
    rows += [
        target(f"feedforward on {maze}, view {view}", mean(maze, view, "feedforward", maze), at_most=0.55)
        for maze, view in COMPARED
    ]
    runs = by_key.get(("S13", 7, "rmc"), [])
    # A seed that never got there counts as slower than all others.
    steps = [run["steps_to_learn"] or float("inf") for run in runs]
    minutes = [run["seconds"] / 60 for run in runs]
    return [
        *rows,
        target(
            "S13: millions of steps to 0.95, median of seeds",
            statistics.median(steps) / 1e6 if steps else None,
            at_most=2.5,
        ),
        target(
            "S13: minutes to the mark, wall, median of seeds",
            statistics.median(minutes) if minutes else None,
            at_most=6,
        ),
    ]


def draw(found: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Learning curves of each compared maze, and success against hallway length; the names of the files."""
    figures: dict[str, Figure] = {}
    by_key = groups(found)
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


def report(results: Path) -> None:
    """Tables and plots of the results that there are."""
    found = read(results)
    if not found:
        print(f"no results in {results} yet")
        return
    machine = Machine((1,))
    tables = {"Targets": targets(found), "Mazes": table(found), "Longer mazes, zero-shot": longer(found)}
    text = Report("memory_mazes", machine, {title: rows for title, rows in tables.items() if rows})
    text.notes = [
        "Every run: `python train/ppo.py` with the preset of its maze (rmc_agents/presets.py) and nothing "
        "else, the commands below; one thread. Settings were chosen with RMC on seeds 0 to 2.",
        f"Success: {EPISODES} unseen seeds on Farama's own MiniGrid, the most likely action taken. Longer "
        "mazes: our batched ones, which are Farama's bit for bit.",
        f"Steps to {LEARNED}: by when the mean success of five rollouts, actions drawn, reached it for good.",
        "Agents at view size 7 have the same number of parameters within 1 %: "
        + ", ".join(f"{core} {options or RMC_OPTIONS}" for core, options in CORES.items())
        + ".",
        "Wall time: as it was on a machine that did other work beside; CPU time is the process's own, start "
        "and end included.",
        "IQM: interquartile mean over seeds with its bootstrap interval (Agarwal et al. 2021); of three "
        "seeds it is their mean, and the interval their range.",
        *(f"![{name}]({name}.png)" for name in draw(found, results.parent)),
        *(f"{run['core']}, seed {run['seed']}: `{run['command']}`" for run in found),
    ]
    text.print()
    text.write(results.parent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mazes", nargs="+", default=[], help="such as S13, or S9v3 for view size 3")
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=list(CORES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--quick", action="store_true", help="tiny budgets, in a temporary folder")
    args = parser.parse_args()
    results, runs = RESULTS / "memory_mazes", RUNS
    if args.quick:
        folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
        results, runs = folder / "memory_mazes", folder / "runs"
    for job in [] if args.report else jobs(args.mazes, args.cores, args.seeds):
        if not (results / f"{job.name}.json").is_file():
            work(job, results, runs, args.quick)
    report(results)


if __name__ == "__main__":
    main()

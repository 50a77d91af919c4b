"""What evaluations found, for people (tables) and for programs (evaluation.json)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rmc_agents.checkpoint import write_json
from rmc_agents.errors import UsageError
from rmc_agents.statistics import aggregate, improvement_interval, probability_of_improvement

Entry = dict[str, Any]
"""The figures of one environment, as evaluation.json has them."""


@dataclass(frozen=True)
class Result:
    """One agent on one environment."""

    run: str
    """Name of the run folder."""
    core: str
    """Name of its memory core."""
    env_id: str
    entry: Entry


def read_evaluation(run_dir: Path) -> dict[str, Entry]:
    """A run's evaluation.json: environment id to entry; empty where there is none.

    Raises:
        UsageError: the file is damaged.
    """
    path = run_dir / "evaluation.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}); delete or move it, and evaluate again") from error
    if not isinstance(entries, dict):
        raise UsageError(f"{path} holds no entries by environment; delete or move it, and evaluate again")
    return entries


def save_entry(run_dir: Path, env_id: str, entry: Entry) -> Path:
    """Put an entry into a run's evaluation.json, in place of an older one of the same environment."""
    write_json(run_dir / "evaluation.json", read_evaluation(run_dir) | {env_id: entry})
    return run_dir / "evaluation.json"


def show(results: Sequence[Result], console: Console | None = None) -> None:
    """A table of agents beside a random policy and the best possible one."""
    if not results:
        return
    table = Table(title="95 % intervals in brackets")
    for column in ("environment", "implementation", "policy"):
        table.add_column(column, overflow="fold")
    for column in ("success", "return", "length", "episodes"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        entry = result.entry
        rows = [(f"{result.run} ({result.core})", entry)]
        rows += [("random", entry["random"])] if entry.get("random") else []
        rows += [("best possible", entry["best_possible"])] if entry.get("best_possible") else []
        for i, (policy, figures) in enumerate(rows):
            where = result.env_id if i == 0 else ""
            table.add_row(where, figures.get("implementation", ""), policy, *_cells(figures))
        table.add_section()
    (console or _console()).print(table)


def show_by_core(results: Sequence[Result], console: Console | None = None) -> None:
    """Several runs, together by core: interquartile mean over seeds and environments, and who beats whom.

    The score is the success rate where every environment has one, else the return.
    """
    scores, score = scores_by_core(results)
    table = Table(title=f"{score} by core: interquartile mean over runs and environments")
    cores = sorted(scores, key=lambda core: -aggregate(scores[core]).iqm)
    table.add_column("core")
    for column in ("IQM", "95 % interval", "scores"):
        table.add_column(column, justify="right")
    table.add_column(f"P(better than {cores[0]})", justify="right")
    for core in cores:
        total = aggregate(scores[core])
        better = "" if core == cores[0] else _improvement(scores[core], scores[cores[0]])
        table.add_row(core, f"{total.iqm:.3f}", _interval(total.interval), str(total.runs), better)
    (console or _console()).print(table)


def scores_by_core(results: Iterable[Result]) -> tuple[dict[str, list[list[float]]], str]:
    """For each core its scores [environment][run], over the environments that all cores share.

    Raises:
        ValueError: the cores share no environment.
    """
    results = list(results)
    name = "success_rate" if all(r.entry["success_rate"] is not None for r in results) else "mean_return"
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result.core][result.env_id].append(result.entry[name])
    shared = sorted(set.intersection(*(set(by_env) for by_env in found.values())))
    if not shared:
        raise ValueError(f"no environment was evaluated with each of {', '.join(found)}")
    scores = {core: [by_env[env_id] for env_id in shared] for core, by_env in found.items()}
    return scores, name.replace("_", " ")


def _improvement(x: list[list[float]], y: list[list[float]]) -> str:
    interval = _interval(improvement_interval(x, y))
    return f"{probability_of_improvement(x, y):.2f} {interval}"


def _cells(figures: Entry) -> list[str]:
    def cell(value: float | None, interval: Sequence[float] | None) -> str:
        return "-" if value is None else f"{value:.3f} {_interval(interval)}".rstrip()

    episodes = figures.get("episodes")
    return [
        cell(figures.get("success_rate"), figures.get("success_ci95")),
        cell(figures["mean_return"], figures.get("return_ci95")),
        f"{figures['mean_length']:.1f}",
        "" if episodes is None else f"{episodes:,}",
    ]


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _console() -> Console:
    """As wide as the table needs where the output is a file, so that no figure is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=140)

"""What evaluations found: evaluation.json, and scores by memory core."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmc_agents.checkpoint import read_config, write_json
from rmc_agents.errors import UsageError

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


def read_evaluation(run_dir: Path, file: str = "evaluation.json") -> dict[str, Entry]:
    """A run's evaluation.json (or probe.json): environment id to entry; empty where there is none.

    Raises:
        UsageError: the file is damaged.
    """
    path = run_dir / file
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}); delete or move it, and evaluate again") from error
    if not isinstance(entries, dict):
        raise UsageError(f"{path} holds no entries by environment; delete or move it, and evaluate again")
    return entries


def save_entry(run_dir: Path, env_id: str, entry: Entry, file: str = "evaluation.json") -> Path:
    """Put an entry into a run's evaluation.json, in place of an older one of the same environment."""
    write_json(run_dir / file, read_evaluation(run_dir, file) | {env_id: entry})
    return run_dir / file


def read_results(run_dir: Path) -> list[Result]:
    """Everything in a run's evaluation.json, mazes by their size.

    Raises:
        UsageError: it is damaged, or this is no run folder.
    """
    core = read_config(run_dir)["agent"]["core"]
    entries = read_evaluation(run_dir)
    return [Result(run_dir.resolve().name, core, e, entries[e]) for e in sorted(entries, key=by_size)]


def by_size(env_id: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts S9 before S11, and S13 before S13Random."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", env_id))


@dataclass(frozen=True)
class Scores:
    """The runs of several cores in the same environments."""

    name: str
    """What is compared: the success rate where every environment has one, else the mean return."""
    env_ids: tuple[str, ...]
    """The environments that all cores were judged in."""
    by_core: dict[str, list[list[float]]]
    """For each core its scores [environment][run]."""


def scores_by_core(results: Iterable[Result]) -> Scores:
    """The scores that cores can be compared by.

    Raises:
        ValueError: the cores share no environment.
    """
    results = list(results)
    name = "success_rate" if all(r.entry["success_rate"] is not None for r in results) else "mean_return"
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result.core][result.env_id].append(result.entry[name])
    shared = tuple(sorted(set.intersection(*(set(by_env) for by_env in found.values())), key=by_size))
    if not shared:
        raise ValueError(f"no environment was evaluated with each of {', '.join(found)}")
    by_core = {core: [by_env[env_id] for env_id in shared] for core, by_env in found.items()}
    return Scores(name.replace("_", " "), shared, by_core)

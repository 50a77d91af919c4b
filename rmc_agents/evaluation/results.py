"""Results of evaluations: the entries of evaluation.json, and the scores of memory cores to compare."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmc_agents.environment import EnvConfig
from rmc_agents.errors import UsageError, shown
from rmc_agents.evaluation.entries import Entry
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import read_config

EVALUATION = "evaluation.json"
"""Name of the file in a run folder that holds the results of its evaluations, by environment."""
PROBE = "probe.json"
"""Name of the file for the results of its probes."""


def read_entries(path: Path) -> dict[str, Any]:
    """Read an evaluation.json or probe.json as it is: environment id to entry; empty if there is no file.

    Raises:
        UsageError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON ({error}); delete or move it, and evaluate again") from error
    if not isinstance(entries, dict):
        raise UsageError(f"{path} holds no entries by environment; delete or move it, and evaluate again")
    return entries


def merge_entry(path: Path, env_id: str, entry: Mapping[str, Any]) -> Path:
    """Write one entry of an evaluation.json or probe.json; the entries of other environments stay.

    Raises:
        UsageError: the file that is there is damaged.
    """
    write_json(path, read_entries(path) | {env_id: dict(entry)})
    return path


def read_evaluation(run_dir: Path) -> dict[str, Entry]:
    """Read a run's evaluation.json: environment id to entry; empty if there is no such file.

    Raises:
        UsageError: the file or one of its entries is damaged.
    """
    path = run_dir / EVALUATION
    return {
        env_id: Entry.from_json(data, f"{path}, entry {env_id!r}")
        for env_id, data in read_entries(path).items()
    }


def save_entry(run_dir: Path, env_id: str, entry: Entry) -> Path:
    """Add one entry to an evaluation.json, without losing better figures (see `merged`).

    Raises:
        UsageError: the file that is there is damaged.
        OSError: it cannot be written.
    """
    old = read_evaluation(run_dir).get(env_id)
    return merge_entry(run_dir / EVALUATION, env_id, merged(old, entry).to_json())


def merged(old: Entry | None, new: Entry) -> Entry:
    """Return what to keep of two evaluations in the same environment.

    Of two evaluations of the same agent with the same kind of actions, that of more episodes is kept. Those
    of another checkpoint in more episodes, and those with the other kind of actions, move to `earlier`.
    """
    known = [] if old is None else [old, *old.earlier]
    same = next((each for each in known if each.is_like(new)), None)
    kept = new
    if same is not None and same.episodes > new.episodes:
        kept = dataclasses.replace(same, memoryless=same.memoryless or new.memoryless)
    earlier = [
        dataclasses.replace(each, earlier=())
        for each in known
        if each is not same and (each.episodes > kept.episodes or each.is_drawn != kept.is_drawn)
    ]
    return dataclasses.replace(kept, earlier=tuple(earlier))


def kept_note(path: Path, env_id: str, new: Entry) -> str | None:
    """Return a message if an evaluation.json keeps other figures, instead of the new ones or besides them."""
    kept = read_evaluation(path.parent)[env_id]
    more = max((each.episodes for each in (kept, *kept.earlier)), default=0)
    if kept.date == new.date and not kept.earlier:
        return None
    instead = "besides" if kept.date == new.date else "instead of"
    return f"{path} keeps the figures of {more:,} episodes {instead} these {new.episodes:,}"


@dataclass(frozen=True)
class Result:
    """One agent in one environment."""

    run: str
    """Name of the run folder."""
    core: str
    """Name of the memory core."""
    env_id: str
    entry: Entry
    training: str = ""
    """Environments and options in which the run was trained (`training_of`)."""


def core_of(config: Mapping[str, Any]) -> str:
    """Return the name of the memory core in a config.json; empty if it has none."""
    return str(config.get("agent", config.get("classifier", {})).get("core", ""))


def training_of(environment: EnvConfig | Mapping[str, Any] | None) -> str:
    """Return the environments and options in which a run was trained, for labels; empty if unknown.

    Args:
        environment: of the run, also as config.json holds it.
    """
    if isinstance(environment, EnvConfig):
        environment = vars(environment)
    if not isinstance(environment, Mapping):
        return ""
    given = environment.get("env_options")
    options = {} if not isinstance(given, dict) else given
    env_ids = str(environment.get("train_on") or environment.get("env") or "").split(",")
    names = [name.strip().removeprefix("MiniGrid-").removesuffix("-v0") for name in env_ids]
    described = [f"{name}={value}" for name, value in options.items() if name != "seeding"]
    return shown(" ".join([", ".join(names), *described]), 80)


def read_results(run_dir: Path, output: Path | None = None) -> list[Result]:
    """Read everything in a run's evaluation.json, mazes sorted by size.

    Args:
        run_dir: the run folder.
        output: the folder of newer results, if it is not the run folder.

    Raises:
        UsageError: the file is damaged, or `run_dir` is not a run folder.
    """
    config = read_config(run_dir)
    name, core, training = run_dir.resolve().name, core_of(config), training_of(config.get("environment"))
    entries = read_evaluation(run_dir) | ({} if output is None else read_evaluation(output))
    return [Result(name, core, e, entries[e], training) for e in sorted(entries, key=by_size)]


def by_size(env_id: str) -> tuple[tuple[str, int], ...]:
    """Return a sort key that puts S9 before S11, and S13 before S13Random."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", env_id))


@dataclass(frozen=True)
class Scores:
    """The scores of several cores in the same environments."""

    name: str
    """What is compared: the success rate if every result has one, else the mean return."""
    env_ids: tuple[str, ...]
    """The environments in which every core was evaluated."""
    by_core: dict[str, list[list[float]]]
    """For each core (see `by_training`) its scores, `[environment][run]`."""


def by_training(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group results by core; where an environment has runs of a core that were trained in different ones, by
    core and training."""
    results = list(results)
    trainings: dict[tuple[str, str], set[str]] = defaultdict(set)
    for result in results:
        trainings[result.core, result.env_id].add(result.training)
    mixed = any(len(found) > 1 for found in trainings.values())
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        training = f", trained in {result.training or 'unknown environments'}" if mixed else ""
        groups[result.core + training].append(result)
    return dict(groups)


def scores_by_core(results: Iterable[Result]) -> Scores:
    """Return the scores by which cores can be compared. Runs of different training are never pooled.

    Raises:
        ValueError: no environment has a score of every core.
    """
    figures = [
        (core, result.env_id, result.entry.figures)
        for core, group in by_training(results).items()
        for result in group
    ]
    use_success = all(own.success_rate is not None for _, _, own in figures)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for core, env_id, own in figures:
        score = own.success_rate if use_success else own.mean_return
        if score is not None:
            found[core][env_id].append(score)
    shared = set.intersection(*(set(by_env) for by_env in found.values())) if found else set()
    env_ids = tuple(sorted(shared, key=by_size))
    if not env_ids:
        raise ValueError(f"no environment was evaluated with each of {', '.join(found)}")
    by_core = {core: [by_env[env_id] for env_id in env_ids] for core, by_env in found.items()}
    return Scores("success rate" if use_success else "mean return", env_ids, by_core)

"""Run folders: where a run's files are, and the configuration that describes it.

runs/NAME/config.json                      what was run: enough to build the agent and its environments again
runs/NAME/checkpoints/step_000001048576.pt agent, optimizer, generators, environments, memory
runs/NAME/checkpoints/best.json            the checkpoint with the best score, and that score
runs/NAME/log.jsonl, tensorboard/          figures of each iteration
runs/NAME/trackers.json                    ids of the runs of W&B or MLflow that follow this one

Environments and modules that config.json names are imported from your own import path.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmc_agents.errors import UsageError, shown
from rmc_agents.options import as_plain, is_plain, require_sizes
from rmc_agents.runs.files import portable_name, read_regular, write_json
from rmc_agents.runs.migrations import CONFIG_FORMAT, migrate_config
from rmc_agents.runs.versions import versions

MAX_CONFIG_BYTES = 2**24
"""Largest config.json that is read."""
MAX_DEPTH = 64
"""Containers within each other in a config.json."""
REBUILT = ("agent", "classifier", "environment", "ppo", "supervised", "seed")
"""Entries of config.json from which a run is built again, so they must be as they were written."""
_CHECKPOINT_NAME = re.compile(r"step_(\d+)\.pt")


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the run's checkpoints, newest first."""
    found = [(_step(path), path) for path in (run_dir / "checkpoints").glob("step_*.pt")]
    return [path for step, path in sorted(found, reverse=True) if step >= 0]


def _step(path: Path) -> int:
    match = _CHECKPOINT_NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Return where the checkpoint after `step` steps is saved."""
    return run_dir / "checkpoints" / f"step_{step:012d}.pt"


def best_checkpoint(run_dir: Path, scored_by: str | None = None) -> tuple[Path, list[float]] | None:
    """Return the checkpoint with the best score, and its score: success rate, mean return.

    Args:
        run_dir: the run folder.
        scored_by: "training" (its latest episodes) or "evaluation": return None if the score is of another
            kind.
    """
    try:
        best = json.loads(read_regular(run_dir / "checkpoints" / "best.json"))
        score = [float(x) for x in best["score"]]
        if not _CHECKPOINT_NAME.fullmatch(best["checkpoint"]) or not all(map(math.isfinite, score)):
            return None
        if scored_by is not None and scored_by != best.get("scored_by", "training"):
            return None
        return run_dir / "checkpoints" / best["checkpoint"], score
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):  # nothing depends on it
        return None


def evaluated_checkpoints(run_dir: Path) -> set[str]:
    """Return the names of the checkpoints whose figures are in evaluation.json."""
    try:
        evaluation = json.loads(read_regular(run_dir / "evaluation.json"))
    except (OSError, ValueError, RecursionError):
        return set()
    entries = list(evaluation.values()) if isinstance(evaluation, dict) else []
    names: set[str] = set()
    while entries:  # a damaged entry does not hide the others
        entry = entries.pop()
        if isinstance(entry, dict):
            names.add(Path(str(entry.get("checkpoint"))).name)
            earlier = entry.get("earlier")
            entries += earlier if isinstance(earlier, list) else []
    return names


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that it no longer counts as a checkpoint; return its new name.

    Raises:
        OSError: it could not be renamed.
    """
    names = (path.with_name(f"{path.name}.damaged{n or ''}") for n in range(10_000))
    free = next(name for name in names if not os.path.lexists(name))
    path.rename(free)
    return free


def free_run_dir(name: str) -> Path:
    """Return runs/NAME in portable characters, with a number appended if that folder exists."""
    name = portable_name(name)
    tries = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
    return next(path for path in tries if not path.exists())


def require_no_run(run_dir: Path) -> None:
    """Raise UsageError if a run has been saved in `run_dir`."""
    if checkpoints(run_dir):
        raise UsageError(f"{run_dir} already holds a run: resume it, or choose another run_dir")


def require_run(run_dir: Path) -> None:
    """Raise UsageError unless `run_dir` is a run folder."""
    if (run_dir / "config.json").is_file():
        return
    if run_dir.is_file() and (run_dir.absolute().parent.parent / "config.json").is_file():
        raise UsageError(
            f"{run_dir} is a checkpoint: give its run folder, {run_dir.absolute().parent.parent}"
        )
    raise UsageError(f"{run_dir} is not a run folder: it has no config.json (runs are under runs/)")


def run_folder_of(path: Path) -> Path:
    """Return the run folder that a path names, itself or by one of its checkpoints.

    Raises:
        UsageError: the path is a file, but not a checkpoint in a run folder.
    """
    if not path.is_file():
        return path
    folder = (path if len(path.parts) > 2 else path.absolute()).parent.parent
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{path} is a file outside of a run folder: give a run folder, such as runs/NAME, or one of its "
            "checkpoints, runs/NAME/checkpoints/step_*.pt"
        )
    return folder


def cannot_write(run_dir: Path, error: OSError) -> UsageError:
    """Return the error for a run folder that cannot be written."""
    return UsageError(
        f"cannot write to the run folder {run_dir}: {error.strerror or error}; make room, or choose another "
        "run_dir"
    )


def cannot_write_results(folder: Path, error: OSError) -> UsageError:
    """Return the error for a folder of results that cannot be written."""
    kind = "the run folder " if (folder / "config.json").is_file() else ""
    reason = error.strerror or error
    return UsageError(
        f"cannot write to {kind}{folder}: {reason}; make room, or choose another folder for the output"
    )


def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write config.json, with its format and the versions in use.

    Raises:
        UsageError: the run folder cannot be written.
    """
    try:
        write_json(run_dir / "config.json", {"format": CONFIG_FORMAT, **config, "versions": versions()})
    except OSError as error:
        raise cannot_write(run_dir, error) from error


def read_config(run_dir: Path | str) -> dict[str, Any]:
    """Read a run's config.json, migrated to the current format.

    Under "agent" it describes an agent, under "classifier" a classifier.

    Raises:
        UsageError: missing, not JSON, or not of a run.
    """
    require_run(Path(run_dir))
    path = Path(run_dir) / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UsageError(f"{path} is too large for a configuration")
        config = json.loads(path.read_text())
        if _is_deep(config):
            raise UsageError(f"{path} is nested too deeply for a configuration")
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {str(error)[:200] or type(error).__name__}") from error
    try:
        config = migrate_config(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f": {error}" if type(error) is ValueError else ""
        raise UsageError(f"{path} does not describe a run{reason}") from error
    require_readable(config, path)
    return config


def require_readable(config: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError for the contents of a config.json from which no run can be loaded.

    Training checks its own before it starts.
    """
    for name in REBUILT:
        if name in config and not is_plain(as_plain(config[name])):
            raise UsageError(
                f"{path} cannot hold {name}={shown(config[name])}: expected finite numbers, strings, "
                "booleans, None, and lists and dictionaries of them"
            )
    network = config.get("agent", config.get("classifier"))
    if not isinstance(network, dict):
        raise UsageError(f'{path} does not describe a run: it has neither "agent" nor "classifier"')
    imports = config.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        raise UsageError(f"{path}: imports is {str(imports)[:60]!r}, expected names of modules")
    require_sizes(config, str(path))


def _is_deep(tree: Any) -> bool:
    """Return whether containers are nested more than `MAX_DEPTH` deep."""
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            part
            for container in level
            for part in (container.values() if isinstance(container, dict) else container)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True

"""Run folders: where a run's files are, and the configuration that describes it.

runs/NAME/config.json                      what was run: enough to build the agent and its environments again
runs/NAME/checkpoints/step_000001048576.pt agent, optimizer, generators, environments, memory
runs/NAME/checkpoints/best.json            the checkpoint with the best score in training, and that score

Environments and modules that config.json names are imported from your own import path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmc_agents.errors import UsageError
from rmc_agents.runs.files import write_json
from rmc_agents.runs.migrations import CONFIG_FORMAT, migrate_config
from rmc_agents.runs.versions import versions

MAX_CONFIG_BYTES = 2**24
"""Largest config.json that is read."""
MAX_SIZE = 2**20
"""Largest size of anything in a network: a width, a number of slots, an axis of an observation."""
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


def best_checkpoint(run_dir: Path) -> tuple[Path, list[float]] | None:
    """Return the checkpoint with the best score in training, and its score: success rate, mean return."""
    try:
        best = json.loads((run_dir / "checkpoints" / "best.json").read_text())
        if not _CHECKPOINT_NAME.fullmatch(best["checkpoint"]):
            return None
        return run_dir / "checkpoints" / best["checkpoint"], [float(x) for x in best["score"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # nothing depends on it
        return None


def evaluated_checkpoints(run_dir: Path) -> set[str]:
    """Return the names of the checkpoints whose figures are in evaluation.json."""
    try:
        entries = json.loads((run_dir / "evaluation.json").read_text()).values()
        return {Path(entry["checkpoint"]).name for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def free_run_dir(name: str) -> Path:
    """Return runs/NAME, with a number appended if that folder exists."""
    tries = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
    return next(path for path in tries if not path.exists())


def require_no_run(run_dir: Path) -> None:
    """Raise UsageError if a run has been saved in `run_dir`."""
    if checkpoints(run_dir):
        raise UsageError(f"{run_dir} already holds a run: resume it, or choose another run_dir")


def require_run(run_dir: Path) -> None:
    """Raise UsageError unless `run_dir` is a run folder."""
    if not (run_dir / "config.json").is_file():
        raise UsageError(f"{run_dir} is not a run folder: it has no config.json (runs are under runs/)")


def cannot_write(run_dir: Path, error: OSError) -> UsageError:
    """Return the error for a run folder that cannot be written."""
    return UsageError(
        f"cannot write to the run folder {run_dir}: {error.strerror or error}; make room, or choose another "
        "run_dir"
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
    except UsageError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {str(error)[:200] or type(error).__name__}") from error
    try:
        config = migrate_config(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f": {error}" if type(error) is ValueError else ""
        raise UsageError(f"{path} does not describe a run{reason}") from error
    network = config.get("agent", config.get("classifier"))
    if not isinstance(network, dict):
        raise UsageError(f'{path} does not describe a run: it has neither "agent" nor "classifier"')
    imports = config.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        raise UsageError(f"{path}: imports is {str(imports)[:60]!r}, expected names of modules")
    large = _largest_number([network, config.get("observation_space"), config.get("action_space")])
    if large > MAX_SIZE:
        raise UsageError(f"{path} asks for a size of {large:.3g}; no network has one above {MAX_SIZE:,}")
    return config


def _largest_number(tree: Any) -> float:
    """Return the largest size in a description; a space's bounds and start are not sizes."""
    largest, left = 0.0, [tree]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [value for key, value in part.items() if key not in ("low", "high", "start")]
            shape = part.get("shape")
            if isinstance(shape, list) and all(type(n) is int for n in shape):
                product = 1
                for n in shape[:64]:
                    product *= n
                largest = max(largest, product / 8)  # a picture has more numbers than a layer is wide
        elif isinstance(part, list):
            left += part
        elif isinstance(part, int | float):
            largest = max(largest, abs(part))
    return largest

"""Where results are written: the run folder or, if that must stay as it is, a folder beside it."""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path

from rmc_agents.errors import UsageError, shown
from rmc_agents.evaluation.results import EVALUATION, PROBE, read_entries
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.folder import run_folder_of

BESIDE = Path("evaluations")
"""Folder for the results of agents whose own folders stay as they are."""
TRAINED = Path(__file__).resolve().parents[2] / "trained"
"""The trained agents of a checkout."""


def output_folder(run: Path, output: Path | None = None, runs: int = 1) -> Path:
    """Return the folder for the results of a run.

    Without `output` it is the run folder or, if that is shipped or cannot be written, evaluations/NAME.

    Args:
        run: the run folder, or a checkpoint in it.
        output: the folder asked for. With several runs, each has a folder of its own in it.
        runs: number of runs.

    Raises:
        UsageError: `output` cannot be written, or holds another run or its results.
    """
    run_dir = run_folder_of(run)
    name = portable_name(run_dir.resolve().name)
    if output is None:
        if not is_shipped(run_dir) and _is_writable(run_dir):
            return run_dir
        tries = (BESIDE / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
        return next(folder for folder in tries if _other_run(folder, run_dir) is None)
    folder = output / name if runs > 1 else output
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not _is_writable(nearest):
        raise UsageError(f"output={folder}: no files can be created in {nearest}; choose another folder")
    other = _other_run(folder, run_dir)
    if other is not None:
        raise UsageError(
            f"output={folder}: the folder holds {shown(other)}; choose another folder for {run_dir}"
        )
    return folder


def is_shipped(run_dir: Path) -> bool:
    """Return whether a run folder belongs to a checkout or to an installed package."""
    places = (TRAINED, *(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")))
    return any(run_dir.resolve().is_relative_to(place) for place in places)


def _is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder; the permissions alone do not say so."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _other_run(folder: Path, run_dir: Path) -> str | None:
    """Return what a folder holds of another run than this one, None if it holds nothing of it."""
    if folder.exists() and run_dir.exists() and folder.samefile(run_dir):
        return None
    if (folder / "config.json").exists():
        return "another run"
    for name in (EVALUATION, PROBE):
        for entry in read_entries(folder / name).values():
            checkpoint = entry.get("checkpoint") if isinstance(entry, dict) else None
            if not isinstance(checkpoint, str) or Path(checkpoint).resolve().parents[1:2] != (
                run_dir.resolve(),
            ):
                return f"results of another run ({checkpoint})"
    return None

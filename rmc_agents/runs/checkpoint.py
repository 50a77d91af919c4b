"""Checkpoints: written atomically, read without executing code.

A checkpoint is not trusted: `safe_file` checks its form before torch reads it, and torch runs nothing in it.
"""

from __future__ import annotations

import contextlib
import io
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from rmc_agents.errors import TrainingError, UsageError
from rmc_agents.runs.files import write_atomically, write_json
from rmc_agents.runs.folder import (
    best_checkpoint,
    checkpoint_path,
    checkpoints,
    evaluated_checkpoints,
    require_run,
)
from rmc_agents.runs.migrations import CHECKPOINT_FORMAT, migrate_checkpoint
from rmc_agents.runs.safe_file import Unsafe, check


def save_checkpoint(
    run_dir: Path, step: int, payload: dict[str, Any], keep: int = 3, score: Sequence[float] | None = None
) -> Path:
    """Save tensors, numbers, strings and containers of them; delete the oldest checkpoints beyond `keep`.

    The checkpoint with the best `score` (compared as tuples) is kept, and so are those that were evaluated.

    Raises:
        OSError: it could not be written (a full disk); everything saved before is unchanged.
        TrainingError: the payload holds something else.
    """
    path = checkpoint_path(run_dir, step)
    # In memory first: torch aborts the process if a disk fills up while it writes.
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **{key: _own(part) for key, part in payload.items()}}, buffer)
    try:
        check(buffer)  # an unreadable checkpoint must not displace a readable one
    except Unsafe as error:
        raise TrainingError(
            f"{path} could not be read back ({error}), and was not written; the state of an environment may "
            "hold tensors, numbers, strings, and lists and dictionaries of them"
        ) from error
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    best = best_checkpoint(run_dir)
    if score is not None and (best is None or not best[0].is_file() or list(score) >= best[1]):
        write_json(path.parent / "best.json", {"checkpoint": path.name, "score": list(score)})
        best = path, list(score)
    kept = {best[0].name if best else "", *evaluated_checkpoints(run_dir)}
    for old in checkpoints(run_dir)[keep:]:
        if old.name not in kept:
            old.unlink(missing_ok=True)
    for leftover in path.parent.glob(".*.tmp"):  # of a process that was killed while writing
        leftover.unlink(missing_ok=True)
    return path


def _own(tree: Any) -> Any:
    """Return a tree whose tensors do not share their storage, without gradients."""
    if isinstance(tree, torch.Tensor):
        tree = tree.detach()
        alone = tree.numel() * tree.element_size() == tree.untyped_storage().nbytes()
        return tree if alone else tree.clone(memory_format=torch.contiguous_format)
    if isinstance(tree, dict):
        return {key: _own(part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [_own(part) for part in tree]
    return tree


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read one checkpoint, migrated to the current format.

    Nothing in the file is executed (`weights_only=True`), and memory use is bounded by the file size.

    Raises:
        UsageError: missing, truncated, not a checkpoint, or of an unknown format.
    """
    try:
        with _opened(path) as file:
            check(file)
            file.seek(0)
            payload = torch.load(file, map_location=device, weights_only=True)
    except UsageError:
        raise
    except Exception as error:  # zipfile, pickle and torch raise a dozen types for a damaged file
        reason = str(error) if isinstance(error, Unsafe) else type(error).__name__
        raise UsageError(
            f"{path} is damaged or not a checkpoint of this package ({reason}); delete it to use an older one"
        ) from error
    found = payload.get("format")
    if type(found) is not int or not 1 <= found <= CHECKPOINT_FORMAT:
        shown = found if type(found) in (int, str) and len(str(found)) < 40 else type(found).__name__
        raise UsageError(f"{path} has format {shown}; this version reads formats 1 to {CHECKPOINT_FORMAT}")
    try:
        return migrate_checkpoint(payload)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: its contents do not match its format {found}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; UsageError for a folder, a pipe, a loop of links, or nothing."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise UsageError(f"{path} is {kind}, expected a checkpoint")
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no checkpoint at {path}") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    with file:
        yield file


def read_newest(run_dir: Path, device: torch.device | str = "cpu") -> tuple[Path, dict[str, Any], list[str]]:
    """Read the newest intact checkpoint.

    Returns:
        its path, its payload, and one line for each newer checkpoint that had to be skipped.

    Raises:
        UsageError: not a run folder, or no intact checkpoint in it.
    """
    require_run(run_dir)
    skipped: list[str] = []
    for path in checkpoints(run_dir):
        try:
            return path, read_checkpoint(path, device), skipped
        except UsageError as error:
            skipped.append(str(error))
    reasons = "".join(f"\n  {line}" for line in skipped)
    raise UsageError(f"{run_dir} holds no readable checkpoint{reasons or ' (none was saved yet)'}")

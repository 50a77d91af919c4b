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
    set_aside,
)
from rmc_agents.runs.migrations import CHECKPOINT_FORMAT, migrate_checkpoint
from rmc_agents.runs.safe_file import MAX_BYTES, Unsafe, check, rebuilt
from rmc_agents.runs.weights import non_finite, shorten
from rmc_agents.tree import to_device

NETWORKS = ("agent", "newest", "optimizer", "optimizers")
"""Parts of a checkpoint whose numbers must be finite."""


def save_checkpoint(
    run_dir: Path,
    step: int,
    payload: dict[str, Any],
    keep: int = 3,
    score: Sequence[float] | None = None,
    scored_by: str = "training",
) -> Path:
    """Save tensors, numbers, strings and containers of them; delete the oldest checkpoints beyond `keep`.

    This checkpoint is kept, whatever its step, and so are the one with the best `score` (compared as tuples)
    and those that were evaluated. A score replaces one that was `scored_by` something else, with which it
    cannot be compared. Files that cannot be read do not count, and are not deleted.

    Raises:
        OSError: it could not be written (a full disk); everything saved before is unchanged.
        TrainingError: the payload holds something else, or weights or moments that are not finite.
    """
    path = checkpoint_path(run_dir, step)
    bad = [name for part in NETWORKS for name in non_finite(payload.get(part), part)]
    if bad:
        raise TrainingError(f"{path} was not written: not finite are {shorten(bad)}")
    # In memory first: torch aborts the process if a disk fills up while it writes.
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **{key: _own(part) for key, part in payload.items()}}, buffer)
    try:
        check(buffer.getbuffer())  # an unreadable checkpoint must not displace a readable one
    except Unsafe as error:
        raise TrainingError(
            f"{path} could not be read back ({error}), and was not written; the state of an environment may "
            "hold tensors, numbers, strings, and lists and dictionaries of them"
        ) from error
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    _intact[path] = _stamp(path), True
    with contextlib.suppress(OSError):  # the checkpoint is saved, whatever becomes of the others
        _clean_up(path, run_dir, keep, score, scored_by)
    return path


def _clean_up(path: Path, run_dir: Path, keep: int, score: Sequence[float] | None, scored_by: str) -> None:
    """Record the best checkpoint, and delete those that are not kept, after `path` was written."""
    kept = {path.name, *evaluated_checkpoints(run_dir)}
    best = best_checkpoint(run_dir)
    rival = best_checkpoint(run_dir, scored_by)
    if score is not None and (rival is None or not is_intact(rival[0]) or list(score) >= rival[1]):
        kept.add(path.name)
        entry = {"checkpoint": path.name, "score": list(score), "scored_by": scored_by}
        with contextlib.suppress(OSError):
            write_json(path.parent / "best.json", entry)
    elif best is not None:
        kept.add(best[0].name)
    others = [old for old in checkpoints(run_dir) if old.name != path.name and is_intact(old)]
    leftovers = path.parent.glob(".*.tmp")  # of a process that was killed while writing
    for old in [*(old for old in others[keep - 1 :] if old.name not in kept), *leftovers]:
        with contextlib.suppress(OSError):
            old.unlink()


_intact: dict[Path, tuple[tuple[int, int] | None, bool]] = {}
"""Size and time of the files that this process wrote or read, and whether they were intact."""


def is_intact(path: Path) -> bool:
    """Return whether a checkpoint can be read; what this process has written or read is not read again."""
    stamp = _stamp(path)
    known, intact = _intact.get(path, (None, False))
    if stamp is None or known == stamp:
        return stamp is not None and intact
    try:
        with _opened(path) as file:
            check(_content(file))
    except (OSError, MemoryError):
        return False
    except Exception:  # as in read_checkpoint
        intact = False
    else:
        intact = True
    _intact[path] = stamp, intact
    return intact


def newest_intact(run_dir: Path) -> Path | None:
    """Return the newest checkpoint that can be read, None if there is none."""
    return next((path for path in checkpoints(run_dir) if is_intact(path)), None)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


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
            archive = rebuilt(_content(file))
        payload = torch.load(archive, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except (OSError, MemoryError) as error:  # the file may be fine
        raise UsageError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error
    except Exception as error:  # zipfile, pickle and torch raise a dozen types for a damaged file
        reason = str(error) if isinstance(error, Unsafe) else type(error).__name__
        raise Damaged(
            f"{path} is damaged or not a checkpoint of this package ({reason}); delete it to use an older one"
        ) from error
    found = payload.get("format")
    if type(found) is not int or not 1 <= found <= CHECKPOINT_FORMAT:
        shown = found if type(found) in (int, str) and len(str(found)) < 40 else type(found).__name__
        raise UsageError(f"{path} has format {shown}; this version reads formats 1 to {CHECKPOINT_FORMAT}")
    try:
        payload = migrate_checkpoint(payload)
    except (ValueError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is damaged: its contents do not match its format {found}") from error
    _intact[path] = _stamp(path), True
    if torch.device(device).type == "cpu":
        return payload
    try:
        return to_device(payload, device)
    except RecursionError as error:
        raise Damaged(f"{path} is damaged: its contents are nested too deeply") from error


class Damaged(UsageError):
    """The file can be read, but it is not an intact checkpoint."""


def _content(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    if size > MAX_BYTES:
        raise Unsafe(f"{size:,} bytes are too many for a checkpoint")
    file.seek(0)
    return file.read(size)


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


def read_newest(
    run_dir: Path, device: torch.device | str = "cpu", rename_damaged: bool = False
) -> tuple[Path, dict[str, Any], list[str]]:
    """Read the newest intact checkpoint.

    Args:
        run_dir: the run folder.
        device: where to put the tensors.
        rename_damaged: rename the damaged files that are newer, so that they no longer count as checkpoints.

    Returns:
        its path, its payload, and one line for each newer checkpoint that had to be skipped.

    Raises:
        UsageError: not a run folder, or no intact checkpoint in it.
    """
    require_run(run_dir)
    skipped: list[str] = []
    damaged: list[tuple[int, Path]] = []
    for path in checkpoints(run_dir):
        try:
            payload = read_checkpoint(path, device)
        except UsageError as error:
            damaged += [(len(skipped), path)] if isinstance(error, Damaged) else []
            skipped.append(str(error))
            continue
        for line, file in damaged if rename_damaged else ():
            with contextlib.suppress(OSError):
                reason = skipped[line].removesuffix("; delete it to use an older one")
                skipped[line] = f"{reason}; it was renamed {set_aside(file).name}"
        return path, payload, skipped
    reasons = f": {'; '.join(skipped)}" if skipped else " (none was saved yet)"
    raise UsageError(f"{run_dir} holds no readable checkpoint{reasons}")

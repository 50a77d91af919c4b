"""Run folders: what is saved, atomically, and read back without running anybody's code.

runs/NAME/config.json                      what was run: enough to build the agent again
runs/NAME/checkpoints/step_000001048576.pt agent, optimizer, generators, environments, memory
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from rmc_agents.actor_critic import ActorCritic
from rmc_agents.errors import UsageError

FORMAT = 1
"""Version of the checkpoint's layout; raised when an older reader could not read it."""

_NAME = re.compile(r"step_(\d+)\.pt")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that at every moment either the old or the whole new one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically."""
    text = json.dumps(value, indent=2, default=str) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def save_checkpoint(run_dir: Path, step: int, payload: dict[str, Any], keep: int = 3) -> Path:
    """Save tensors, numbers, strings and containers of them; the oldest beyond `keep` are deleted."""
    path = run_dir / "checkpoints" / f"step_{step:012d}.pt"
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **payload}, file))
    for old in checkpoints(run_dir)[keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, newest first."""
    found = [p for p in (run_dir / "checkpoints").glob("step_*.pt") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name).group(1)), reverse=True)  # type: ignore[union-attr]


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read one checkpoint. Nothing in the file is executed (`weights_only=True`).

    Raises:
        UsageError: missing, truncated, not a checkpoint, or of another format.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch.save writes a checksum of every record, but load ignores it
        if broken is not None:
            raise zipfile.BadZipFile(f"{broken} does not match its checksum")
        payload = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise UsageError(
            f"{path} is damaged or not a checkpoint of this package ({type(error).__name__}); "
            "delete it to go on from an older one"
        ) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise UsageError(f"{path} has format {found!r}; this version reads format {FORMAT}")
    return payload


def read_newest(run_dir: Path, device: torch.device | str = "cpu") -> tuple[Path, dict[str, Any], list[str]]:
    """The newest checkpoint that is whole, and a line for each newer one that had to be skipped.

    Raises:
        UsageError: no such run, or no whole checkpoint in it.
    """
    require_run(run_dir)
    skipped: list[str] = []
    for path in checkpoints(run_dir):
        try:
            return path, read_checkpoint(path, device), skipped
        except UsageError as error:
            skipped.append(str(error))
    reasons = "".join(f"\n  {line}" for line in skipped)
    raise UsageError(f"{run_dir} holds no checkpoint that can be read{reasons or ' (none was saved yet)'}")


def require_run(run_dir: Path) -> None:
    """Raise UsageError unless `run_dir` is a run folder."""
    if not (run_dir / "config.json").is_file():
        raise UsageError(f"{run_dir} is not a run folder: it has no config.json (runs are under runs/)")


def read_config(run_dir: Path | str) -> dict[str, Any]:
    """The run's config.json.

    Raises:
        UsageError: missing or not JSON.
    """
    require_run(Path(run_dir))
    try:
        return json.loads((Path(run_dir) / "config.json").read_text())
    except ValueError as error:
        raise UsageError(f"{run_dir}/config.json is not JSON: {error}") from error


def load(run: Path | str, device: torch.device | str = "cpu") -> ActorCritic:
    """The trained agent of a run, in evaluation mode.

    Args:
        run: a run folder (its newest whole checkpoint is read) or one checkpoint in it.
        device: where to put the agent.

    Raises:
        UsageError: no run, no readable checkpoint, or one that does not fit the run's config.json.
    """
    run = Path(run)
    if run.is_file():
        run_dir, path, payload = run.parent.parent, run, read_checkpoint(run, device)
    else:
        run_dir = run
        path, payload, _ = read_newest(run, device)
    agent = ActorCritic.from_config(read_config(run_dir)["agent"]).to(device)
    load_agent(agent, payload, path)
    return agent.eval()


def load_agent(agent: ActorCritic, payload: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into an agent.

    Raises:
        UsageError: they are of another configuration.
    """
    try:
        agent.load_state_dict(payload["agent"])
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise UsageError(
            f"{path} belongs to an agent of another configuration: {'; '.join(lines[1:3] or lines)}"
        ) from error

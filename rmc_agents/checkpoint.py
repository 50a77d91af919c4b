"""Run folders: what is saved, atomically, and read back without running anybody's code.

runs/NAME/config.json                      what was run: enough to build the agent again
runs/NAME/checkpoints/step_000001048576.pt agent, optimizer, generators, environments, memory
runs/NAME/checkpoints/best.json            which of them scored best while it trained, and how much

A checkpoint is not trusted: `safe_file` checks its form before torch reads it, and torch runs none of it.
What config.json names is built as it says: an environment is code found on your own import path.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from rmc_agents.actor_critic import ActorCritic
from rmc_agents.errors import NotAnAgent, TrainingError, UsageError
from rmc_agents.safe_file import Unsafe, check

FORMAT = 2
"""Version of the checkpoint's layout; raised when an older reader could not read it."""


def _from_1(payload: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew of recent episodes how many there were and how many were solved, not their returns."""
    if "recent" not in payload:
        return payload
    return {**payload, "recent": [[count, solved, 0.0] for count, solved in payload["recent"]]}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""What makes a checkpoint of one format one of the next."""

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


def save_checkpoint(
    run_dir: Path, step: int, payload: dict[str, Any], keep: int = 3, score: Sequence[float] | None = None
) -> Path:
    """Save tensors, numbers, strings and containers of them; the oldest beyond `keep` are deleted.

    The best one by `score` (compared as tuples are) stays, and those that evaluation.json judged.

    Raises:
        OSError: the disk is full, say. All that was saved before is as it was.
        TrainingError: there is something else in it.
    """
    folder = run_dir / "checkpoints"
    path = folder / f"step_{step:012d}.pt"
    # In memory first: torch ends the process where a disk fills up underneath it.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **{name: _own(part) for name, part in payload.items()}}, buffer)
    try:
        check(buffer)  # what could not be read again shall not push out what can
    except Unsafe as error:
        raise TrainingError(
            f"{path} could not be read again ({error}), and was not written; the state of an environment may "
            "be tensors, numbers, texts, and lists and dictionaries of them"
        ) from error
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    best = best_checkpoint(run_dir)
    if score is not None and (best is None or not best[0].is_file() or list(score) >= best[1]):
        write_json(folder / "best.json", {"checkpoint": path.name, "score": list(score)})
        best = path, list(score)
    kept = {best[0].name if best else "", *_judged(run_dir)}
    for old in checkpoints(run_dir)[keep:]:
        if old.name not in kept:
            old.unlink(missing_ok=True)
    for left in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return path


def _own(tree: Any) -> Any:
    """A tree with tensors that have their storage to themselves, without gradients."""
    if isinstance(tree, torch.Tensor):
        tree = tree.detach()
        alone = tree.numel() * tree.element_size() == tree.untyped_storage().nbytes()
        return tree if alone else tree.clone(memory_format=torch.contiguous_format)
    if isinstance(tree, dict):
        return {key: _own(part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [_own(part) for part in tree]
    return tree


def checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, newest first."""
    found = [p for p in (run_dir / "checkpoints").glob("step_*.pt") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name).group(1)), reverse=True)  # type: ignore[union-attr]


def best_checkpoint(run_dir: Path) -> tuple[Path, list[float]] | None:
    """The checkpoint with the best score while training, and its score: success rate, mean return."""
    try:
        best = json.loads((run_dir / "checkpoints" / "best.json").read_text())
        if not _NAME.fullmatch(best["checkpoint"]):
            return None
        return run_dir / "checkpoints" / best["checkpoint"], [float(x) for x in best["score"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # nothing hangs on it
        return None


def _judged(run_dir: Path) -> set[str]:
    """Names of the checkpoints whose figures are in evaluation.json."""
    try:
        entries = json.loads((run_dir / "evaluation.json").read_text()).values()
        return {Path(entry["checkpoint"]).name for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read one checkpoint, of this format or an older one.

    Nothing in the file is executed (`weights_only=True`), and no more memory is taken than the file is long.

    Raises:
        UsageError: missing, truncated, not a checkpoint, or of another format.
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
            f"{path} is damaged or not a checkpoint of this package ({reason}); "
            "delete it to go on from an older one"
        ) from error
    found = payload.get("format")
    if type(found) is not int or not (found == FORMAT or found in MIGRATIONS):
        shown = found if type(found) in (int, str) and len(str(found)) < 40 else type(found).__name__
        raise UsageError(
            f"{path} has format {shown}; this version reads formats {min(MIGRATIONS)} to {FORMAT}"
        )
    try:
        while found != FORMAT:
            payload, found = MIGRATIONS[found](payload), found + 1
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged: it is not what its format {found} says") from error
    return payload


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file for reading; UsageError for a folder, a pipe, a loop of links, or nothing."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}, not a checkpoint"
            )
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise UsageError(f"no checkpoint at {path}") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    with file:
        yield file


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


def free_run_dir(name: str) -> Path:
    """runs/NAME, with a number behind it where that is taken."""
    tries = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
    return next(path for path in tries if not path.exists())


def require_no_run(run_dir: Path) -> None:
    """Raise UsageError if a run has been saved in `run_dir`."""
    if checkpoints(run_dir):
        raise UsageError(
            f"{run_dir} already holds a run: go on with --resume {run_dir}, or choose another --run-dir"
        )


def cannot_write(run_dir: Path, error: OSError) -> UsageError:
    """What to tell the user of a run folder that cannot be written."""
    return UsageError(
        f"cannot write to the run folder {run_dir}: {error.strerror or error}; make room, or choose "
        "another --run-dir"
    )


def require_run(run_dir: Path) -> None:
    """Raise UsageError unless `run_dir` is a run folder."""
    if not (run_dir / "config.json").is_file():
        raise UsageError(f"{run_dir} is not a run folder: it has no config.json (runs are under runs/)")


def read_config(run_dir: Path | str) -> dict[str, Any]:
    """The run's config.json, in which "agent" describes an agent.

    Raises:
        UsageError: missing, not JSON, or not of a run.
    """
    require_run(Path(run_dir))
    path = Path(run_dir) / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise UsageError(f"{path} is larger than any configuration")
        config = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {str(error)[:200] or type(error).__name__}") from error
    if not isinstance(config, dict) or not isinstance(config.get("agent"), dict):
        raise UsageError(f'{path} does not describe a run: it has no "agent"')
    large = _largest_number(config["agent"])
    if large > MAX_SIZE:
        raise UsageError(f"{path} asks for a size of {large:.3g}; no agent has one above {MAX_SIZE:,}")
    return config


MAX_CONFIG = 2**24
"""Bytes of config.json."""
MAX_SIZE = 2**20
"""Of anything in an agent: a width, a number of slots, an axis of an observation."""


def _largest_number(tree: Any) -> float:
    """The largest size in a description; the bounds of a space ("low", "high") and its start are none."""
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
    config = read_config(run_dir)
    require_fit(config, payload, path)
    agent = build_agent(config, run_dir).to(device)
    load_agent(agent, payload, path)
    return agent.eval()


def export_agent(run: Path | str, folder: Path | str) -> Path:
    """Write a run's trained agent alone, without what training needs to go on, as a small run folder.

    Its floating-point weights are rounded to half precision: a fifth of the bytes and less, and evaluation is
    as before in all but the last digit. `load`, `train/evaluate.py` and `train/probe.py` take the folder.

    Returns:
        the checkpoint in `folder`.

    Raises:
        UsageError: `run` holds no run or no readable checkpoint, or weights too large for half precision.
    """
    folder = Path(folder)
    path, payload, _ = read_newest(Path(run))
    config = read_config(run)
    require_fit(config, payload, path)
    weights = half_precision(payload["agent"], path)
    write_json(folder / "config.json", config)
    for old in checkpoints(folder):
        old.unlink()
    return save_checkpoint(folder, payload["steps"], {"agent": weights, "steps": payload["steps"]})


def half_precision(weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Weights as `load_agent` takes them too: the floating-point ones in half precision.

    Raises:
        UsageError: some are too large for that; `path` is where they were read.
    """
    halves = {name: x.half() if x.is_floating_point() else x for name, x in weights.items()}
    if not all(x.isfinite().all() for x in halves.values()):
        raise UsageError(f"{path} holds weights that are too large for half precision")
    return halves


def build_agent(config: dict[str, Any], run_dir: Path) -> ActorCritic:
    """The untrained agent that a config.json describes.

    Raises:
        UsageError: it describes none.
    """
    if "num_classes" in config["agent"]:
        raise NotAnAgent(
            f"{run_dir} holds a classifier, not an agent: python train/nth_farthest.py --evaluate {run_dir}"
        )
    try:
        return ActorCritic.from_config(config["agent"])
    except Exception as error:  # whatever a core's constructor raises for options of a wrong type
        raise UsageError(f"{run_dir}/config.json does not describe an agent: {_brief(error)}") from error


def require_fit(config: dict[str, Any], payload: dict[str, Any], path: Path) -> None:
    """Raise UsageError if the agent that config.json describes is not the checkpoint's.

    Asked of an agent without memory of its own (torch's meta device), so that it costs nothing, however large
    config.json says that the agent is.
    """
    try:
        with torch.device("meta"):
            blank = ActorCritic.from_config(config["agent"])
    except Exception:  # a core of the user's that cannot be built so; what is wrong is said when it is built
        return
    load_agent(blank, payload, path)


def _brief(error: Exception) -> str:
    text = str(error).splitlines()[0][:200] if str(error) else ""
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__} {text}".strip()


def load_agent(agent: nn.Module, payload: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into an agent (or another network), all or none of them.

    Raises:
        UsageError: they are of another configuration.
    """
    given = payload.get("agent")
    if not isinstance(given, dict) or not all(isinstance(x, torch.Tensor) for x in given.values()):
        raise UsageError(f"{path} holds no agent")
    wanted = agent.state_dict()
    halves = {name for name, x in given.items() if x.dtype == torch.float16 and name in wanted}
    given = {name: x.to(wanted[name].dtype) if name in halves else x for name, x in given.items()}
    wrong = [
        f"{name}: {_form(given.get(name))}, expected {_form(wanted.get(name))}"
        for name in [*wanted, *(name for name in given if name not in wanted)]
        if _form(given.get(name)) != _form(wanted.get(name))
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UsageError(f"{path} belongs to an agent of another configuration: {'; '.join(wrong[:3])}{more}")
    if next(agent.parameters()).device.type != "meta":
        agent.load_state_dict(given)


def _form(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

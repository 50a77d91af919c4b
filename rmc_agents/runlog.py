"""The figures of a run, for TensorBoard and as JSON lines: every step once, whatever happened in between.

runs/NAME/tensorboard/  SB3's names
runs/NAME/log.jsonl     {"step": 4096, "time/fps": 8000.0, ...} an iteration, or {"step": 4096, "note": "..."}
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from rmc_agents.checkpoint import write_atomically


class RunLog:
    """Writes figures by their step. A full disk costs figures, never the training.

    Args:
        run_dir: the run folder.
        step: what was written about later steps, before a crash, is dropped.
        note: told once if figures cannot be written.
    """

    def __init__(self, run_dir: Path, step: int, note: Callable[[str], None]) -> None:
        from torch.utils.tensorboard import (
            SummaryWriter,  # half a second that `import rmc_agents` need not pay
        )

        self.note, self.failed = note, False
        folder = run_dir / "tensorboard"
        began = folder.is_dir() and any(folder.iterdir())
        # TensorBoard drops what earlier files say about this step and later ones.
        self.writer = SummaryWriter(folder, purge_step=step + 1 if began else None)
        path = run_dir / "log.jsonl"
        _drop_after(path, step)
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """One iteration's figures."""
        try:
            for tag, value in figures.items():
                self.writer.add_scalar(tag, value, step)
        except Exception as error:  # the writer's thread passes on whatever stopped it
            self._say(error)
        finite = {tag: value if value - value == 0 else None for tag, value in figures.items()}
        self._line({"step": step, **finite})

    def event(self, step: int, message: str) -> None:
        """Something that happened, such as a warning."""
        self._line({"step": step, "note": message})

    def close(self) -> None:
        with contextlib.suppress(Exception):  # what could not be written has been said
            self.writer.close()
        self.file.close()

    def _line(self, value: Mapping[str, object]) -> None:
        line = json.dumps(value).encode() + b"\n"
        end = self.file.seek(0, 2)
        try:
            if self.file.write(line) != len(line):
                raise OSError("it was written in part")
        except OSError as error:
            self._say(error)
            with contextlib.suppress(OSError):
                self.file.truncate(end)

    def _say(self, error: Exception) -> None:
        if not self.failed:
            self.note(f"warning: figures cannot be written ({error}); training goes on without")
        self.failed = True


def _drop_after(path: Path, step: int) -> None:
    """Leave the lines about steps up to `step`; one that was cut short by a crash goes too."""
    if not path.exists():
        return
    data = path.read_bytes()
    kept = b"".join(line for line in data.splitlines(keepends=True) if _is_upto(line, step))
    if kept != data:
        write_atomically(path, lambda file: file.write(kept))


def _is_upto(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False

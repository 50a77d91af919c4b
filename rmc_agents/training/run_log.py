"""Figures of a run, for TensorBoard and as JSON lines: each step once, also after a crash.

runs/NAME/tensorboard/  SB3's names
runs/NAME/log.jsonl     {"step": 4096, "time/fps": 8000.0, ...} per iteration, or {"step": 4096, "note":
"..."}
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from rmc_agents.runs.files import read_regular, write_atomically


class RunLog:
    """Writer of figures by step, unbuffered. A full disk loses figures but does not stop training.

    Args:
        run_dir: the run folder.
        step: what was written about later steps, before a crash, is dropped.
        note: called once, with a message, if figures cannot be written.
    """

    def __init__(self, run_dir: Path, step: int, note: Callable[[str], None]) -> None:
        self.note, self.failed = note, False
        path = run_dir / "log.jsonl"
        _drop_after(path, step)
        self.lines: IO[bytes] = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        folder = run_dir / "tensorboard"
        folder.mkdir(exist_ok=True)
        before = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
        # TensorBoard reads the files in the order of their names, and the clocks of two machines may
        # disagree.
        newest = max([int(time.time()), *(int(stamp) for stamp in before if stamp.isdecimal())])
        name = f"events.out.tfevents.{newest}.{len(before):06d}"
        self.events: IO[bytes] = open(folder / name, "ab", buffering=0)  # noqa: SIM115
        self._event(file_version="brain.Event:2")
        if before:
            # TensorBoard drops what earlier files say from this step on.
            log = _protos()[0].SessionLog
            self._event(session_log=log(status=log.START), step=step + 1)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of one iteration."""
        summary = _protos()[1].Summary
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._event(summary=summary(value=values), step=step)
        finite = {tag: value if value - value == 0 else None for tag, value in figures.items()}
        self._line({"step": step, **finite})

    def message(self, step: int, message: str) -> None:
        """Write something that happened, such as a warning."""
        self._line({"step": step, "note": message})

    def close(self) -> None:
        for file in (self.lines, self.events):
            with contextlib.suppress(OSError):  # what was written before is written
                file.close()

    def _line(self, value: Mapping[str, object]) -> None:
        self._append(self.lines, json.dumps(value).encode() + b"\n")

    def _event(self, **fields: Any) -> None:
        # Not through SummaryWriter: its thread holds figures for two minutes, which a kill loses, and prints
        # a traceback when the disk is full.
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(_protos()[0].Event(wall_time=time.time(), **fields).SerializeToString())
        self._append(self.events, record.getvalue())

    def _append(self, file: IO[bytes], data: bytes) -> None:
        """Append all of the data, or nothing."""
        end: int | None = None
        try:
            end = file.seek(0, 2)
            if file.write(data) != len(data):
                raise OSError("no space left")
        except OSError as error:
            if not self.failed:
                self.failed = True
                self.note(f"warning: figures cannot be written ({error}); training continues without them")
            with contextlib.suppress(OSError):
                if end is not None:
                    file.truncate(end)


def _protos() -> tuple[Any, Any]:
    """Return TensorBoard's event and summary modules, whose classes are created on import."""
    from tensorboard.compat.proto import event_pb2, summary_pb2

    return event_pb2, summary_pb2


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines about steps up to `step`; drop the others, and a line cut short by a crash."""
    if not path.exists():
        return
    data = read_regular(path)
    kept = b"".join(line for line in data.splitlines(keepends=True) if _is_upto(line, step))
    if kept != data:
        write_atomically(path, lambda file: file.write(kept))


def _is_upto(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError, RecursionError):
        return False

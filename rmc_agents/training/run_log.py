"""Figures of a run, for TensorBoard and as JSON lines: each step once, also after a crash.

runs/NAME/tensorboard/  SB3's names
runs/NAME/log.jsonl     {"step": 4096, "time/fps": 8000.0, ...} per iteration, or {"step": 4096, "note":
"..."}

TensorBoard's files are written through torch's `SummaryWriter`, because other trackers listen there.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rmc_agents.runs.files import read_regular, write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        self.writer = _summary_writer(run_dir / "tensorboard", step, self._append)

    def hyperparameters(
        self, values: Mapping[str, bool | int | float | str], metrics: Sequence[str] = ()
    ) -> None:
        """Write what TensorBoard shows under HPARAMS, beside the latest value of each metric.

        Args:
            values: the hyperparameters, by name.
            metrics: tags of figures.
        """
        from torch.utils.tensorboard.summary import hparams

        # Not `SummaryWriter.add_hparams`, which makes a folder of its own for them.
        experiment, session, _ = hparams(dict(values), dict.fromkeys(metrics, 0.0))
        file_writer: Any = self.writer.file_writer
        for summary in (experiment, session):
            file_writer.add_summary(summary)
        self.writer.flush()

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of one iteration."""
        for tag, value in figures.items():
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()
        finite = {tag: value if value - value == 0 else None for tag, value in figures.items()}
        self._line({"step": step, **finite})

    def message(self, step: int, message: str) -> None:
        """Write something that happened, such as a warning."""
        self._line({"step": step, "note": message})

    def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # what was written before is written
            self.lines.close()

    def _line(self, value: Mapping[str, object]) -> None:
        self._append(self.lines, json.dumps(value).encode() + b"\n")

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


class _EventFile:
    """File of TensorBoard's events, to which `flush` appends those since the last one.

    It takes the place of SummaryWriter's own, whose thread prints a traceback when the disk is full, and
    writes nothing from then on.
    """

    def __init__(self, path: Path, append: Callable[[IO[bytes], bytes], None]) -> None:
        self.path, self.append, self.pending = path, append, io.BytesIO()
        self.file: IO[bytes] = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()

    def get_logdir(self) -> str:
        return str(self.path.parent)

    def add_event(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self.pending).write(event.SerializeToString())

    def flush(self) -> None:
        data, self.pending = self.pending.getvalue(), io.BytesIO()
        if data:
            self.append(self.file, data)

    def close(self) -> None:
        self.flush()
        with contextlib.suppress(OSError):
            self.file.close()


def _summary_writer(folder: Path, step: int, append: Callable[[IO[bytes], bytes], None]) -> SummaryWriter:
    """Return a writer whose events follow those of earlier files about steps up to `step`."""
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(exist_ok=True)
    before = set(folder.glob("events.out.tfevents.*"))
    stamps = [int(part) for path in before if (part := path.name.split(".")[3]).isdecimal()]
    # TensorBoard drops what earlier files say from `purge_step` on.
    writer = SummaryWriter(str(folder), purge_step=step + 1 if before else None)
    file_writer: Any = writer.file_writer
    file_writer.event_writer.close()
    (path,) = {*folder.glob("events.out.tfevents.*")} - before
    # TensorBoard reads the files in the order of their names; two may start within a second, and the clocks
    # of two machines may disagree.
    *beginning, stamp, end = path.name.split(".", 4)
    if int(stamp) <= max(stamps, default=-1):
        path = path.rename(path.with_name(".".join([*beginning, str(max(stamps) + 1), end])))
    file_writer.event_writer = _EventFile(path, append)
    return writer


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

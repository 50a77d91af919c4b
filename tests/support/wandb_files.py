"""Files that Weights & Biases writes offline."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
"""Bytes of a block of the file, which is a log of LevelDB behind a header of 7 bytes."""


@dataclass
class OfflineRun:
    """An offline run."""

    id: str = ""
    name: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """Figures by step."""
    exit_code: int | None = None


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Return the offline runs in a folder, oldest first."""
    return [_read(path) for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))]


def _read(path: Path) -> OfflineRun:
    from wandb.proto.wandb_internal_pb2 import Record

    run = OfflineRun()
    for data in _records(path.read_bytes()):
        record: Any = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
            run.config |= _config(record.run.config.update)
        elif kind == "config":
            run.config |= _config(record.config.update)
        elif kind == "history":
            items = record.history.item
            run.history.append({_key(item): json.loads(item.value_json) for item in items})
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _records(data: bytes) -> Iterator[bytes]:
    at, record = 7, b""
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < 7:  # padding
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def _config(updates: Any) -> dict[str, Any]:
    return {_key(update): json.loads(update.value_json) for update in updates}


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)

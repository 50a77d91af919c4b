"""Run log: every step once, also after a crash; a full disk costs figures only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rmc_agents.training.run_log import RunLog


def test_log_cut_short_by_a_crash_continues_without_doubled_steps(tmp_path: Path) -> None:
    lines = [json.dumps({"step": n}) for n in (1, 2, 3, 4)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "ti')
    log = RunLog(tmp_path, 2, note=pytest.fail)
    log.figures(3, {"time/fps": float("nan")})
    log.close()
    assert [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "time/fps": None},
    ]


def test_figures_that_cannot_be_written_cause_one_warning(tmp_path: Path) -> None:
    notes: list[str] = []
    log = RunLog(tmp_path, 0, note=notes.append)
    log.lines.close()
    log.lines = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    for step in range(3):
        log.figures(step, {"time/fps": 1.0})
    log.close()
    assert len(notes) == 1
    assert "No space left on device" in notes[0]


def test_messages_and_figures_appear_in_order(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, note=pytest.fail)
    log.figures(1, {"time/fps": 2.0})
    log.message(1, "warning: hot")
    log.close()
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "time/fps": 2.0}, {"step": 1, "note": "warning: hot"}]


def test_pipe_instead_of_a_log_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="not a regular file"):
        RunLog(tmp_path, 0, note=pytest.fail)

"""Progress of waits: nothing for short ones, lines for long ones where the output is not a terminal."""

from __future__ import annotations

import pytest

from rmc_agents.cli import waiting as module
from rmc_agents.cli.waiting import waiting


def test_short_wait_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("work", 3) as report:
        for done in (1, 2, 3):
            report(done)
    assert capsys.readouterr() == ("", "")


def test_long_wait_prints_lines_in_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 1000, 11))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    with waiting("work of [/b]\x1b[2J", 3000) as report:
        for done in (1000, 2000, 3000):
            report(done)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [rf"work of [/b]\x1b[2J: {done} of 3,000" for done in ("1,000", "2,000")]


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with waiting("work of [/b]", 3) as report:
        report(2)
    assert "work of [/b]" in capsys.readouterr().out

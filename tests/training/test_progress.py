"""Progress display."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rmc_agents.training.progress import Progress

BRACKETS = [
    "[/joint]",
    "sweep[lr=1e-3]/run",
    "[bold]loud[/bold]",
    "[link=x",
    "\\[red]",
    ":smile:",
    "{steps}",
    "%s %d",
    "50 %",
]
COLUMNS = {"steps": "{:,.0f}", "steps/s": "{:,.0f}", "time left": "{}"}


@pytest.mark.parametrize("text", BRACKETS)
@pytest.mark.parametrize("terminal", [False, True])
def test_square_brackets_are_text_and_not_markup(text: str, terminal: bool) -> None:
    output = io.StringIO()
    progress = Progress(f"rmc on {text}", 100, COLUMNS)
    progress.console = Console(file=output, force_terminal=terminal, width=100, color_system=None)
    progress.rows = [{"steps": 10, "steps/s": 5}]
    progress.note(f"warning: {text}")
    progress.console.print(progress._table())
    assert f"warning: {text}" in output.getvalue()
    assert f"rmc on {text}  10 %" in output.getvalue()

"""Progress of a wait: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmc_agents.cli.script import say
from rmc_agents.errors import shown

EVERY = 10.0
"""Seconds between lines where the output is not a terminal."""

Report = Callable[[int], None]
"""Takes the number of pieces of work that are done."""


@contextmanager
def waiting(title: str, total: int) -> Iterator[Report]:
    """Show how far some work is, while the context is open.

    Waits of less than `EVERY` seconds leave nothing on the output.

    Args:
        title: what is done.
        total: number of pieces of work.
    """
    title, console = shown(title), Console()
    if not console.is_terminal:
        yield _Lines(title, total).report
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


class _Lines:
    """Lines of progress, for an output that is not a terminal."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.last = title, total, time.monotonic()

    def report(self, done: int) -> None:
        now = time.monotonic()
        if now - self.last >= EVERY and done < self.total:
            say(f"{self.title}: {done:,} of {self.total:,}")
            self.last = now

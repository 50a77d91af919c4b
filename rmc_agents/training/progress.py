"""Progress display: a live table on a terminal, plain lines elsewhere.

The display may fail (a full disk, a terminal that was closed): it is then off, and training continues.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rmc_agents.errors import printable


def say(message: str) -> None:
    """Print a line to stdout, where training must not fail because stdout does."""
    try:
        print("\n".join(map(printable, message.split("\n"))), flush=True)
    except (OSError, ValueError) as error:
        output_failed(error)


def output_failed(error: Exception) -> None:
    """Say on stderr that stdout failed, and discard what it still holds and what is yet to be printed."""
    discard(sys.__stdout__)
    reason = getattr(error, "strerror", None) or error
    try:
        print(
            f"warning: stdout cannot be written ({reason}); output is discarded", file=sys.stderr, flush=True
        )
    except (OSError, ValueError):
        discard(sys.__stderr__)


def discard(stream: TextIO | None) -> None:
    """Send what a stream still holds, and what is yet to be written, to nowhere.

    Otherwise Python tries again at its end, and exits with code 120.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
        os.close(nowhere)


class _Console(Console):
    """Console that leaves a closed pipe to us, where rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Progress:
    """Display of the latest figures; use it as a context manager.

    Args:
        title: above the table.
        total_steps: the budget of the whole run.
        columns: name and format of each column; "steps", "steps/s" and "time left" are among them.
        every: seconds between plain lines if the output is not a terminal.
    """

    def __init__(self, title: str, total_steps: int, columns: Mapping[str, str], every: float = 5.0) -> None:
        self.columns = columns
        self.console = _Console()
        self.title, self.total_steps, self.every = printable(title), total_steps, every
        self.failed = False
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.last_line = float("-inf")
        self.rows: list[Mapping[str, float]] = []
        self.printed: Mapping[str, float] | None = None  # the row of the last plain line

    def __enter__(self) -> Progress:
        if self.live is not None:
            self._attempt(self.live.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            with contextlib.suppress(OSError, ValueError):
                self.live.stop()
        elif self.rows and self.rows[-1] is not self.printed:
            self._line(self.rows[-1])

    def show(self, figures: Mapping[str, float]) -> None:
        """Show figures by the names of the columns; a missing one becomes a dash.

        A run with a limit besides steps also gives "time left" in seconds, and the "share" of its budget
        used.
        """
        self.rows = [*self.rows[-11:], figures]
        if self.live is not None:
            live, table = self.live, self._table()
            self._attempt(lambda: live.update(table, refresh=True))
        elif time.monotonic() - self.last_line >= self.every:
            self._line(figures)
            self.last_line = time.monotonic()

    def note(self, message: str) -> None:
        """Print lines that stay; square brackets in them are text, not rich's markup."""
        lines = "\n".join(map(printable, message.split("\n")))
        if not _fits(lines, self.console.encoding):
            lines = lines.encode("ascii", "backslashreplace").decode()
        self._attempt(
            lambda: self.console.print(lines, markup=False, highlight=False, emoji=False, soft_wrap=True)
        )

    def _attempt(self, write: Callable[[], object]) -> None:
        """Write to the display, unless it has failed before; say once if it fails."""
        if self.failed:
            return
        try:
            write()
        except (OSError, ValueError) as error:  # ValueError: a closed file
            self.failed = True
            output_failed(error)

    def _cells(self, figures: Mapping[str, float]) -> dict[str, str]:
        cells = {name: form.format(figures[name]) for name, form in self.columns.items() if name in figures}
        done = figures.get("steps", 0)
        left = max(self.total_steps - done, 0) / max(figures.get("steps/s", 0), 1e-9)
        left = max(min(left, figures.get("time left", left)), 0)
        left = math.inf if math.isnan(left) else left
        cells["time left"] = f"{int(left // 60)}:{int(left % 60):02d}" if left < 1e7 else "-"
        return {name: cells.get(name, "-") for name in self.columns}

    def _table(self) -> Table:
        newest = self.rows[-1]
        share = newest.get("share", newest.get("steps", 0) / self.total_steps)
        table = Table(title=Text(f"{self.title}  {100 * share:.0f} %", "table.title"))
        for name in self.columns:
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(*self._cells(row).values())
        return table

    def _line(self, figures: Mapping[str, float]) -> None:
        self.printed = figures
        self.note("  ".join(f"{name} {value}" for name, value in self._cells(figures).items()))


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True

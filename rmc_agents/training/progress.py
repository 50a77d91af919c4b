"""Progress display: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


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
        self.console = Console()
        self.title, self.total_steps, self.every = title, total_steps, every
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.last_line = float("-inf")
        self.rows: list[Mapping[str, float]] = []
        self.printed: Mapping[str, float] | None = None  # the row of the last plain line

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
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
            self.live.update(self._table(), refresh=True)
        elif time.monotonic() - self.last_line >= self.every:
            self._line(figures)
            self.last_line = time.monotonic()

    def note(self, message: str) -> None:
        """Print a line that stays; square brackets in it are text, not rich's markup."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _cells(self, figures: Mapping[str, float]) -> dict[str, str]:
        cells = {name: form.format(figures[name]) for name, form in self.columns.items() if name in figures}
        done = figures.get("steps", 0)
        left = max(self.total_steps - done, 0) / max(figures.get("steps/s", 0), 1e-9)
        left = max(min(left, figures.get("time left", left)), 0)
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

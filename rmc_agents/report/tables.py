"""Tables of results, built once and shown on the terminal, in Markdown and in the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from rmc_agents.cli.script import showing
from rmc_agents.errors import printable
from rmc_agents.evaluation.entries import Figures
from rmc_agents.evaluation.results import Result, by_size, scores_by_core
from rmc_agents.evaluation.statistics import (
    Interval,
    aggregate,
    improvement_interval,
    probability_of_improvement,
)
from rmc_agents.report.text import markdown_text

Cells = tuple[str, ...]
FILE_WIDTH = 170
"""Characters in a line where the output is not a terminal."""


@dataclass(frozen=True)
class Table:
    """Cells of text, in sections."""

    title: str
    columns: Cells
    numeric: frozenset[str]
    """The columns that are aligned to the right."""
    sections: tuple[tuple[Cells, ...], ...]

    def print(self, console: Console | None = None) -> None:
        """Print the table; no text in it is read as terminal markup.

        Args:
            console: where to print; by default the standard output, with wide lines if it is a file.
        """
        if console is None:
            console = Console()
            console = console if console.is_terminal else Console(width=FILE_WIDTH)
        title = Text(printable(self.title), style="table.title")
        table = rich_table.Table(title=title, title_justify="left")
        for column in self.columns:
            right = column in self.numeric
            table.add_column(
                Text(printable(column)), justify="right" if right else "left", no_wrap=right, overflow="fold"
            )
        for section in self.sections:
            for row in section:
                table.add_row(*(Text(printable(cell)) for cell in row))
            table.add_section()
        with showing():
            console.print(table)

    def markdown(self) -> str:
        """Return a pipe table, without the title."""
        rows = [self.columns, *(row for section in self.sections for row in section)]
        lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]
        rule = " | ".join("--:" if column in self.numeric else "---" for column in self.columns)
        return "\n".join([lines[0], f"| {rule} |", *lines[1:]])


def evaluation_table(results: Sequence[Result]) -> Table:
    """Return a table of agents by environment, with policies without memory and the best possible one."""
    columns = (
        "environment",
        "policy",
        "success",
        "return",
        "length",
        "length / best",
        "episodes",
        "implementation",
    )
    sections = []
    for env_id in sorted({result.env_id for result in results}, key=by_size):
        here = [result for result in results if result.env_id == env_id]
        rows = dict.fromkeys(
            [*map(_agent_row, here), *(row for each in here for row in _reference_rows(each))]
        )
        sections.append(tuple(("" if i else env_id, *row) for i, row in enumerate(rows)))
    title = "success and return with 95 % intervals; length in steps"
    return Table(title, columns, frozenset(columns[2:7]), tuple(sections))


def core_table(results: Sequence[Result]) -> Table:
    """Return a table of the interquartile mean over the runs of each core, and of which core is better.

    Runs of a core that were trained in different environments have rows of their own.

    The score is the success rate if every result has one, else the return. Environments in which not every
    core was evaluated are left out.

    Raises:
        ValueError: no environment has a score of every core.
    """
    scores = scores_by_core(results)
    sections = [
        _core_rows(env_id, {core: [by_env[i]] for core, by_env in scores.by_core.items()})
        for i, env_id in enumerate(scores.env_ids)
    ]
    if len(sections) > 1:
        sections.append(_core_rows("all environments", scores.by_core))
    columns = ("environment", "core", "IQM", "95 % interval", "runs", "P(better than first)")
    title = f"{scores.name} by core: interquartile mean over runs, bootstrap interval over runs"
    return Table(title, columns, frozenset(columns[2:]), tuple(sections))


def value_cell(value: float | None, interval: Interval | None) -> str:
    """Return a number with its interval, such as `0.981 [0.970, 0.989]`; a dash if it is None."""
    return "-" if value is None else f"{value:.3f} {_interval(interval)}".rstrip()


def _agent_row(result: Result) -> Cells:
    entry = result.entry
    return (f"{result.run} ({result.core})", *_cells(entry.figures, entry.best_possible))


def _reference_rows(result: Result) -> list[Cells]:
    """Return the policies that an agent is compared with."""
    entry = result.entry
    memoryless = "" if entry.memoryless is None else f"{entry.memoryless.run} (no memory)"
    named = [
        (memoryless, entry.memoryless),
        ("random", entry.random),
        ("best without memory", entry.best_memoryless),
        ("reference play", entry.reference),
        ("best possible", entry.best_possible),
    ]
    return [(name, *_cells(figures, entry.best_possible)) for name, figures in named if figures is not None]


def _core_rows(env_id: str, scores: dict[str, list[list[float]]]) -> tuple[Cells, ...]:
    """Return one row for each core, the best first."""
    totals = {core: aggregate(by_env) for core, by_env in scores.items()}
    first, *others = sorted(scores, key=lambda core: -totals[core].iqm)
    rows = []
    for core in (first, *others):
        better = ""
        if core != first:
            x, y = scores[core], scores[first]
            better = (
                f"{probability_of_improvement(x, y):.2f} {_interval(improvement_interval(x, y))}".rstrip()
            )
        total, runs = totals[core], str(max(len(runs) for runs in scores[core]))
        environment = "" if rows else env_id
        rows.append((environment, core, f"{total.iqm:.3f}", _interval(total.interval), runs, better))
    return tuple(rows)


def _cells(figures: Figures, best: Figures | None) -> Cells:
    """Return success, return, length, length relative to the best possible, episodes, implementation."""
    length, shortest = figures.mean_length, None if best is None else best.mean_length
    return (
        value_cell(figures.success_rate, figures.success_ci95),
        value_cell(figures.mean_return, figures.return_ci95),
        "-" if length is None else f"{length:,.1f}",
        "" if length is None or not shortest else f"{length / shortest:,.2f}",
        f"{figures.episodes:,}" if figures.episodes else "",
        figures.implementation or "",
    )


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"

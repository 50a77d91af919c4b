"""Results as tables: once, for the terminal, for Markdown and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import table as rich_table
from rich.console import Console

from rmc_agents.results import Entry, Result, by_size, scores_by_core
from rmc_agents.statistics import Interval, aggregate, improvement_interval, probability_of_improvement

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells as text, in sections."""

    title: str
    columns: Cells
    numeric: frozenset[str]
    """Columns that are set to the right."""
    sections: tuple[tuple[Cells, ...], ...]

    def print(self, console: Console | None = None) -> None:
        """Show it in the terminal; as wide as it needs where the output is a file, so that nothing is cut."""
        if console is None:
            console = Console()
            console = console if console.is_terminal else Console(width=170)
        table = rich_table.Table(title=self.title, title_justify="left")
        for column in self.columns:
            right = column in self.numeric
            table.add_column(column, justify="right" if right else "left", no_wrap=right, overflow="fold")
        for section in self.sections:
            for row in section:
                table.add_row(*row)
            table.add_section()
        console.print(table)

    def markdown(self) -> str:
        """A pipe table, without its title."""
        rule = ["--:" if column in self.numeric else "---" for column in self.columns]
        rows = [self.columns, rule, *(row for section in self.sections for row in section)]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def evaluation_table(results: Sequence[Result]) -> Table:
    """Agents, environment by environment, beside policies without memory and the best possible one."""
    columns = ("environment", "policy", "success", "return", "length", "length / best", "episodes", "by")
    sections = []
    for env_id in sorted({result.env_id for result in results}, key=by_size):
        rows: list[Cells] = []
        here = [result for result in results if result.env_id == env_id]
        named = [(f"{result.run} ({result.core})", result.entry, result.entry) for result in here]
        for result in here:
            for name in ("memoryless", "random", "best_possible"):
                figures = result.entry.get(name)
                if figures:
                    label = (
                        f"{figures['run']} (no memory)" if name == "memoryless" else name.replace("_", " ")
                    )
                    named.append((label, figures, result.entry))
        for label, figures, entry in named:
            row = (label, *_cells(figures, entry.get("best_possible")))
            if row not in [row[1:] for row in rows]:  # several runs share what they are compared with
                rows.append(("" if rows else env_id, *row))
        sections.append(tuple(rows))
    title = "success and return with 95 % intervals; length in steps"
    return Table(title, columns, frozenset(columns[2:7]), tuple(sections))


def core_table(results: Sequence[Result]) -> Table:
    """Several runs together by core: interquartile mean over runs, and who beats whom.

    The score is the success rate where every environment has one, else the return. Environments that not
    every core was judged in are left out.
    """
    scores = scores_by_core(results)
    sections = [
        _core_rows(env_id, {core: [by_env[i]] for core, by_env in scores.by_core.items()})
        for i, env_id in enumerate(scores.env_ids)
    ]
    if len(sections) > 1:
        sections.append(_core_rows("all of them", scores.by_core))
    columns = ("environment", "core", "IQM", "95 % interval", "runs", "P(better than the first)")
    title = f"{scores.name} by core: interquartile mean over runs, bootstrap interval over runs"
    return Table(title, columns, frozenset(columns[2:]), tuple(sections))


def _core_rows(env_id: str, scores: dict[str, list[list[float]]]) -> tuple[Cells, ...]:
    """One row a core, best first."""
    totals = {core: aggregate(by_env) for core, by_env in scores.items()}
    cores = sorted(scores, key=lambda core: -totals[core].iqm)
    rows = []
    for core in cores:
        total = totals[core]
        better = ""
        if core != cores[0]:
            x, y = scores[core], scores[cores[0]]
            better = (
                f"{probability_of_improvement(x, y):.2f} {_interval(improvement_interval(x, y))}".rstrip()
            )
        where = "" if rows else env_id
        runs = str(max(len(runs) for runs in scores[core]))
        rows.append((where, core, f"{total.iqm:.3f}", _interval(total.interval), runs, better))
    return tuple(rows)


def _cells(figures: Entry, best: Entry | None) -> Cells:
    """Success, return, length, length in units of the best possible, episodes, whose implementation."""
    length = figures["mean_length"]
    return (
        value_cell(figures.get("success_rate"), figures.get("success_ci95")),
        value_cell(figures["mean_return"], figures.get("return_ci95")),
        f"{length:,.1f}",
        f"{length / best['mean_length']:,.2f}" if best else "",
        f"{figures['episodes']:,}" if figures.get("episodes") else "",
        figures.get("implementation", ""),
    )


def value_cell(value: float | None, interval: Sequence[float] | None) -> str:
    """A number with its interval, as `0.981 [0.970, 0.989]`."""
    return "-" if value is None else f"{value:.3f} {_interval(interval)}".rstrip()


def _interval(interval: Interval | Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"

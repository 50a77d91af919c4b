"""Reports of benchmarks: the same tables in the terminal, as JSON and as Markdown.

Every table of a Markdown report stands between two markers, `<!-- --8<-- [start:NAME] -->` and
`<!-- --8<-- [end:NAME] -->`, so that a page of the documentation can include it (pymdownx.snippets), and a
figure is written down once.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from rmc_agents.runs.files import write_atomically, write_text
from rmc_agents.runs.versions import versions

Row = dict[str, Any]
"""A row of a table: column -> cell. All rows of a table have the same columns; the first has their order."""
CORE_NAMES = {
    "rmc": "RMC",
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn": "RNN",
    "dnc": "DNC",
    "gated_delta": "gated delta",
    "mingru": "minGRU",
    "lru": "LRU",
    "shm": "SHM",
    "gtrxl": "GTrXL",
    "delta_rmc": "delta RMC",
    "entity_delta": "entity delta",
    "rmc-coupled": "RMC, coupled gates",
    "delta_rmc-lasting": "delta RMC, trained to last",
    "rmc-lasting": "RMC, trained to last",
    "feedforward": "feedforward (no memory)",
}
"""Names of the memory cores in summaries."""


@dataclass(frozen=True)
class Summary:
    """A short table of the main figures, made from the full tables for the documentation to include."""

    name: str
    """Name of the snippet."""
    title: str
    rows: list[Row]
    """Cells are text."""
    note: str = ""
    """Markdown below the table, part of the snippet."""


@dataclass
class Report:
    """The findings of a benchmark."""

    module: str
    """Python module of the benchmark."""
    title: str
    """Heading of the Markdown page."""
    machine: Row
    """Where it was measured, from `describe_machine`."""
    tables: dict[str, list[Row]]
    """Title -> rows."""
    notes: list[str] = field(default_factory=list)
    """How it was measured, and how to read it."""
    summaries: list[Summary] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    """Further sections of the Markdown page: title -> Markdown."""
    files: str = ""
    """Name of the files without an ending, if it is not the last part of the module's name."""

    @property
    def name(self) -> str:
        """Name of the files, without an ending."""
        return self.files or self.module.rpartition(".")[2]

    @property
    def command(self) -> str:
        """The command that runs the benchmark."""
        return f"python -m {self.module}"

    def print(self) -> None:
        """Print the tables, the notes and the machine."""
        console = Console(width=None if sys.stdout.isatty() else 150)
        for title, rows in self.tables.items():
            table = Table(title=title, title_justify="left")
            for key in rows[0] if rows else ():
                table.add_column(key, justify="right" if _is_numeric(rows, key) else "left")
            for row in rows:
                table.add_row(*(show(row[key]) for key in rows[0]))
            console.print(table)
        for note in self.notes:
            console.print(f"- {note}", markup=False)
        console.print(_machine_text(self.machine), markup=False, highlight=False)

    def write(self, folder: Path, figure: Figure | None = None) -> None:
        """Write NAME.json, NAME.md and, of the figure, NAME.png; each file is replaced in one step."""
        results = {"command": self.command, "machine": self.machine, "notes": self.notes, **self.tables}
        write_text(folder / f"{self.name}.json", json.dumps(results, indent=1) + "\n")
        if figure is not None:
            _write_picture(folder / f"{self.name}.png", figure)
        write_text(folder / f"{self.name}.md", self.to_markdown(picture=figure is not None))
        print(f"written: {folder / self.name}.{{json,md{',png' if figure is not None else ''}}}")

    def to_markdown(self, picture: bool) -> str:
        """Return the page; `picture` says whether NAME.png is part of it.

        Raises:
            ValueError: two snippets have the same name.
        """
        snippets = [(each.name, each.title, _summary_text(each)) for each in self.summaries]
        snippets += [(slug(t), t, markdown_table(rows)) for t, rows in self.tables.items() if rows]
        snippets += [(slug(title), title, text) for title, text in self.sections.items()]
        snippets.append(("method", "Method", "\n".join(f"- {note}" for note in self.notes)))
        snippets.append(("machine", "Machine", _machine_text(self.machine)))
        names = [name for name, _, _ in snippets]
        if len(set(names)) < len(names):
            raise ValueError(f"two snippets of {self.name} have the same name: {', '.join(names)}")
        parts = [f"# {self.title}\n", f"`{self.command}`\n"]
        if picture:
            parts.append(f"![{self.title}]({self.name}.png)\n")
        parts += [f"## {title}\n\n{snippet(name, text)}\n" for name, title, text in snippets]
        return "\n".join(parts)


def _summary_text(summary: Summary) -> str:
    return markdown_table(summary.rows) + (f"\n\n{summary.note}" if summary.note else "")


def stored_tables(folder: Path, name: str) -> tuple[Row, dict[str, list[Row]]]:
    """Return the machine and the tables of a report that was written before.

    Raises:
        FileNotFoundError: there is none.
    """
    stored = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    tables = {title: rows for title, rows in stored.items() if title not in ("command", "machine", "notes")}
    return stored["machine"], tables


def target(
    quantity: str, measured: float | None, *, at_least: float | None = None, at_most: float | None = None
) -> Row:
    """Return a row of a table of targets.

    Args:
        quantity: the measured quantity and its unit.
        measured: its value; None if it was not measured.
        at_least: the target, if larger is better.
        at_most: the target, if smaller is better.
    """
    wanted = f"at least {show(at_least)}" if at_least is not None else f"at most {show(at_most)}"
    reached = "not measured"
    if measured is not None:
        high_enough = at_least is None or measured >= at_least
        reached = "yes" if high_enough and (at_most is None or measured <= at_most) else "no"
    return {"quantity": quantity, "measured": measured, "target": wanted, "reached": reached}


def markdown_table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table, with numbers aligned to the right."""
    columns = list(rows[0])
    lines = [columns, ["--:" if _is_numeric(rows, key) else "---" for key in columns]]
    lines += [[show(row[key]) for key in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def show(value: Any) -> str:
    """Return a cell as text: three significant digits, a separator of thousands, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _is_numeric(rows: Sequence[Row], column: str) -> bool:
    return any(isinstance(row[column], int | float) for row in rows)


def with_interval(rate: float, interval: Sequence[float]) -> str:
    """Return a rate with its 95 % interval, such as "0.911 [0.907, 0.915]"."""
    low, high = interval
    return f"{rate:.3f} [{low:.3f}, {high:.3f}]"


def slug(title: str) -> str:
    """Return a title as the name of a snippet: "Equal time" becomes "equal-time"."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("'", "")).strip("-")


def snippet(name: str, text: str) -> str:
    """Return Markdown between the markers of a snippet."""
    return f"<!-- --8<-- [start:{name}] -->\n\n{text}\n\n<!-- --8<-- [end:{name}] -->"


def read_snippets(page: str) -> Mapping[str, str]:
    """Return the snippets of a Markdown page: name -> text between its markers."""
    pattern = r"<!-- --8<-- \[start:([\w-]+)\] -->\n(.*?)<!-- --8<-- \[end:\1\] -->"
    return {name: text.strip() for name, text in re.findall(pattern, page, re.DOTALL)}


def _write_picture(path: Path, figure: Figure) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def describe_machine(threads: Sequence[int]) -> Row:
    """Describe where and when a benchmark runs, without anything that identifies the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch threads": list(threads),
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": _installed_versions("stable-baselines3", "sb3-contrib", "envpool"),
    }


def _machine_text(machine: Row) -> str:
    shown = {**machine, "torch threads": ", ".join(map(str, machine["torch threads"]))}
    shown["versions"] = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return "\n".join(f"- {name}: {value}" for name, value in shown.items())


def _installed_versions(*more: str) -> dict[str, str]:
    found = {name: version for name, version in versions().items() if version != "not installed"}
    for name in more:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    """Return the processor's name, and on Linux its family: "AMD EPYC" alone may be any of several."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name

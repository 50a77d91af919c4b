"""What the benchmarks share: taking turns, the machine, and one report as table, JSON, Markdown and plot.

What is compared takes turns in one process, A B C A B C ..., and a ratio is the median over the rounds of the
ratio within a round: a machine that is busy for a while slows both sides down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from rmc_agents.versions import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

Row = dict[str, Any]


def parse(doc: str | None, threads: Sequence[int] = (1, 2)) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? (results are no use)")
    parser.add_argument("--threads", type=int, nargs="+", default=list(threads), help="threads of torch")
    parser.add_argument("--out", type=Path, help="where results go; with --quick a temporary folder")
    return parser


def parse_study(doc: str | None, names: Collection[str], runs: Path) -> argparse.Namespace:
    """The flags of a study: trainings by name, each made once and kept, run folders below `runs`."""
    parser = parse(doc, threads=(1,))
    parser.add_argument("--only", nargs="+", choices=list(names), metavar="NAME", help="these runs alone")
    parser.add_argument("--report", action="store_true", help="make no run: show what there is")
    parser.add_argument("--runs", type=Path, default=runs, help="run folders")
    return parser.parse_args()


def kept_results(folder: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the runs of a study that were made gave, by name."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def run_script(command: Sequence[str]) -> None:
    """Show and run a Python script of the repository, with its flags."""
    print("$", shlex.join(["python", *command]), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def prepare(args: argparse.Namespace) -> Machine:
    """Set what every measurement needs, and describe the machine before it gets busy."""
    # Denormal numbers make a CPU several times slower; set before torch starts threads, which inherit it.
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    machine = Machine(args.threads)
    if args.out is None:
        args.out = Path(tempfile.mkdtemp(prefix="benchmark-")) if args.quick else RESULTS
    return machine


@contextlib.contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Torch with that many threads, and as it was afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def take_turns(
    candidates: Mapping[str, Callable[[], object]], seconds: float, rounds: tuple[int, int] = (3, 200)
) -> dict[str, list[float]]:
    """Time each candidate once a round, for about `seconds` in all.

    Args:
        candidates: what to time, by name.
        seconds: how long to go on; the first two rounds are warm-up, and the second is counted towards it.
        rounds: the fewest and the most rounds, whatever the time.

    Returns:
        Seconds of each candidate, round by round.
    """
    turn(candidates)
    estimate = sum(turn(candidates).values())
    count = min(max(int(seconds / max(estimate, 1e-9)), rounds[0]), rounds[1])
    measured = [turn(candidates) for _ in range(count)]
    return {name: [times[name] for times in measured] for name in candidates}


def turn(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of one call of each."""
    times = {}
    for name, call in candidates.items():
        began = time.perf_counter()
        call()
        times[name] = time.perf_counter() - began
    return times


def times_faster(times: Mapping[str, Sequence[float]], name: str, than: str) -> float:
    """How many times faster `name` is than `than`: the median over rounds of the ratio within a round."""
    return statistics.median(b / a for a, b in zip(times[name], times[than], strict=True))


def target(
    what: str, measured: float | None, *, at_least: float | None = None, at_most: float | None = None
) -> Row:
    """A row of the table of targets; `measured` None means that it was not measured."""
    wanted = f"at least {show(at_least)}" if at_least is not None else f"at most {show(at_most)}"
    reached = "not measured"
    if measured is not None:
        low = at_least is None or measured >= at_least
        reached = "yes" if low and (at_most is None or measured <= at_most) else "no"
    return {"what": what, "measured": measured, "to reach": wanted, "reached": reached}


class Machine:
    """Where and when a benchmark ran, without anything that names the machine."""

    def __init__(self, threads: Sequence[int]) -> None:
        self.facts: Row = {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "torch threads": list(threads),
            "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "system": f"{platform.system()} {platform.machine()}",
            "versions": _installed("stable-baselines3", "sb3-contrib", "envpool"),
        }

    def __str__(self) -> str:
        facts = {**self.facts, "torch threads": ", ".join(map(str, self.facts["torch threads"]))}
        facts["versions"] = ", ".join(f"{name} {v}" for name, v in self.facts["versions"].items())
        return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _installed(*more: str) -> dict[str, str]:
    found = {name: version for name, version in versions().items() if version != "not installed"}
    for name in more:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    """The name, and where Linux tells it the generation: a cloud's "AMD EPYC" may be any of several."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name


@dataclass
class Report:
    """What a benchmark found: printed, and written as JSON, Markdown and picture."""

    name: str
    """The script's, and the files'."""
    machine: Machine
    tables: dict[str, list[Row]] = field(default_factory=dict)
    """Title -> rows; every row of a table has the same keys, its columns."""
    notes: list[str] = field(default_factory=list)
    """How it was measured, and what to mind."""

    def print(self) -> None:
        console = Console(width=None if sys.stdout.isatty() else 150)
        for title, rows in self.tables.items():
            table = Table(title=title, title_justify="left")
            for key in rows[0] if rows else ():
                numeric = any(isinstance(row[key], int | float) for row in rows)
                table.add_column(key, justify="right" if numeric else "left")
            for row in rows:
                table.add_row(*map(show, row.values()))
            console.print(table)
        for note in self.notes:
            console.print(f"- {note}", markup=False)
        console.print(str(self.machine), markup=False, highlight=False)

    def write(self, folder: Path, figure: Figure | None = None) -> None:
        """Write NAME.json, NAME.md and NAME.png, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        command = f"python benchmarks/{self.name}.py"
        results = {"command": command, "machine": self.machine.facts, "notes": self.notes, **self.tables}
        _write(folder / f"{self.name}.json", json.dumps(results, indent=1) + "\n")
        parts = [f"# {self.name}\n\n`{command}`\n"]
        if figure is not None:
            parts.append(f"![{self.name}]({self.name}.png)\n")
            figure.savefig(folder / f"{self.name}.png", dpi=150, metadata={"Software": None})
        parts += [f"## {title}\n\n{markdown(rows)}\n" for title, rows in self.tables.items() if rows]
        parts.append("## How it was measured\n\n" + "\n".join(f"- {note}" for note in self.notes) + "\n")
        parts.append(f"## The machine\n\n{self.machine}\n")
        _write(folder / f"{self.name}.md", "\n".join(parts))
        print(f"written: {folder / self.name}.{{json,md{',png' if figure is not None else ''}}}")


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, numbers to the right."""
    numeric = [any(isinstance(row[key], int | float) for row in rows) for key in rows[0]]
    lines = [list(rows[0]), ["--:" if n else "---" for n in numeric]]
    lines += [[show(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def show(value: Any) -> str:
    """A cell: three significant digits, thousands apart, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"

"""Shared parts of the benchmarks: flags, fair timing, and training runs that are made once and stored.

Alternatives take turns in one process, A B C A B C ..., and a speed-up is the median over rounds of the ratio
within a round: a machine that is busy for a while slows all of them down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Report, Row, describe_machine, stored_tables
from rmc_agents.cli.flags import OLD_FLAGS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

Tables = dict[str, list[Row]]
"""Title -> rows."""


def make_parser(doc: str | None, threads: Sequence[int] = (1, 2)) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark has; `threads` is the default of --threads."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see whether it runs; the figures mean nothing"
    )
    kind.add_argument(
        "--report", action="store_true", help="measure nothing: write the report from the stored results"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=list(threads), help="numbers of torch threads"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the results (with --quick, by default, a temporary one)"
    )
    return parser


def make_study_parser(doc: str | None, runs: Path) -> argparse.ArgumentParser:
    """Return a parser with the flags of a study; `runs` is the default folder of its run folders."""
    parser = make_parser(doc, threads=(1,))
    parser.add_argument("--runs", type=Path, default=runs, help="folder of the run folders")
    return parser


def prepare(args: argparse.Namespace) -> Row:
    """Choose the folder for results, set up torch, and describe the machine before it becomes busy."""
    # Denormal numbers make a CPU several times slower; set before torch starts threads, which inherit it.
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    machine = describe_machine(args.threads)
    if args.out is None:
        args.out = Path(tempfile.mkdtemp(prefix="benchmark-")) if args.quick else RESULTS
    return machine


def make_report(
    module: str,
    title: str,
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Tables],
    files: str = "",
) -> Report:
    """Return a report with new measurements or, with --report, with the stored ones.

    Args:
        module: Python module of the benchmark.
        title: heading of the page.
        args: the flags; `args.out` is set.
        measure: makes the measurements.
        files: name of the files without an ending; the last part of the module's name if not given.
    """
    report = Report(module, title, prepare(args), {}, files=files)
    if not args.report:
        report.tables = measure(args)
        return report
    try:
        report.machine, report.tables = stored_tables(args.out, report.name)
    except FileNotFoundError as error:
        sys.exit(f"{error.filename} does not exist: run `{report.command}` without --report first")
    return report


def stored_results(folder: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the results of a study's runs that have been made, by the name of the run."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def study_machine(args: argparse.Namespace, name: str, machine: Row, made_runs: bool) -> Row:
    """Return the machine for a study's report: that of the latest call that made runs.

    Args:
        args: the flags.
        name: name of the report's files.
        machine: this machine.
        made_runs: whether this call made runs.
    """
    if made_runs or not (args.out / f"{name}.json").exists():
        return machine
    return stored_tables(args.out, name)[0]


def run_script(command: Sequence[str]) -> None:
    """Print and run a Python script of the repository, with its flags.

    Raises:
        CalledProcessError: it failed.
    """
    print("$", shlex.join(["python", *command]), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def with_current_flags(command: str) -> str:
    """Return a recorded command with today's names of its flags."""
    return shlex.join(OLD_FLAGS.get(word, word) for word in shlex.split(command))


@contextlib.contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Let torch use that many threads inside the context."""
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
        candidates: calls to time, by name.
        seconds: time for all measured rounds; two rounds of warm-up come first, and the second of them
            decides how many rounds fit.
        rounds: smallest and largest number of measured rounds, whatever the time.

    Returns:
        Seconds of each candidate, round by round.
    """
    time_each(candidates)
    estimate = sum(time_each(candidates).values())
    count = min(max(int(seconds / max(estimate, 1e-9)), rounds[0]), rounds[1])
    measured = [time_each(candidates) for _ in range(count)]
    return {name: [times[name] for times in measured] for name in candidates}


def time_each(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the seconds of one call of each candidate."""
    times = {}
    for name, call in candidates.items():
        started = time.perf_counter()
        call()
        times[name] = time.perf_counter() - started
    return times


def speed_up(times: Mapping[str, Sequence[float]], name: str, over: str) -> float:
    """Return how many times faster `name` is than `over`: the median over rounds of the ratio in a round."""
    return statistics.median(b / a for a, b in zip(times[name], times[over], strict=True))

"""Make a run's report.html again, from everything in its folder: `python train/report.py runs/NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rmc_agents.cli.config import Imports
from rmc_agents.cli.script import checking, command_name, import_plugins, parse, run_script
from rmc_agents.errors import UsageError
from rmc_agents.report.page import write_report


@dataclass(frozen=True)
class ReportConfig:
    """Make the reports of runs: figures, curves and pictures in one file that needs no network."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    imports: Imports = ()
    """Modules of your own to import first. A report needs none: it reads files only."""


def main(args: Sequence[str]) -> None:
    """Parse the flags and write the reports."""
    with checking():
        config = parse(ReportConfig, None, args, prog=command_name("report"))
        if not config.runs:
            raise UsageError(f"give at least one run folder: {command_name('report')} runs/NAME")
        import_plugins(config.imports)
    for run_dir in config.runs:
        print(f"report: {write_report(run_dir)}", flush=True)


def cli() -> None:
    """Run the script as a command."""
    run_script(main, ReportConfig)


if __name__ == "__main__":
    cli()

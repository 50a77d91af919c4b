"""`python train/report.py runs/NAME` makes report.html anew, with all that the run's folder holds by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rmc_agents.cli import parse, run_script
from rmc_agents.errors import UsageError
from rmc_agents.report import write_report


@dataclass(frozen=True)
class ReportConfig:
    """Make the report of runs: figures, curves and pictures in one file that needs no network."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""


def main(args: Sequence[str]) -> None:
    config = parse(ReportConfig, None, args, prog="train/report.py")
    if not config.runs:
        raise UsageError("which run? python train/report.py runs/NAME")
    for run_dir in config.runs:
        print(f"report: {write_report(run_dir)}", flush=True)


if __name__ == "__main__":
    run_script(main)

"""Make a run's report.html again, from everything in its folder: `python train/report.py runs/NAME`."""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rmc_agents.cli.config import Imports
from rmc_agents.cli.flags import parse
from rmc_agents.cli.script import checking, import_plugins, run_script, say
from rmc_agents.errors import Incomplete, UsageError, shown
from rmc_agents.evaluation.matrices import write_matrices
from rmc_agents.evaluation.output import output_folder
from rmc_agents.evaluation.results import read_results, scores_by_core
from rmc_agents.report.page import write_report
from rmc_agents.runs.folder import require_run, run_folder_of


@dataclass(frozen=True)
class ReportConfig:
    """Make the reports of runs: figures, curves and pictures in one file that needs no network."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    imports: Imports = ()
    """Modules of your own to import first. A report needs none: it reads files only."""
    output: Path | None = None
    """Folder for the report, one for each run if there are several. Without this it goes into the run folder
    or, if that is one of the trained agents of this package or cannot be written, into evaluations/NAME."""
    scores: Path | None = None
    """Also write the scores of all runs, by core and environment, as JSON in rliable's shape. Each core needs
    the same number of runs in every environment."""


def main(args: Sequence[str]) -> None:
    """Parse the flags and write the reports.

    Raises:
        UsageError: the flags are wrong, or the only report cannot be written.
        Incomplete: some reports cannot be written.
    """
    with checking():
        config = parse(ReportConfig, None, args, prog=command_name("report"))
        if not config.runs:
            raise UsageError(f"give at least one run folder: {command_name('report')} runs/NAME")
        import_plugins(config.imports)
        folders = [run_folder_of(run) for run in config.runs]
        for folder in folders:
            require_run(folder)
        outputs = [output_folder(folder, config.output, len(folders)) for folder in folders]
        if config.scores is not None:
            say(f"scores: {export_scores(config.scores, folders)}")
    problems = []
    for folder, output in zip(folders, outputs, strict=True):
        try:
            say(f"report: {write_report(folder, output)}")
        except UsageError as error:
            if len(folders) == 1:
                raise
            problems.append(f"no report of {folder}: {shown(error)}")
            say(problems[-1])
    if problems:
        raise Incomplete("; ".join(problems))


def export_scores(path: Path, folders: Sequence[Path]) -> Path:
    """Write the scores of runs by core; return the path.

    Raises:
        ValueError: no environment has a score of every core, or the runs do not form a matrix.
        OSError: the file cannot be written.
    """
    results = [result for folder in folders for result in read_results(folder)]
    if not results:
        raise UsageError(f"none of these runs has been evaluated: {command_name('evaluate')} does that")
    scores = scores_by_core(results)
    return write_matrices(path, scores.env_ids, scores.by_core)


def cli() -> None:
    """Run the script as a command."""
    run_script(main, ReportConfig)


if __name__ == "__main__":
    cli()

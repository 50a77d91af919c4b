"""Table of a suite whose tasks have references: scores of each core by task, and their mean over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rmc_agents.evaluation.curves import read_log
from rmc_agents.evaluation.results import Result
from rmc_agents.report.tables import Table

RETURN = "rollout/ep_rew_mean"


def best_in_training(run_dir: Path) -> float | None:
    """Return the maximum over training of the mean episodic return (POPGym's MMER); None without a log.

    The mean is that of the latest 100 episodes or of a rollout, as the log has it; a maximum over noisy means
    is biased upward.
    """
    curve = read_log(run_dir).get(RETURN)
    return None if curve is None else float(curve.values.max())


def suite_table(title: str, results: Sequence[Result], maxima: Mapping[str, float | None]) -> Table:
    """Return a table of the mean scores over the runs of each core, in each task and over all tasks.

    Args:
        title: of the table.
        results: evaluations with references, of runs that were each trained in one task.
        maxima: the maximum of training by name of the run.
    """
    columns = ("environment", "core", "runs", "return", "max. in training", "normalised")
    cores = list(dict.fromkeys(result.core for result in results))
    scores: dict[str, list[tuple[float | None, float | None, float | None]]] = {core: [] for core in cores}
    sections = []
    for env_id in dict.fromkeys(result.env_id for result in results):
        rows = []
        for core in cores:
            own = [result for result in results if (result.env_id, result.core) == (env_id, core)]
            if own:
                returns = mean([each.entry.figures.mean_return for each in own])
                most = mean([maxima.get(each.run) for each in own])
                score = returns, most, mean([each.entry.normalized for each in own])
                scores[core].append(score)
                rows.append(("" if rows else env_id, core, str(len(own)), *map(cell, score)))
        sections.append(tuple(rows))
    if len(sections) > 1:
        means = [[mean(column) for column in zip(*scores[core], strict=True)] for core in cores]
        sections.append(
            tuple(
                (
                    f"mean over {len(scores[core])} task{'s' * (len(scores[core]) > 1)}",
                    core,
                    "",
                    *map(cell, each),
                )
                for core, each in zip(cores, means, strict=True)
            )
        )
    return Table(title, columns, frozenset(columns[2:]), tuple(sections))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def cell(value: float | None) -> str:
    """Return a number, or a dash if it is None."""
    return "-" if value is None else f"{value:.3f}"

"""Comparison of several runs: one table by core, learning curves, success by hallway length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rmc_agents.evaluation.curves import Curve, read_log, success_curve
from rmc_agents.evaluation.results import Result, core_of, training_of
from rmc_agents.report.page import markdown, trained_in, writing
from rmc_agents.report.tables import core_table
from rmc_agents.report.text import encodable, markdown_text
from rmc_agents.runs.files import portable_name, write_text
from rmc_agents.runs.folder import read_config


def write_comparison(folder: Path, results: Sequence[Result], run_dirs: Sequence[Path]) -> list[Path]:
    """Write comparison.md and its figures.

    Args:
        folder: where to write; it is created.
        results: the results of all runs.
        run_dirs: the runs' folders, for their logs.

    Returns:
        the paths of the files.

    Raises:
        UsageError: a run folder is damaged, or `folder` cannot be written.
    """
    from rmc_agents.plots import learning, style  # matplotlib takes a second to import

    figures = {}
    for env_id, (curves, is_success) in learning_curves(run_dirs).items():
        name = portable_name(f"learning-curves-{env_id}")
        figures[name] = learning.learning_curves(
            curves,
            env_id,
            ylabel="success rate in training" if is_success else "return in training",
            chance=0.5 if is_success and "Memory" in env_id else None,
            rate=is_success,
        )
    by_hallway = learning.results_by_hallway(results)
    if by_hallway is not None:
        figures["success-by-hallway"] = by_hallway
    try:
        table = core_table(results)
        by_core = f"{table.title}\n\n{table.markdown()}"
    except ValueError as error:
        by_core = markdown_text(f"Not compared: {error}.")
    shown = "\n\n".join(f"![{name}]({name}.png)" for name in figures)
    text = f"# By core\n\n{by_core}\n\n{shown}\n\n# Run by run\n\n{markdown(results)}"
    path = folder / "comparison.md"
    with writing(folder):
        pictures = [path for name, figure in figures.items() for path in style.save(figure, folder / name)]
        write_text(path, encodable(text))
    return [path, *pictures]


def learning_curves(run_dirs: Sequence[Path]) -> dict[str, tuple[dict[str, list[Curve]], bool]]:
    """Return the curves of each core by the environment of training, and whether they show success.

    In an environment in which some run's log has no success rate, the curves show returns.

    Raises:
        UsageError: a run folder is damaged.
    """
    logs = defaultdict(list)
    for run_dir in run_dirs:
        config, log = read_config(run_dir), read_log(run_dir)
        if log:
            logs[trained_in(config)].append((core_of(config), training_of(config.get("environment")), log))
    found: dict[str, tuple[dict[str, list[Curve]], bool]] = {}
    for env_id, runs in logs.items():
        is_success = all(success_curve(log, env_id) is not None for _, _, log in runs)
        mixed = len({core for core, _, _ in runs}) < len({(core, training) for core, training, _ in runs})
        curves: dict[str, list[Curve]] = defaultdict(list)
        for core, training, log in runs:
            core = f"{core}, trained in {training}" if mixed else core
            curve = success_curve(log, env_id) if is_success else log.get("rollout/ep_rew_mean")
            if curve is not None:
                curves[core].append(curve)
        if curves:
            found[env_id] = (dict(curves), is_success)
    return found

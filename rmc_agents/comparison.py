"""Several runs beside each other: one table by core, learning curves, success against hallway length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rmc_agents.checkpoint import read_config, write_atomically
from rmc_agents.curves import Curve, read_log, success_curve
from rmc_agents.report import markdown
from rmc_agents.results import Result
from rmc_agents.tables import core_table


def write_comparison(folder: Path, results: Sequence[Result], run_dirs: Sequence[Path]) -> list[Path]:
    """comparison.md and the plots.

    Args:
        folder: where to; it is made.
        results: of all runs.
        run_dirs: the runs' folders, for their logs.

    Returns:
        what was written.
    """
    from rmc_agents import plots  # matplotlib takes a second

    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for env_id, (curves, success) in learning_curves(run_dirs).items():
        ylabel, chance = ("success rate in training", 0.5) if success else ("return in training", None)
        figure = plots.learning_curves(
            curves, env_id, ylabel, chance if "Memory" in env_id else None, rate=success
        )
        name = env_id.replace("/", "-").replace(",", "-").replace(" ", "")
        pictures += plots.save(figure, folder / f"learning-curves-{name}"[:120])
    figure = plots.hallways(results)
    if figure is not None:
        pictures += plots.save(figure, folder / "success-by-hallway")
    shown = "\n\n".join(f"![{path.stem}]({path.name})" for path in pictures if path.suffix == ".png")
    table = core_table(results)
    text = (
        f"# By core\n\n{table.title}\n\n{table.markdown()}\n\n{shown}\n\n# Run by run\n\n{markdown(results)}"
    )
    path = folder / "comparison.md"
    write_atomically(path, lambda file: file.write(text.encode()))
    return [path, *pictures]


def learning_curves(run_dirs: Sequence[Path]) -> dict[str, tuple[dict[str, list[Curve]], bool]]:
    """For each environment that runs were trained for: the curves of each core, and whether of success.

    Where a run's log knows no success the returns are compared.
    """
    logs = defaultdict(list)
    for run_dir in run_dirs:
        config = read_config(run_dir)
        log = read_log(run_dir)
        if log:
            logs[config.get("env", {}).get("id", "")].append((config["agent"].get("core", ""), log))
    found: dict[str, tuple[dict[str, list[Curve]], bool]] = {}
    for env_id, runs in logs.items():
        success = all(success_curve(log, env_id) is not None for _, log in runs)
        curves: dict[str, list[Curve]] = defaultdict(list)
        for core, log in runs:
            curve = success_curve(log, env_id) if success else log.get("rollout/ep_rew_mean")
            if curve is not None:
                curves[core].append(curve)
        if curves:
            found[env_id] = (dict(curves), success)
    return found

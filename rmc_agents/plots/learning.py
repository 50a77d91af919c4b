"""Figures of training and evaluation: learning curves, success by hallway length, one run's training.

Every function returns a Matplotlib figure and writes no file; `style.save` writes one as PNG and SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from rmc_agents.errors import shown
from rmc_agents.evaluation.curves import Curve, band
from rmc_agents.evaluation.results import Result, by_training
from rmc_agents.evaluation.statistics import Interval
from rmc_agents.plots.style import (
    BLACK,
    FAINT,
    MARKERS,
    OKABE_ITO,
    legend_below,
    make_plain,
    mark_chance,
    show_rates,
    show_steps,
    single_axes,
    styles,
)

COLUMNS = 3
"""Panels side by side in `training_panels`."""


def learning_curves(
    curves: Mapping[str, Sequence[Curve]],
    title: str = "",
    *,
    ylabel: str = "success rate in training",
    chance: float | None = 0.5,
    rate: bool = True,
) -> Figure:
    """Return a figure with one line per memory core and a band over its runs.

    Args:
        curves: the runs of each core (or of anything else that gets a line).
        title: printed above the axes.
        ylabel: name of the values.
        chance: the score of guessing, drawn as a dashed line; None for no line.
        rate: whether the values are rates from 0 to 1.

    Raises:
        ValueError: there is no curve.
    """
    curves = {name: runs for name, runs in curves.items() if runs}
    if not curves:
        raise ValueError("no curves to draw: expected at least one run of one core")
    figure, axes = single_axes(title)
    if chance is not None:
        mark_chance(axes, chance)
    looks = styles(curves)
    for name, runs in curves.items():
        _band(axes, runs, f"{name} ({_runs(len(runs))})", *looks[name])
    axes.set_xlabel("environment steps", fontsize=12)
    axes.set_ylabel(ylabel, fontsize=12)
    show_steps(axes)
    if rate:
        show_rates(axes)
    repeated = any(len(runs) > 1 for runs in curves.values())
    note = "line: interquartile mean over runs; band: its 95 % bootstrap interval" if repeated else ""
    legend_below(figure, axes, note)
    return figure


@dataclass(frozen=True)
class Point:
    """The success rate of one run in one maze."""

    hallway: int
    """Cells from the cue's room to the junction."""
    rate: float
    """Share of solved episodes, 0 to 1."""
    interval: Interval | None
    """Its 95 % interval."""


def success_by_hallway(
    results: Mapping[str, Sequence[Sequence[Point]]],
    mazes: Mapping[int, str],
    title: str = "",
    trained_up_to: int | None = None,
) -> Figure:
    """Return a figure of the success rate by hallway length, with one line per memory core.

    With several runs of a core, the line is their mean and the band their range. With a single run, the bars
    are Wilson intervals over its episodes.

    Args:
        results: the runs of each core, each with its points.
        mazes: the name of the maze for each hallway length, for the axis.
        title: printed above the axes.
        trained_up_to: the longest hallway of training; longer ones are shaded.
    """
    figure, axes = single_axes(title)
    mark_chance(axes, 0.5)
    if trained_up_to is not None and trained_up_to < max(mazes):
        _shade_beyond(axes, trained_up_to, sorted(mazes))
    looks = styles(results)
    for core, runs in results.items():
        _hallway_line(axes, runs, f"{core} ({_runs(len(runs))})", *looks[core])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(mazes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(mazes), [f"{h}\n{mazes[h]}" for h in sorted(mazes)], parse_math=False)
    axes.set_xlim(min(mazes) / 1.15, max(mazes) * 1.15)
    axes.set_xlabel("hallway from the cue's room to the junction [cells], and name of the maze", fontsize=12)
    axes.set_ylabel("success rate on unseen seeds", fontsize=12)
    show_rates(axes)
    legend_below(figure, axes, "line: mean over runs; band: their range; bars of a single run: 95 % interval")
    return figure


def results_by_hallway(results: Sequence[Result]) -> Figure | None:
    """Return `success_by_hallway` of all results in mazes of fixed length, by core and training.

    MemoryS5 has no hallway, and is left out. Returns None if the results cover fewer than two mazes.
    """
    mazes: dict[int, str] = {}
    by_core: dict[str, dict[str, list[Point]]] = {}
    trained: set[int | None] = set()
    grouped = [(core, result) for core, group in by_training(results).items() for result in group]
    for core, result in grouped:
        entry, figures = result.entry, result.entry.figures
        if entry.hallway is None or entry.hallway < 1 or figures.success_rate is None:
            continue
        maze, _, options = result.env_id.partition(" ")
        mazes[entry.hallway] = maze.split("Memory")[-1].removesuffix("-v0")
        core = f"{core}, {options}" if options else core
        point = Point(entry.hallway, figures.success_rate, figures.success_ci95)
        by_core.setdefault(core, {}).setdefault(result.run, []).append(point)
        trained.add(entry.trained_hallway)
    if len(mazes) < 2:
        return None
    return success_by_hallway(
        {core: list(runs.values()) for core, runs in by_core.items()},
        mazes,
        trained_up_to=trained.pop() if len(trained) == 1 else None,
    )


PANELS: tuple[tuple[str, str, str], ...] = (
    ("success rate", "", "rollout/success_rate"),
    ("episode return", "", "rollout/ep_rew_mean"),
    ("episode length", "steps", "rollout/ep_len_mean"),
    ("policy entropy", "nats", "train/entropy_loss"),
    ("KL divergence of an update", "nats", "train/approx_kl"),
    ("explained variance of the value", "", "train/explained_variance"),
    ("value loss", "", "train/value_loss"),
    ("gradient norm", "", "train/grad_norm"),
    ("speed", "steps per second", "time/fps"),
)
"""Title, unit and log name of each panel of `training_panels`."""


def training_panels(log: Mapping[str, Curve]) -> Figure | None:
    """Return a figure of one run's training: success by task, return, entropy, ...

    Returns None if the log has none of the values in `PANELS`.
    """
    tasks = [name for name in log if name.startswith("rollout/success_rate/")]
    panels = []
    for title, unit, name in PANELS:
        names = tasks if title == "success rate" and len(tasks) > 1 else [name]
        curves = {name: log[name] for name in names if name in log}
        if curves:
            panels.append((title, unit, curves))
    if not panels:
        return None
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(12, 2.9 * rows), layout="constrained")
    for i, (title, unit, curves) in enumerate(panels):
        axes = figure.add_subplot(rows, COLUMNS, i + 1)
        _panel(axes, title, unit, curves)
        if i >= len(panels) - COLUMNS:  # the lowest of its column
            axes.set_xlabel("environment steps", fontsize=10)
    return figure


def _panel(axes: Axes, title: str, unit: str, curves: Mapping[str, Curve]) -> None:
    for i, (name, curve) in enumerate(curves.items()):
        # SB3 logs the negative entropy, the term of its loss.
        values = -curve.values if name == "train/entropy_loss" else curve.values
        axes.plot(
            curve.steps,
            values,
            color=OKABE_ITO[i % len(OKABE_ITO)],
            marker=MARKERS[i % len(MARKERS)] if len(curves) > 1 else None,
            markevery=max(len(values) // 6, 1),
            ms=4,
            lw=1.5,
            label=shown(
                name.removeprefix("rollout/success_rate/").removeprefix("MiniGrid-").removesuffix("-v0"), 30
            ),
        )
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_ylabel(unit, fontsize=10)
    show_steps(axes)
    make_plain(axes)
    if title == "success rate":
        show_rates(axes)
    if len(curves) > 1:
        legend = axes.legend(fontsize=9, frameon=False, loc="lower right")
        for text in legend.get_texts():
            text.set_parse_math(False)


def _band(axes: Axes, runs: Sequence[Curve], label: str, color: str, marker: str) -> None:
    """Draw the interquartile mean over runs and, for several runs, its bootstrap interval."""
    line = band(runs)
    every = max(len(line.steps) // 8, 1)
    axes.plot(line.steps, line.middle, color=color, lw=2, marker=marker, markevery=every, ms=6, label=label)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.steps, line.low, line.high, color=color, alpha=0.2, lw=0)


def _hallway_line(axes: Axes, runs: Sequence[Sequence[Point]], label: str, color: str, marker: str) -> None:
    """Draw the mean over runs by hallway length, and the range of several runs or the intervals of one."""
    by_hallway: dict[int, list[Point]] = {}
    for point in (point for run in runs for point in run):
        by_hallway.setdefault(point.hallway, []).append(point)
    x = sorted(by_hallway)
    rates = [[point.rate for point in by_hallway[hallway]] for hallway in x]
    mean = [sum(each) / len(each) for each in rates]
    axes.plot(x, mean, color=color, lw=2, marker=marker, ms=7, label=label)
    if len(runs) > 1:
        axes.fill_between(x, list(map(min, rates)), list(map(max, rates)), color=color, alpha=0.2, lw=0)
        return
    for point in (point for hallway in x for point in by_hallway[hallway]):
        if point.interval is not None:
            axes.plot([point.hallway] * 2, point.interval, color=color, lw=1.5)


def _shade_beyond(axes: Axes, trained_up_to: int, hallways: Sequence[int]) -> None:
    """Shade the hallways that are longer than any in training."""
    first = min(h for h in hallways if h > trained_up_to)
    edge = (max(trained_up_to, first / 1.5) * first) ** 0.5  # trained_up_to of MemoryS5 is -1
    axes.axvspan(edge, max(hallways) * 1.3, color=BLACK, alpha=0.06, lw=0)
    axes.text(
        0.99,
        0.02,
        "shaded: longer than any in training",
        color=FAINT,
        fontsize=11,
        ha="right",
        transform=axes.transAxes,
    )


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"

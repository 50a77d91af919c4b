"""Plots for people: learning curves, success against hallway length, one run's training at a glance.

Every function gives a Matplotlib figure and touches no file; `save` writes one as PNG and SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator, PercentFormatter

from rmc_agents.curves import Curve, band
from rmc_agents.palette import FAINT, MARKERS, OKABE_ITO, styles
from rmc_agents.results import Result
from rmc_agents.statistics import Interval

DPI = 150


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as `path`.png and `path`.svg, and return both; the folder is made.

    The files hold no date, so that the same figures give the same files.
    """
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        for each, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            temporary = each.with_name(each.name + ".tmp")
            figure.savefig(temporary, format=each.suffix[1:], dpi=DPI, metadata=metadata)
            temporary.replace(each)
    return paths


def learning_curves(
    curves: Mapping[str, Sequence[Curve]],
    title: str = "",
    ylabel: str = "success rate in training",
    chance: float | None = 0.5,
    rate: bool = True,
) -> Figure:
    """A line for each memory core with the band of its runs.

    Args:
        curves: core (or any other name of a line) to its runs.
        title: above the plot.
        ylabel: what the values are.
        chance: what guessing gets, drawn as a dashed line; None for no such line.
        rate: whether values are rates, from 0 to 1.

    Raises:
        ValueError: nothing to draw.
    """
    curves = {name: runs for name, runs in curves.items() if runs}
    if not curves:
        raise ValueError("no curves to draw")
    figure, axes = _figure(title)
    if chance is not None:
        _chance(axes, chance)
    look = styles(curves)
    for name, runs in curves.items():
        line = band(runs)
        colour, marker = look[name]
        label = f"{name} ({line.runs} run{'s' if line.runs != 1 else ''})"
        every = max(len(line.steps) // 8, 1)
        axes.plot(
            line.steps, line.middle, color=colour, lw=2, marker=marker, markevery=every, ms=6, label=label
        )
        if line.low is not None and line.high is not None:
            axes.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.2, lw=0)
    axes.set_xlabel("environment steps", fontsize=12)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlim(left=0)
    axes.set_ylabel(ylabel, fontsize=12)
    if rate:
        _rate(axes)
    several = any(len(runs) > 1 for runs in curves.values())
    _legend(axes, "line: interquartile mean over runs; band: its 95 % bootstrap interval" if several else "")
    return figure


@dataclass(frozen=True)
class Point:
    """What one run achieved in one maze."""

    hallway: int
    """Cells from the cue's room to the junction."""
    rate: float
    interval: Interval | None


def success_by_hallway(
    results: Mapping[str, Sequence[Sequence[Point]]],
    mazes: Mapping[int, str],
    title: str = "",
    trained_up_to: int | None = None,
) -> Figure:
    """Success against the length of the hallway, a line for each core.

    Of several runs of a core the line is the mean and the band their range; of a single run the bars are
    Wilson's intervals over its episodes.

    Args:
        results: core to its runs, each with its points.
        mazes: hallway length to the name of the maze, for the axis.
        title: above the plot.
        trained_up_to: the longest hallway of training; longer ones are shaded.
    """
    figure, axes = _figure(title)
    _chance(axes, 0.5)
    longest = max(mazes)
    if trained_up_to is not None and trained_up_to < longest:
        edge = (trained_up_to * min(h for h in mazes if h > trained_up_to)) ** 0.5
        axes.axvspan(edge, longest * 1.3, color="#000000", alpha=0.06, lw=0)
        corner = {"ha": "right", "transform": axes.transAxes}
        axes.text(0.99, 0.02, "shaded: longer than any in training", color=FAINT, fontsize=11, **corner)
    look = styles(results)
    for core, runs in results.items():
        colour, marker = look[core]
        by_hallway: dict[int, list[Point]] = {}
        for point in (point for run in runs for point in run):
            by_hallway.setdefault(point.hallway, []).append(point)
        x = sorted(by_hallway)
        mean = [sum(p.rate for p in by_hallway[h]) / len(by_hallway[h]) for h in x]
        label = f"{core} ({len(runs)} run{'s' * (len(runs) > 1)})"
        axes.plot(x, mean, color=colour, lw=2, marker=marker, ms=7, label=label)
        if len(runs) > 1:
            low = [min(p.rate for p in by_hallway[h]) for h in x]
            high = [max(p.rate for p in by_hallway[h]) for h in x]
            axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            continue
        for hallway in x:
            for point in by_hallway[hallway]:
                if point.interval is not None:
                    axes.plot([hallway] * 2, point.interval, color=colour, lw=1.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(mazes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(mazes), [f"{h}\n{mazes[h]}" for h in sorted(mazes)])
    axes.set_xlim(min(mazes) / 1.15, longest * 1.15)
    axes.set_xlabel("hallway from the cue's room to the junction [cells], and the maze", fontsize=12)
    axes.set_ylabel("success rate on unseen seeds", fontsize=12)
    _rate(axes)
    _legend(axes, "line: mean over runs; band: their range; bars of a single run: 95 % interval")
    return figure


def hallways(results: Sequence[Result]) -> Figure | None:
    """Success against hallway length, by core, of all results in mazes of fixed length.

    None where they are of fewer than two such mazes.
    """
    found = [r for r in results if r.entry.get("hallway") is not None and r.entry["success_rate"] is not None]
    mazes = {r.entry["hallway"]: r.env_id.split("Memory")[-1].removesuffix("-v0") for r in found}
    if len(mazes) < 2:
        return None
    by_core: dict[str, dict[str, list[Point]]] = {}
    for r in found:
        interval = r.entry.get("success_ci95")
        point = Point(r.entry["hallway"], r.entry["success_rate"], tuple(interval) if interval else None)
        by_core.setdefault(r.core, {}).setdefault(r.run, []).append(point)
    longest = {r.entry.get("trained_hallway") for r in found}
    return success_by_hallway(
        {core: list(runs.values()) for core, runs in by_core.items()},
        mazes,
        trained_up_to=longest.pop() if len(longest) == 1 else None,
    )


PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("success rate", "", ("rollout/success_rate",)),
    ("return of an episode", "", ("rollout/ep_rew_mean",)),
    ("length of an episode", "steps", ("rollout/ep_len_mean",)),
    ("entropy of the policy", "nats", ("train/entropy_loss",)),
    ("KL divergence of an update", "nats", ("train/approx_kl",)),
    ("explained variance of the value", "", ("train/explained_variance",)),
    ("value loss", "", ("train/value_loss",)),
    ("norm of the gradient", "", ("train/grad_norm",)),
    ("speed", "steps per second", ("time/fps",)),
)
"""Title, unit and names in the log, of what `training` shows."""


def training(log: Mapping[str, Curve]) -> Figure | None:
    """One run's training at a glance: success by task, return, entropy, ...; None where the log has none."""
    tasks = [name for name in log if name.startswith("rollout/success_rate/")]
    panels = []
    for title, unit, names in PANELS:
        found = [name for name in names if name in log]
        if title == "success rate" and len(tasks) > 1:
            found = tasks
        if found:
            panels.append((title, unit, found))
    if not panels:
        return None
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(12, 2.9 * rows), layout="constrained")
    for i, (title, unit, names) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        for j, name in enumerate(names):
            curve = log[name]
            # SB3 logs the negative of the entropy, since that is the term of its loss.
            values = -curve.values if name == "train/entropy_loss" else curve.values
            label = name.removeprefix("rollout/success_rate/").removeprefix("MiniGrid-").removesuffix("-v0")
            axes.plot(
                curve.steps,
                values,
                color=OKABE_ITO[j % len(OKABE_ITO)],
                marker=MARKERS[j % len(MARKERS)] if len(names) > 1 else None,
                markevery=max(len(values) // 6, 1),
                ms=4,
                lw=1.5,
                label=label,
            )
        axes.set_title(title, fontsize=12, loc="left")
        axes.set_ylabel(unit, fontsize=10)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlim(left=0)
        _plain(axes)
        if title == "success rate":
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        if len(names) > 1:
            axes.legend(fontsize=9, frameon=False, loc="lower right")
        if i >= len(panels) - columns:
            axes.set_xlabel("environment steps", fontsize=10)
    return figure


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=14, loc="left")
    axes.tick_params(labelsize=11)
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _rate(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _chance(axes: Axes, chance: float) -> None:
    axes.axhline(chance, color=FAINT, ls="--", lw=1.2)
    axes.annotate(
        "guessing",
        (1, chance),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=FAINT,
        fontsize=11,
    )


def _legend(axes: Axes, note: str = "") -> None:
    """Below the plot, where it hides nothing; the note says how to read it."""
    legend = axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=11,
        title=note or None,
        title_fontsize=10,
    )
    legend.get_title().set_color(FAINT)

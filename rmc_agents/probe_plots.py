"""What probes read from a memory, and what exchanging its parts does, as Matplotlib figures.

Every function touches no file; `plots.save` writes a figure as PNG and SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rmc_agents.intervention import Swap
from rmc_agents.palette import BLACK, BLUE, FAINT, MARKERS, OKABE_ITO, ORANGE, styles
from rmc_agents.probe import CUE, POSITION, TIME, Axis, Probe
from rmc_agents.recording import OBSERVATION, WHOLE

TITLES = {
    CUE: "which object was the cue  (share of right answers)",
    POSITION: "where the agent stands, column  (R²)",
    TIME: "how long ago the cue was seen  (R²)",
}
ENDS = {CUE: (0.5, 1.0), POSITION: (0.0, 1.0), TIME: (0.0, 1.0)}
"""Ends of the colour scale: what knowing nothing gets, and what knowing all gets."""


def heat_maps(probe: Probe, title: str) -> Figure:
    """What each part of the memory tells, by steps since the cue was in view and by step of the episode."""
    rows = len(probe.parts)
    figure = Figure(figsize=(13.5, 3 * (1.3 + 0.36 * rows)), layout="constrained")
    figure.suptitle(title, fontsize=15, x=0.01, ha="left")
    grid = figure.add_gridspec(3, 2)
    for column, axis in enumerate((probe.since, probe.step)):
        for row, target in enumerate((CUE, POSITION, TIME)):
            plot = figure.add_subplot(grid[row, column])
            if target in axis.scores:
                image = _heat(plot, axis, target, probe.parts)
                bar = figure.colorbar(image, ax=plot, pad=0.01, fraction=0.05, extend=_extends(axis, target))
                bar.ax.tick_params(labelsize=10)
                if target == CUE:
                    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            else:
                _behind(plot, axis)
            plot.set_xlabel(axis.name, fontsize=11)
    return figure


def swaps(found: Sequence[Swap], after: int, title: str) -> Figure:
    """How often the choice flips when a part of the memory is exchanged, by part."""
    parts = list(dict.fromkeys(swap.part for swap in found))  # some of the slots stand before all of them
    figure = Figure(figsize=(max(7.0, 2.2 + 1.25 * len(parts)), 5), layout="constrained")
    plot = figure.add_subplot()
    plot.set_title(title, fontsize=14, loc="left")
    looks = {
        False: (ORANGE, "o", "with an episode of the other cue"),
        True: (BLUE, "s", "of the same cue (control)"),
    }
    for same_cue, (colour, marker, label) in looks.items():
        for i, swap in enumerate(swap for swap in found if swap.same_cue == same_cue):
            x = i + (0.13 if same_cue else -0.13)
            low, high = swap.interval
            plot.plot([x, x], [low, high], color=colour, lw=3, solid_capstyle="butt")
            plot.plot(x, swap.rate, marker, color=colour, ms=9, mec="white", label=label if i == 0 else None)
            plot.annotate(
                f"{swap.rate:.0%}",
                (x, swap.rate),
                (9 if same_cue else -9, 0),
                fontsize=11,
                textcoords="offset points",
                ha="left" if same_cue else "right",
                va="center",
            )
    plot.set_xticks(range(len(parts)), [_several(part, len(parts)) for part in parts], fontsize=12)
    plot.set_xlim(-0.6, len(parts) - 0.4)
    plot.set_ylim(-0.03, 1.03)
    plot.yaxis.set_major_formatter(PercentFormatter(1))
    plot.tick_params(labelsize=12)
    steps = f"{after} step{'s' if after != 1 else ''}"
    plot.set_ylabel("episodes with the other choice", fontsize=12)
    plot.set_xlabel(f"part of the memory that is exchanged, {steps} after the cue left the view", fontsize=12)
    _plain(plot)
    _legend(figure, plot, "bars: Wilson's 95 % intervals, by the number of different pairs")
    return figure


def curves(probes: Sequence[tuple[str, str, Probe]], title: str) -> Figure:
    """How well the cue is read from the whole state, by steps since it was last in view, a line for each run.

    Args:
        probes: a label, the name of the core, and what was found, of each run.
        title: above the plot.
    """
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    plot = figure.add_subplot()
    plot.set_title(title, fontsize=14, loc="left")
    look = styles(core for _, core, _ in probes)
    cores = [core for _, core, _ in probes]
    for i, (label, core, probe) in enumerate(probes):
        colour, marker = look[core]
        if cores.count(core) > 1:  # several runs of a core: each a colour of its own
            colour, marker = OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)]
        shift = 0.07 * (i - (len(probes) - 1) / 2)  # so that no bar hides another
        for part in (WHOLE, OBSERVATION):
            scores = probe.since.scores[CUE][part]
            known = [(step, *score) for step, score in zip(probe.since.steps, scores, strict=True) if score]
            if not known:
                continue
            steps, value, low, high = np.array(known).T
            if part == OBSERVATION:
                plot.plot(steps + shift, value, color=colour, lw=1.5, ls=":")
                continue
            plot.vlines(steps + shift, low, high, color=colour, lw=2, alpha=0.6)
            plot.plot(steps + shift, value, color=colour, marker=marker, mec="white", ms=9, lw=2, label=label)
    plot.axhline(0.5, color=FAINT, ls="--", lw=1.2)
    plot.text(
        1.005, 0.5, "chance", transform=plot.get_yaxis_transform(), color=FAINT, fontsize=11, va="center"
    )
    plot.plot([], [], color=BLACK, ls=":", lw=1.5, label="from the present observation alone")
    plot.set_ylim(0.28, 1.02)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.yaxis.set_major_formatter(PercentFormatter(1))
    plot.tick_params(labelsize=11)
    plot.set_xlabel("steps since the cue was last in view", fontsize=12)
    plot.set_ylabel("cue read from the whole memory by a linear probe", fontsize=12)
    _plain(plot)
    _legend(figure, plot, "bars: Wilson's 95 % intervals, by the number of different histories")
    return figure


def _heat(plot: Plot, axis: Axis, target: str, parts: Sequence[str]) -> Any:
    """A row for each part, a column for each number of steps; grey where nothing can be said."""
    low, high = ENDS[target]
    values = np.array(
        [[np.nan if score is None else score.value for score in axis.scores[target][part]] for part in parts]
    ).reshape(len(parts), -1)
    plot.set_facecolor("#dddddd")
    columns = max(values.shape[1], 1)
    image = plot.imshow(
        np.ma.masked_invalid(values), aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="none"
    )
    plot.set_title(TITLES[target], fontsize=12, loc="left")
    plot.set_yticks(range(len(parts)), [_several(part, len(parts) - 1) for part in parts], fontsize=11)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.tick_params(labelsize=11, length=0)
    for y in np.arange(len(parts) - 1) + 0.5:
        plot.axhline(y, color="white", lw=3 if parts[int(y + 0.5)] in (WHOLE, OBSERVATION) else 1)
    if not np.isfinite(values).any():
        middle = ((columns - 1) / 2, (len(parts) - 1) / 2)
        plot.text(*middle, "nothing to tell apart", ha="center", va="center", color=FAINT, fontsize=12)
    if columns <= 16:
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = np.clip((value - low) / (high - low), 0, 1) < 0.6
                text = f"{value:.2f}"[1:] if 0 <= value < 0.995 else "1" if value > 0 else "<0"
                plot.text(
                    x, y, text, ha="center", va="center", color="white" if dark else "black", fontsize=10
                )
    return image


def _behind(plot: Plot, axis: Axis) -> None:
    """How many episodes are behind each column of the heat maps above."""
    for values, colour, marker, label in (
        (axis.episodes, BLACK, "o", "episodes"),
        (axis.histories, ORANGE, "s", "different histories"),
    ):
        plot.plot(axis.steps, values, color=colour, marker=marker, ms=5, lw=1.5, label=label)
    plot.set_yscale("log")
    plot.set_ylim(bottom=1)
    plot.set_xlim(-0.5, max(len(axis.steps), 1) - 0.5)
    plot.set_title("how much is behind each column", fontsize=12, loc="left")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.tick_params(labelsize=11)
    plot.legend(fontsize=11, frameon=False)
    _plain(plot)


def _extends(axis: Axis, target: str) -> Any:
    values = [score.value for scores in axis.scores[target].values() for score in scores if score is not None]
    return "min" if any(value < ENDS[target][0] for value in values) else "neither"


def _several(part: str, parts: int) -> str:
    """The whole state of a core of slots is all of them."""
    return "all slots" if part == WHOLE and parts > 1 else part


def _plain(plot: Plot) -> None:
    plot.spines[["top", "right"]].set_visible(False)
    plot.grid(alpha=0.25)
    plot.set_axisbelow(True)


def _legend(figure: Figure, plot: Plot, note: str) -> None:
    handles = plot.get_legend_handles_labels()
    legend = figure.legend(
        *handles,
        loc="outside lower center",
        ncols=min(len(handles[0]), 3),
        frameon=False,
        fontsize=11,
        title=note,
        title_fontsize=10,
    )
    legend.get_title().set_color(FAINT)

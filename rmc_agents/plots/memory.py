"""Figures of what a memory holds: probe scores by part and step, and the effect of exchanged parts.

Every function returns a Matplotlib figure and writes no file; `style.save` writes one as PNG and SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from rmc_agents.interpret.intervention import Swap
from rmc_agents.interpret.probe import CUE, POSITION, TIME, Axis, Probe
from rmc_agents.interpret.recording import OBSERVATION, WHOLE
from rmc_agents.plots.style import (
    BLACK,
    BLUE,
    FAINT,
    MARKERS,
    OKABE_ITO,
    ORANGE,
    fitted,
    legend_below,
    make_plain,
    mark_chance,
    show_rates,
    single_axes,
    styles,
)

TITLES = {
    CUE: "cue object (accuracy)",
    POSITION: "column of the agent (R²)",
    TIME: "steps since the cue was in view (R²)",
}
SCALES = {CUE: (0.5, 1.0), POSITION: (0.0, 1.0), TIME: (0.0, 1.0)}
"""Ends of the color scale: the score without any information, and the perfect score."""
MAX_NUMBERED = 16
"""Columns of a heat map up to which the score is printed in each cell."""


def heat_maps(probe: Probe, title: str) -> Figure:
    """Return a figure of the probe scores of each part of the memory.

    The left column has a heat map for each target by steps since the cue was in view, the right one by step
    of the episode. A panel without scores shows the number of episodes instead.
    """
    rows = len(probe.parts)
    figure = Figure(figsize=(13.5, 3 * (1.3 + 0.36 * rows)), layout="constrained")
    figure.suptitle(fitted(title, 13, 15), fontsize=15, x=0.01, ha="left", parse_math=False)
    grid = figure.add_gridspec(3, 2)
    for column, axis in enumerate((probe.since, probe.step)):
        for row, target in enumerate((CUE, POSITION, TIME)):
            plot = figure.add_subplot(grid[row, column])
            if target in axis.scores:
                scores = _scores(axis, target, probe.parts)
                image = _heat_map(plot, scores, target, probe.parts)
                bar = figure.colorbar(
                    image, ax=plot, pad=0.01, fraction=0.05, extend=_extends(scores, target)
                )
                bar.ax.tick_params(labelsize=10)
                if target == CUE:
                    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            else:
                _sample_sizes(plot, axis)
            plot.set_xlabel(axis.name, fontsize=11)
    return figure


def swaps(found: Sequence[Swap], after: int, title: str) -> Figure:
    """Return a figure of how often the choice flips when a part of the memory is exchanged.

    Args:
        found: the results of the exchanges.
        after: steps between the cue leaving the view and the exchange.
        title: printed above the axes.
    """
    parts = list(dict.fromkeys(swap.part for swap in found))  # some of the slots come before all of them
    figure, plot = single_axes(title, (max(7.0, 2.2 + 1.25 * len(parts)), 5))
    looks = {
        False: (ORANGE, "o", "donor with the opposite cue"),
        True: (BLUE, "s", "donor with the same cue (control)"),
    }
    for same_cue, (color, marker, label) in looks.items():
        side = 1 if same_cue else -1
        for i, swap in enumerate(swap for swap in found if swap.same_cue == same_cue):
            x = i + 0.13 * side
            plot.plot([x, x], swap.interval, color=color, lw=3, solid_capstyle="butt")
            plot.plot(x, swap.rate, marker, color=color, ms=9, mec="white", label=label if i == 0 else None)
            plot.annotate(
                f"{swap.rate:.0%}",
                (x, swap.rate),
                (9 * side, 0),
                fontsize=11,
                textcoords="offset points",
                ha="left" if same_cue else "right",
                va="center",
            )
    plot.set_xticks(range(len(parts)), [_name(part, len(parts)) for part in parts])
    plot.set_xlim(-0.6, len(parts) - 0.4)
    show_rates(plot)
    plot.set_ylim(-0.03, 1.03)  # room for the markers at both ends
    plot.tick_params(labelsize=12)
    steps = f"{after} step{'s' if after != 1 else ''}"
    plot.set_xlabel(f"exchanged part of the memory, {steps} after the cue left the view", fontsize=12)
    plot.set_ylabel("episodes whose choice flips", fontsize=12)
    legend_below(figure, plot, "bars: Wilson 95 % intervals over distinct pairs of histories")
    return figure


def curves(probes: Sequence[tuple[str, str, Probe]], title: str) -> Figure:
    """Return a figure of the cue's probe accuracy by steps since it was last in view, one line per run.

    Args:
        probes: label, name of the core and probe of each run.
        title: printed above the axes.
    """
    figure, plot = single_axes(title, (9, 5.6))
    cores = [core for _, core, _ in probes]
    looks = styles(cores)
    for i, (label, core, probe) in enumerate(probes):
        color, marker = looks[core]
        if cores.count(core) > 1:  # runs of one core must differ, too
            color, marker = OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)]
        shift = 0.07 * (i - (len(probes) - 1) / 2)  # keeps the bars of different runs apart
        steps, value, low, high = _known(probe.since, WHOLE)
        if len(steps):
            plot.vlines(steps + shift, low, high, color=color, lw=2, alpha=0.6)
            plot.plot(steps + shift, value, color=color, marker=marker, mec="white", ms=9, lw=2, label=label)
        steps, value, _, _ = _known(probe.since, OBSERVATION)
        plot.plot(steps + shift, value, color=color, lw=1.5, ls=":")
    mark_chance(plot, 0.5)
    plot.plot([], [], color=BLACK, ls=":", lw=1.5, label="current observation only")
    show_rates(plot)
    plot.set_ylim(0.28, 1.02)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("steps since the cue was last in view", fontsize=12)
    plot.set_ylabel("probe accuracy for the cue, whole state", fontsize=12)
    legend_below(figure, plot, "bars: Wilson 95 % intervals over distinct histories")
    return figure


def _known(axis: Axis, part: str) -> NDArray[np.float64]:
    """[4, n] step, accuracy and its interval at the n steps that have a score for the cue."""
    scores = zip(axis.steps, axis.scores[CUE][part], strict=True)
    return np.array([(step, *score) for step, score in scores if score], dtype=float).reshape(-1, 4).T


def _scores(axis: Axis, target: str, parts: Sequence[str]) -> NDArray[np.float64]:
    """[parts, steps] the scores of a target; NaN where there is none."""
    rows = [
        [np.nan if score is None else score.value for score in axis.scores[target][part]] for part in parts
    ]
    return np.array(rows, dtype=float).reshape(len(parts), -1)


def _heat_map(plot: Plot, scores: NDArray[np.float64], target: str, parts: Sequence[str]) -> AxesImage:
    """Draw a row for each part and a column for each number of steps; gray where there is no score."""
    low, high = SCALES[target]
    rows, columns = scores.shape
    plot.set_facecolor("#dddddd")
    image = plot.imshow(
        np.ma.masked_invalid(scores), aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="none"
    )
    plot.set_title(TITLES[target], fontsize=12, loc="left")
    plot.set_yticks(range(rows), [_name(part, rows - 1) for part in parts])
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.tick_params(labelsize=11, length=0)
    for y, below in enumerate(parts[1:]):
        plot.axhline(y + 0.5, color="white", lw=3 if below in (WHOLE, OBSERVATION) else 1)
    if not np.isfinite(scores).any():
        middle = ((max(columns, 1) - 1) / 2, (rows - 1) / 2)
        plot.text(
            *middle, "too little variation to score", ha="center", va="center", color=FAINT, fontsize=12
        )
    if columns <= MAX_NUMBERED:
        for (y, x), value in np.ndenumerate(scores):
            if np.isfinite(value):
                dark = (value - low) / (high - low) < 0.6
                ink = "white" if dark else "black"
                plot.text(x, y, _short(value), ha="center", va="center", color=ink, fontsize=10)
    return image


def _sample_sizes(plot: Plot, axis: Axis) -> None:
    """Draw the number of episodes behind each column of the heat maps above."""
    for values, color, marker, label in (
        (axis.episodes, BLACK, "o", "episodes"),
        (axis.histories, ORANGE, "s", "distinct histories"),
    ):
        plot.plot(axis.steps, values, color=color, marker=marker, ms=5, lw=1.5, label=label)
    plot.set_yscale("log")
    plot.set_ylim(bottom=1)
    plot.set_xlim(-0.5, max(len(axis.steps), 1) - 0.5)
    plot.set_title("episodes behind each column", fontsize=12, loc="left")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.tick_params(labelsize=11)
    plot.legend(fontsize=11, frameon=False, loc="lower left")
    make_plain(plot)


def _extends(scores: NDArray[np.float64], target: str) -> Literal["min", "neither"]:
    """Return whether the color bar needs an arrow for scores below its scale."""
    return "min" if (scores < SCALES[target][0]).any() else "neither"


def _short(score: float) -> str:
    """Return a score in at most three characters."""
    if score >= 0.995:
        return "1"
    return f"{score:.2f}"[1:] if score >= 0 else "<0"


def _name(part: str, parts: int) -> str:
    """Return the label of a part; the whole state of a memory of slots is all of its slots."""
    return "all slots" if part == WHOLE and parts > 1 else part

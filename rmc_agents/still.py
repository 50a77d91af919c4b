"""One episode on one page, for papers: the maze at the key moments, attention then, and the gates all along.

Axes: A heads, N slots, R rows that a slot can read (the slots, then the input), T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rmc_agents.canvas import verdict
from rmc_agents.palette import MARKERS, OKABE_ITO, YELLOW
from rmc_agents.visuals import MemoryTrace, Moment, Playthrough

PANELS = 5
DARK = tuple(colour for colour in OKABE_ITO if colour != YELLOW)
"""Yellow is for the steps at which the cue is in view."""
COURSES: tuple[tuple[str, Callable[[MemoryTrace], NDArray[np.float32]]], ...] = (
    ("share of attention on the input", lambda trace: trace.attention[:, -1]),
    ("written: gate to the new content", lambda trace: trace.written),
    ("kept: gate to the old content", lambda trace: trace.kept),
    ("changed: |M' - M| / (|M'| + |M|)", lambda trace: trace.changed),
)
"""What is followed over the steps of an episode: a title, and a number from 0 to 1 for each slot."""


def draw(episode: Playthrough, heads: bool = False) -> Figure:
    """The episode as a figure: mazes alone for a core that has no slots.

    The steps at which the cue is in view are shaded; the dashed line is the end, where the choice is made.

    Args:
        episode: what `visuals.play` gave.
        heads: attention head by head, rather than their mean.
    """
    moments = episode.moments
    chosen = key_moments(moments)
    traces = [moment.trace for moment in moments[:-1]]
    known = [trace for trace in traces if trace is not None]
    tall = [3.0, 2.0 + 1.2 * heads, 2.6] if known else [3.0]  # inches
    figure = Figure(figsize=(2.7 * PANELS, sum(tall) + 0.6), layout="constrained")
    rows = figure.add_gridspec(len(tall), 1, height_ratios=tall)
    ending = verdict(episode)[0]
    # A narrow column more, for the colour scale.
    columns = {"ncols": len(chosen) + 1, "width_ratios": [1.0] * len(chosen) + [0.05]}
    cells = rows[0].subgridspec(1, **columns)
    for column, i in enumerate(chosen):
        plot = figure.add_subplot(cells[0, column])
        _scene(plot, moments[i], ending if i == len(moments) - 1 else "")
    if known:
        then = [moments[i].trace for i in chosen]
        _attention(figure, rows[1].subgridspec(1, **columns), then, heads)
        _courses(figure, rows[2].subgridspec(1, len(COURSES)), known, moments, ending)
    return figure


def key_moments(moments: Sequence[Moment], most: int = PANELS) -> list[int]:
    """The beginning, the first and the last look at the cue, on the way, before the choice, the end."""
    last = len(moments) - 1
    looks = [i for i, moment in enumerate(moments[:-1]) if moment.cue is not None and moment.cue.in_view]
    if not looks:
        return np.unique(np.linspace(0, last, min(most, last + 1)).round().astype(int)).tolist()
    wanted = [last, looks[-1], 0, last - 1, (looks[-1] + last) // 2, looks[0]]  # the most telling ones first
    return sorted(list(dict.fromkeys(wanted))[:most])


def _scene(plot: Axes, moment: Moment, ending: str) -> None:
    plot.imshow(moment.picture, interpolation="nearest")
    in_view = moment.cue is not None and moment.cue.in_view
    words = ending or ("cue in view" if in_view else "")
    plot.set_title(f"step {moment.step}", fontsize=13, loc="left")
    plot.set_xlabel(words, fontsize=12)
    plot.set_xticks([])
    plot.set_yticks([])
    plot.spines[:].set(color=YELLOW if in_view else "#999999", linewidth=4 if in_view else 1)
    if moment.cue is not None:
        cell = moment.picture.shape[0] / moment.cue.maze_size
        x, y = (moment.cue.cell[0] + 0.5) * cell, (moment.cue.cell[1] - 0.4) * cell
        plot.text(x, y, "cue", color="white", fontsize=11, weight="bold", ha="center", va="bottom")


def _attention(
    figure: Figure, cells: GridSpecFromSubplotSpec, traces: Sequence[MemoryTrace | None], heads: bool
) -> None:
    """Under each maze what each slot attends to at that step; nothing is read after the last action."""
    image: AxesImage | None = None
    for column, trace in enumerate(traces):
        if trace is None:
            continue
        maps = trace.heads if heads else trace.attention[None]
        across = int(np.ceil(np.sqrt(len(maps))))
        grid = cells[0, column].subgridspec(-(-len(maps) // across), across)
        for head, shares in enumerate(maps):
            plot = figure.add_subplot(grid[head // across, head % across])
            slots, rows = shares.shape
            image = plot.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
            step = -(-rows // (5 if heads else 9))  # leave out names that would touch
            columns = [rows - 1] if heads else [*range(0, rows - 1, step), rows - 1]
            plot.set_xticks(columns, [str(i + 1) if i < rows - 1 else "input" for i in columns])
            first = column == 0 and head % across == 0
            plot.set_yticks(range(0, slots, step), [f"slot {i + 1}" * first for i in range(0, slots, step)])
            plot.tick_params(length=0, labelsize=10)
            if heads:
                plot.set_title(f"head {head + 1}", fontsize=10, pad=2)
    assert image is not None
    bar = figure.colorbar(image, cax=figure.add_subplot(cells[0, len(traces)]))
    bar.set_label(f"share of attention\n({'head by head' if heads else 'mean of heads'})", fontsize=11)


def _courses(
    figure: Figure,
    cells: GridSpecFromSubplotSpec,
    traces: Sequence[MemoryTrace],
    moments: Sequence[Moment],
    ending: str,
) -> None:
    """Gates, change and attention to the input of each slot, step by step."""
    end = len(moments) - 1
    slots = len(traces[0].written)
    shown: dict[str, Artist] = {}
    for column, (title, course) in enumerate(COURSES):
        plot = figure.add_subplot(cells[0, column])
        for first, past in views(moments):
            shown["cue in view"] = plot.axvspan(first - 0.5, past - 0.5, color=YELLOW, alpha=0.45, lw=0)
        values = np.stack([course(trace) for trace in traces])  # [T, N]
        every = max(len(values) // 12, 1)
        for slot in range(slots):
            colour = DARK[slot % len(DARK)]
            marker = MARKERS[slot % len(MARKERS)]
            shown[f"slot {slot + 1}"] = plot.plot(
                values[:, slot], color=colour, marker=marker, ms=5, lw=1.5, markevery=every
            )[0]
        shown[f"the choice: {ending}"] = plot.axvline(end, color="black", ls="--", lw=1.5)
        plot.set_title(title, fontsize=11, loc="left")
        plot.set_xlabel("step", fontsize=11)
        plot.set_ylim(0, 1)
        plot.set_xlim(-0.5, end + 0.5)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        plot.tick_params(labelsize=10)
        plot.spines[["top", "right"]].set_visible(False)
    names = sorted(shown, key=lambda name: not name.startswith("slot"))
    figure.legend(
        [shown[name] for name in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), 8),
        frameon=False,
        fontsize=11,
    )


def views(moments: Sequence[Moment]) -> list[tuple[int, int]]:
    """The spans of steps, first and one past the last, at which the cue is in view."""
    seen = [moment.cue is not None and moment.cue.in_view for moment in moments]
    edges = np.flatnonzero(np.diff([False, *seen, False])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))

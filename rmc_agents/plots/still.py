"""One episode on one page, for papers: the maze at key moments, the attention there, the gates throughout.

Axes: A heads, N slots, R rows that a slot can attend to (the slots, then the input), T steps.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rmc_agents.interpret.playthrough import MemoryTrace, Moment, Playthrough
from rmc_agents.plots.frames import outcome
from rmc_agents.plots.style import MARKERS, OKABE_ITO, YELLOW

MAX_SCENES = 5
"""Key moments on a page."""
DARK = tuple(color for color in OKABE_ITO if color != YELLOW)
"""Colors of the slots; yellow shades the steps at which the cue is in view."""
SERIES: tuple[tuple[str, Callable[[MemoryTrace], NDArray[np.float32]]], ...] = (
    ("attention to the input", lambda trace: trace.attention[:, -1]),
    ("written: input gate", lambda trace: trace.written),
    ("kept: forget gate", lambda trace: trace.kept),
    ("changed: |M' - M| / (|M'| + |M|)", lambda trace: trace.changed),
)
"""Title, and value of each slot from 0 to 1, of the panels over the steps of an episode."""

# The page is laid out in inches, so that there is room for every text whatever is drawn.
SCENE, ATTENTION, HEAD, SERIES_HEIGHT = 2.5, 1.7, 1.2, 1.9
GAP, HEAD_GAP, MARGIN = 0.2, 0.5, 0.1
TITLE, LINE = 0.34, 0.21
TICKS, LABEL = 0.3, 0.3
SLOT_LABELS, COLOR_BAR = 0.65, 1.05
WORDS_PER_LINE = 24
"""Characters that fit under a scene."""
LEGEND_COLUMNS = 8


def draw(episode: Playthrough, per_head: bool = False) -> Figure:
    """Return the episode as a figure; for a core without slots, as its scenes alone.

    The steps at which the cue is in view are shaded. The dashed line is the end, where the choice is made.

    Args:
        episode: the result of `interpret.playthrough.play`.
        per_head: draw the attention of each head instead of the mean of the heads.
    """
    moments = episode.moments
    chosen = key_moments(moments)
    traces = [moment.trace for moment in moments[:-1] if moment.trace is not None]
    ending = outcome(episode)[0]
    words = [ending if i == len(moments) - 1 else "cue in view" * _in_view(moments[i]) for i in chosen]
    words = [textwrap.fill(text, WORDS_PER_LINE) for text in words]
    page = _Page(len(chosen), with_memory=bool(traces))
    scene = SCENE * max(min(moment.picture.shape[0] / moment.picture.shape[1], 1.5) for moment in moments)
    lines = max(text.count("\n") + 1 for text in words)
    page.add_row("scenes", TITLE, scene, LINE * lines + MARGIN)
    if traces:
        down = _arrange(len(traces[0].heads))[0]
        height = down * HEAD + (down - 1) * HEAD_GAP if per_head else ATTENTION
        page.add_row("attention", LINE * per_head, height, TICKS + MARGIN)
        page.add_row("series", TITLE, SERIES_HEIGHT, TICKS + LABEL)
        shown = len(traces[0].written) + 2
        page.add_row("legend", 0, LINE * math.ceil(shown / LEGEND_COLUMNS) + MARGIN, 0)
    figure = page.figure()
    cells = page.cells(figure, "scenes")
    for column, i in enumerate(chosen):
        _scene(figure.add_subplot(cells[0, column]), moments[i], words[column])
    if traces:
        _attention(figure, page, [moments[i].trace for i in chosen], per_head)
        _series(figure, page, traces, moments, ending)
    return figure


def key_moments(moments: Sequence[Moment], most: int = MAX_SCENES) -> list[int]:
    """Return the steps to show: the start, the first and last view of the cue, the choice and the end.

    An episode in which the cue is never in view before the end is shown at evenly spaced steps.
    """
    last = len(moments) - 1
    views = [i for i, moment in enumerate(moments[:-1]) if _in_view(moment)]
    if not views:
        return np.unique(np.linspace(0, last, min(most, last + 1)).round().astype(int)).tolist()
    by_importance = [last, views[-1], 0, last - 1, (views[-1] + last) // 2, views[0]]
    return sorted(list(dict.fromkeys(by_importance))[:most])


def cue_spans(moments: Sequence[Moment]) -> list[tuple[int, int]]:
    """Return the spans of steps at which the cue is in view, as first step and step after the last."""
    in_view = [_in_view(moment) for moment in moments]
    edges = np.flatnonzero(np.diff([False, *in_view, False])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


class _Page:
    """Rows of axes below each other, in inches; each row with room for text above and below.

    Args:
        scenes: number of key moments.
        with_memory: reserve room for the names of slots on the left and the color bar on the right.
    """

    def __init__(self, scenes: int, with_memory: bool) -> None:
        # The panels over all steps need the width of a full row of scenes.
        self.columns = MAX_SCENES if with_memory else scenes
        self.left = SLOT_LABELS if with_memory else MARGIN
        self.right = COLOR_BAR if with_memory else MARGIN
        self.width = self.left + self.columns * (SCENE + GAP) - GAP + self.right
        self.height = MARGIN
        self.rows: dict[str, tuple[float, float]] = {}

    def add_row(self, name: str, above: float, height: float, below: float) -> None:
        """Append a row of this height, with so much room above and below it."""
        top = self.height + above
        self.rows[name] = (top, top + height)
        self.height = top + height + below

    def figure(self) -> Figure:
        return Figure(figsize=(self.width, self.height))

    def cells(self, figure: Figure, name: str, columns: int = 0, gap: float = GAP) -> GridSpec:
        """Return a row as columns of equal width: those of the scenes, unless their number is given."""
        top, bottom = self.rows[name]
        columns = columns or self.columns
        width = (self.width - self.left - self.right - (columns - 1) * gap) / columns
        return figure.add_gridspec(
            1,
            columns,
            left=self.left / self.width,
            right=1 - self.right / self.width,
            top=1 - top / self.height,
            bottom=1 - bottom / self.height,
            wspace=gap / width,
        )

    def color_bar(self, figure: Figure, name: str) -> Axes:
        """Return axes on the right of a row."""
        top, bottom = self.rows[name]
        left = 1 - (self.right - 0.1) / self.width
        return figure.add_axes(
            (left, 1 - bottom / self.height, 0.12 / self.width, (bottom - top) / self.height)
        )


def _scene(plot: Axes, moment: Moment, words: str) -> None:
    """Draw the environment at one step, with words below."""
    plot.imshow(moment.picture, interpolation="nearest")
    in_view = _in_view(moment)
    plot.set_title(f"step {moment.step}", fontsize=13, loc="left")
    plot.set_xlabel(words, fontsize=12)
    plot.set_xticks([])
    plot.set_yticks([])
    plot.spines[:].set(color=YELLOW if in_view else "#999999", linewidth=4 if in_view else 1)
    if moment.cue is not None:
        cell = moment.picture.shape[0] / moment.cue.maze_size
        x, y = moment.cue.cell[0] * cell, (moment.cue.cell[1] - 0.4) * cell
        plot.text(x, y, "cue", color="white", fontsize=11, weight="bold", ha="left", va="bottom")


def _attention(figure: Figure, page: _Page, traces: Sequence[MemoryTrace | None], per_head: bool) -> None:
    """Draw the attention of each slot below each scene; there is none after the last action."""
    cells = page.cells(figure, "attention")
    image: AxesImage | None = None
    for column, trace in enumerate(traces):
        if trace is None:
            continue
        maps = trace.heads if per_head else trace.attention[None]
        down, across = _arrange(len(maps))
        grid = cells[0, column].subgridspec(down, across, wspace=0.15, hspace=HEAD_GAP / HEAD)
        for head, shares in enumerate(maps):
            plot = figure.add_subplot(grid[head // across, head % across])
            slots, rows = shares.shape
            image = plot.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
            every = -(-rows // (5 if per_head else 9))  # skip labels that would touch
            columns = [rows - 1] if per_head else [*range(0, rows - every, every), rows - 1]
            plot.set_xticks(columns, [str(i + 1) if i < rows - 1 else "input" for i in columns])
            first = column == 0 and head % across == 0
            plot.set_yticks(range(0, slots, every), [f"slot {i + 1}" * first for i in range(0, slots, every)])
            plot.tick_params(length=0, labelsize=10)
            if per_head:
                plot.set_title(f"head {head + 1}", fontsize=10, pad=2)
    assert image is not None  # a core with slots has traced at least the first step
    bar = figure.colorbar(image, cax=page.color_bar(figure, "attention"))
    bar.set_label(f"share of attention\n({'by head' if per_head else 'mean of heads'})", fontsize=11)


def _series(
    figure: Figure, page: _Page, traces: Sequence[MemoryTrace], moments: Sequence[Moment], ending: str
) -> None:
    """Draw attention to the input, gates and change of each slot over the steps, with a legend."""
    end = len(moments) - 1
    slots = len(traces[0].written)
    entries: dict[str, Artist] = {}
    cells = page.cells(figure, "series", len(SERIES), gap=0.5)
    for column, (title, series) in enumerate(SERIES):
        plot = figure.add_subplot(cells[0, column])
        for first, past in cue_spans(moments):
            entries["cue in view"] = plot.axvspan(first - 0.5, past - 0.5, color=YELLOW, alpha=0.45, lw=0)
        values = np.stack([series(trace) for trace in traces])  # [T, N]
        every = max(len(values) // 12, 1)
        for slot in range(slots):
            color, marker = DARK[slot % len(DARK)], MARKERS[slot % len(MARKERS)]
            (entries[f"slot {slot + 1}"],) = plot.plot(
                values[:, slot], color=color, marker=marker, ms=5, lw=1.5, markevery=every
            )
        name = "the end" if moments[-1].cue is None else "the choice"
        entries[f"{name}: {ending}"] = plot.axvline(end, color="black", ls="--", lw=1.5)
        plot.set_title(title, fontsize=11, loc="left")
        plot.set_xlabel("step", fontsize=11)
        plot.set_ylim(0, 1)
        plot.set_xlim(-0.5, end + 0.5)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        plot.tick_params(labelsize=10)
        plot.spines[["top", "right"]].set_visible(False)
    names = sorted(entries, key=lambda name: not name.startswith("slot"))
    figure.legend(
        [entries[name] for name in names],
        names,
        loc="lower center",
        ncols=min(len(names), LEGEND_COLUMNS),
        frameon=False,
        fontsize=11,
    )


def _arrange(heads: int) -> tuple[int, int]:
    """Return the rows and columns in which the maps of the heads are drawn."""
    columns = math.ceil(math.sqrt(heads))
    return -(-heads // columns), columns


def _in_view(moment: Moment) -> bool:
    return moment.cue is not None and moment.cue.in_view

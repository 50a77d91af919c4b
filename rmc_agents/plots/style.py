"""The look of all figures: palette, axes and legends, and saving as PNG and SVG.

The colors can be distinguished with any kind of color vision: Okabe and Ito 2008, "Color universal design"
(jfly.uni-koeln.de/color), and, for figures of many cores, four of Paul Tol's "muted" scheme
(personal.sron.nl/~pault).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from rmc_agents.errors import shown
from rmc_agents.runs.files import write_atomically

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, BLACK, YELLOW = "#CC79A7", "#56B4E9", "#000000", "#F0E442"
MUTED = WINE, TEAL, OLIVE, PURPLE, INDIGO = "#882255", "#44AA99", "#999933", "#AA4499", "#332288"
FAINT = "#666666"
"""Secondary text and reference lines."""
OKABE_ITO = (BLUE, ORANGE, GREEN, VERMILLION, PINK, SKY, BLACK, YELLOW)

CORE_COLORS = {
    "rmc": BLUE,
    "lstm": ORANGE,
    "gru": GREEN,
    "dnc": PINK,
    "rnn": SKY,
    "feedforward": BLACK,
    "delta_rmc": VERMILLION,
    "gated_delta": WINE,
}
MARKERS = "osD^vPX*<>ph8d"
"""Marker shapes: lines must differ in more than their color."""
DPI = 150
"""Resolution of PNG files."""


def styles(cores: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the color and the marker of each core, the same in every figure.

    Cores that are not in `CORE_COLORS` get the remaining colors in the order given.
    """
    cores = list(dict.fromkeys(cores))
    unused = (PURPLE, OLIVE, TEAL, YELLOW, INDIGO)
    others = [core for core in cores if core not in CORE_COLORS]
    colors = CORE_COLORS | {core: unused[i % len(unused)] for i, core in enumerate(others)}
    order = [*CORE_COLORS, *others]
    return {core: (colors[core], MARKERS[order.index(core) % len(MARKERS)]) for core in cores}


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure to `path`.png and `path`.svg and return both paths; the folder is created.

    The files contain no date and no random ids: the same figure gives the same bytes.

    Raises:
        OSError: a file cannot be written.
    """
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}
    paths = []
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        for kind in metadata:
            paths.append(path.with_name(f"{path.name}.{kind}"))
            write = partial(figure.savefig, format=kind, dpi=DPI, metadata=metadata[kind])
            write_atomically(paths[-1], write)
    return paths


def fitted(text: str, width: float, font_size: float, lines: int = 3) -> str:
    """Return text from outside, such as an environment's id, in lines that fit on a figure.

    Args:
        text: the text; what does not fit is left out.
        width: of the lines, in inches.
        font_size: in points.
        lines: number of lines at most.
    """
    room, found = 72 * width / font_size, [""]
    for word in re.findall(r"\s*\S{1,12}", shown(text, 1000)):  # a name without spaces is broken, too
        if _width(found[-1] + word) > room and found[-1]:
            found.append("")
        found[-1] += word if found[-1] else word.lstrip()
    if len(found) > lines:
        found = [*found[: lines - 1], f"{found[lines - 1][:-4]} ..."]
    return "\n".join(found)


def _width(text: str) -> float:
    """Return an upper bound of the width of a text in DejaVu Sans, in units of its size."""
    widths = {**dict.fromkeys("fijlrt.,:;'|![]()/\\- ", 0.42), **dict.fromkeys("mwMW@%&+=<>_", 1.0)}
    return sum(widths.get(c, 1.0 if not c.isascii() else 0.8 if c.isupper() else 0.645) for c in text)


def single_axes(title: str, size: tuple[float, float] = (8, 5)) -> tuple[Figure, Axes]:
    """Return a figure of `size` inches with one titled pair of axes; `$` in the title is plain text."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(fitted(title, size[0] - 1, 14), fontsize=14, loc="left", parse_math=False)
    axes.tick_params(labelsize=11)
    make_plain(axes)
    return figure, axes


def make_plain(axes: Axes) -> None:
    """Draw a faint grid behind the data, and no frame at the top and on the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def show_rates(axes: Axes) -> None:
    """Let the y axis show rates as 0 % to 100 %."""
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def show_steps(axes: Axes) -> None:
    """Let the x axis start at 0 and abbreviate large numbers of steps (1 M)."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))


def mark_chance(axes: Axes, chance: float) -> None:
    """Draw the score of guessing as a dashed line, labelled on the right."""
    axes.axhline(chance, color=FAINT, ls="--", lw=1.2)
    axes.annotate(
        "chance",
        (1, chance),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=FAINT,
        fontsize=11,
    )


def legend_below(figure: Figure, axes: Axes, note: str = "") -> None:
    """Put the legend below the axes, where it hides no data; many entries make the figure higher.

    Args:
        figure: the figure, in constrained layout.
        axes: the axes whose lines are listed; their labels are not read as mathematics.
        note: printed above the entries, such as the meaning of error bars.
    """
    handles, labels = axes.get_legend_handles_labels()
    width = figure.get_figwidth()
    longest = max(map(_width, labels), default=0.0) * 11 / 72
    columns = next((n for n in (3, 2) if longest < width / n - 0.7), 1)
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.25 * max(rows - 3, 0))
    legend = figure.legend(
        handles,
        [fitted(label, width - 1, 11) for label in labels],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=11,
        title=fitted(note, width - 0.5, 10) or None,
        title_fontsize=10,
    )
    legend.get_title().set_color(FAINT)
    for text in legend.get_texts():
        text.set_parse_math(False)

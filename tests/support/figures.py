"""Measurements of text in Matplotlib figures: what is cut off, and what overlaps."""

from __future__ import annotations

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

TOLERANCE = 1.0
"""Pixels, for rounding."""


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return every text that a drawn figure shows, with its bounding box in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    hidden = _labels_outside_their_axes(figure)
    texts = [text for text in figure.findobj(Text) if text not in hidden and text.get_visible()]
    return [
        (text.get_text(), text.get_window_extent(renderer))  # type: ignore[attr-defined]
        for text in texts
        if text.get_text().strip()  # type: ignore[attr-defined]
    ]


def text_faults(figure: Figure) -> list[str]:
    """Return what is wrong with the texts of a figure: those that leave it, and those over each other."""
    texts = drawn_texts(figure)
    width, height = figure.bbox.width + TOLERANCE, figure.bbox.height + TOLERANCE
    cut = [
        f"cut: {text}"
        for text, box in texts
        if min(box.x0, box.y0) < -TOLERANCE or box.x1 > width or box.y1 > height
    ]
    overlapping = [
        f"overlapping: {a}, {b}"
        for (a, box), (b, other) in combinations(texts, 2)
        if min(box.x1, other.x1) - max(box.x0, other.x0) > TOLERANCE
        and min(box.y1, other.y1) - max(box.y0, other.y0) > TOLERANCE
    ]
    return cut + overlapping


def _labels_outside_their_axes(figure: Figure) -> set[object]:
    """Return the labels of ticks beyond the ends of their axis: Matplotlib has but does not draw them."""
    hidden: set[object] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * max(abs(low), abs(high))
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {tick.label1, tick.label2}
    return hidden

"""Frames of an episode for a GIF or MP4: the environment, the memory beside it, and a caption.

Axes: A heads, N slots, R rows that a slot can attend to (the slots, then the input). Sizes are in pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rmc_agents.interpret.playthrough import Cue, MemoryTrace, Moment, Playthrough
from rmc_agents.plots.style import BLUE, FAINT, GREEN, ORANGE, VERMILLION, YELLOW

Frame = tuple[Image.Image, float]
"""An image and the seconds that it is shown."""

INK, PAPER, TRACK = "#1a1a1a", "#ffffff", "#e6e6e6"
MARGIN, BAR_HEIGHT, GATE_WIDTH, MIN_WIDTH = 16, 44, 76, 440
FONT_SIZE, MIN_FONT_SIZE = 18, 9
"""Size of titles and captions, and the smallest size to which a long one is reduced."""
FIRST_SECONDS, STEP_SECONDS, LAST_SECONDS = 1.0, 0.3, 2.5
"""Display time of an episode's first frame, of each later frame, and of its last frame."""
MAX_FRAMES = 80
"""Frames per episode; a longer episode is shown as evenly spaced frames."""


def draw(episode: Playthrough, title: str, per_head: bool = False) -> list[Frame]:
    """Return the frames of an episode; the last one states the outcome.

    Args:
        episode: the episode.
        title: printed above each frame, before the number of the step.
        per_head: draw the attention of each head instead of the mean of the heads.
    """
    moments = episode.moments
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(len(moments), MAX_FRAMES)).round().astype(int))
    if len(chosen) < len(moments):
        title += "   (fast forward)"
    frames = []
    for i in chosen.tolist():
        moment, is_last = moments[i], i == len(moments) - 1
        trace = moment.trace or moments[i - 1].trace  # the memory reads nothing after the last action
        seen = any(m.cue is not None and m.cue.in_view for m in moments[: i + 1])
        text, color = outcome(episode) if is_last else caption(moment, seen)
        memory = None if trace is None else draw_memory(trace, per_head)
        image = _frame(moment, memory, f"{title}   step {moment.step}", text, color)
        frames.append((image, LAST_SECONDS if is_last else FIRST_SECONDS if i == 0 else STEP_SECONDS))
    return frames


def caption(moment: Moment, seen: bool) -> tuple[str, str]:
    """Return the caption of a frame before the last, and its background color.

    Args:
        moment: the step that the frame shows.
        seen: whether the cue has been in view up to this step.
    """
    if moment.cue is None:
        return f"return so far {moment.reward:.2f}", TRACK
    if moment.cue.in_view:
        return "the cue is in view", YELLOW
    if seen:
        return "the cue is out of view: only the memory holds it", TRACK
    return "the cue has not been in view yet", TRACK


def outcome(episode: Playthrough) -> tuple[str, str]:
    """Return how the episode ended, in words, and a color: blue for success, vermillion for failure."""
    last = episode.moments[-1]
    steps = f"{last.step} step{'s' if last.step != 1 else ''}"
    if episode.success is None:
        return f"return {last.reward:.2f} after {steps}", BLUE
    if not episode.in_time:
        return f"✗  out of time after {steps}", VERMILLION
    good, bad = "solved", "failed"
    if last.cue is not None:
        # The choice has been made before the last view.
        seen = any(moment.cue is not None and moment.cue.in_view for moment in episode.moments[:-1])
        good = "remembered" if seen else "guessed right: the cue was never in view"
        bad = "forgot: chose the wrong object" if seen else "guessed wrong: the cue was never in view"
    return (f"✓  {good}", BLUE) if episode.success else (f"✗  {bad}", VERMILLION)


def draw_memory(trace: MemoryTrace, per_head: bool = False) -> Image.Image:
    """Return an image of the attention of each slot, with bars for its gates and its change."""
    maps = trace.heads if per_head else trace.attention[None]
    grid = _Grid.of(maps, per_head)
    bars_left = max(grid.left + grid.across * grid.pitch[0] + 10, 260)
    bottom = grid.top + grid.down * grid.pitch[1]
    image = Image.new("RGB", (bars_left + 3 * GATE_WIDTH, bottom + 34), PAPER)
    paint = ImageDraw.Draw(image)
    paint.text((0, 4), "attention of each slot", INK, _font(16, bold=True))
    paint.text((bars_left, 4), "each slot, 0 to 1", INK, _font(16, bold=True))
    paint.text((0, 26), "(by head)" if per_head else "(mean of heads)", FAINT, _font(13))
    paint.text((bars_left, 26), "(gates: mean of units)", FAINT, _font(13))
    for head, shares in enumerate(maps):
        name = f"head {head + 1}" if per_head else ""
        _heat_map(paint, grid.corner(head), grid.cell, shares, name, label_rows=head % grid.across == 0)
    _color_scale(paint, (grid.left, bottom - 26), grid.across * grid.pitch[0] - 22)
    _gates(paint, (bars_left, grid.top), max(grid.cell, 18) if per_head else grid.cell, trace)
    return image


@lru_cache(maxsize=512)
def viridis(share: float) -> tuple[int, int, int]:
    """Return the color of a share from 0 (dark) to 1 (bright); it can be read without color vision."""
    red, green, blue, _ = matplotlib.colormaps["viridis"](share, bytes=True)
    return int(red), int(green), int(blue)


def _frame(moment: Moment, memory: Image.Image | None, title: str, text: str, color: str) -> Image.Image:
    """Return the scene under a title and above a caption, with the memory on its right."""
    scene = _scene(moment.picture, moment.cue)
    width = scene.width + 2 * MARGIN + (0 if memory is None else memory.width + 2 * MARGIN)
    height = max(scene.height, 0 if memory is None else memory.height)
    frame = Image.new("RGB", (max(width, MIN_WIDTH), height + 2 * BAR_HEIGHT + MARGIN), PAPER)
    paint = ImageDraw.Draw(frame)
    room = frame.width - 2 * MARGIN
    paint.text((MARGIN, BAR_HEIGHT / 2), title, INK, _fitting_font(title, room, bold=True), anchor="lm")
    frame.paste(scene, (MARGIN, BAR_HEIGHT + (height - scene.height) // 2))
    if memory is not None:
        frame.paste(memory, (scene.width + 3 * MARGIN, BAR_HEIGHT + (height - memory.height) // 2))
    paint.rectangle((0, frame.height - BAR_HEIGHT, frame.width, frame.height), color)
    bold, ink = (True, PAPER) if color in (BLUE, VERMILLION) else (False, INK)
    middle = (frame.width / 2, frame.height - BAR_HEIGHT / 2)
    paint.text(middle, text, ink, _fitting_font(text, room, bold), anchor="mm")
    return frame


def _scene(picture: NDArray[np.uint8], cue: Cue | None) -> Image.Image:
    """Return the environment's image at a readable size, with the cue framed."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    longest = max(image.size)
    if longest < 200:  # enlarge without blurring
        factor = -(-288 // longest)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    elif longest > 560:
        image.thumbnail((480, 480))
    if cue is None:
        return image
    paint = ImageDraw.Draw(image)
    cell = image.height / cue.maze_size
    x, y = cue.cell[0] * cell, cue.cell[1] * cell
    color, width = (YELLOW, 4) if cue.in_view else ("#bbbbbb", 2)
    paint.rectangle((x, y, x + cell, y + cell), outline=color, width=width)
    font = _font(14, bold=True)
    left = max(x + cell / 2 - font.getlength("cue") / 2, 2)  # whole even in mazes of narrow cells
    paint.text((left, y - cell / 2), "cue", PAPER, font, "lm", stroke_width=2, stroke_fill=INK)
    return image


class _Grid(NamedTuple):
    """Grid of attention maps."""

    across: int
    down: int
    cell: int
    """Side of a cell of a map."""
    pitch: tuple[int, int]
    """Distance from map to map, to the right and down."""
    left: int = 62
    top: int = 76

    @classmethod
    def of(cls, maps: NDArray[np.float32], per_head: bool) -> _Grid:
        """Return a nearly square grid for maps [A, N, R]."""
        count, slots, rows = maps.shape
        across = math.ceil(math.sqrt(count))
        size, smallest = (360, 9) if per_head else (240, 14)
        cell = int(np.clip(size / (rows * across), smallest, 40))
        return cls(across, -(-count // across), cell, (rows * cell + 20, slots * cell + 40))

    def corner(self, i: int) -> tuple[int, int]:
        """Return the upper left corner of map i."""
        return self.left + i % self.across * self.pitch[0], self.top + i // self.across * self.pitch[1]


def _heat_map(
    paint: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: int,
    shares: NDArray[np.float32],
    title: str,
    *,
    label_rows: bool,
) -> None:
    """Draw a map [N, R] of shares, with a title or, if that is empty, with numbered columns."""
    left, top = corner
    slots, rows = shares.shape
    every = -(-18 // cell)  # skip labels that would touch
    if title:
        paint.text((left, top - 6), title, INK, _font(13), anchor="ls")
        if cell * rows > 84:
            paint.text((left + rows * cell, top - 6), "input", INK, _font(13), anchor="rs")
    else:
        for column in range(0, rows - 1, every):
            paint.text((left + (column + 0.5) * cell, top - 6), str(column + 1), INK, _font(14), anchor="ms")
        narrow = cell < 38  # a centred word would touch the number before it
        x = left + (rows - 1 if narrow else rows - 0.5) * cell
        paint.text((x, top - 6), "input", INK, _font(14, bold=True), anchor="ls" if narrow else "ms")
    gap = 2 if cell > 12 else 1
    for slot in range(slots):
        y = top + slot * cell
        if label_rows and slot % every == 0:
            paint.text((left - 8, y + cell / 2), f"slot {slot + 1}", INK, _font(14), anchor="rm")
        for column in range(rows):
            x = left + column * cell
            paint.rectangle((x, y, x + cell - gap, y + cell - gap), viridis(float(shares[slot, column])))


def _gates(paint: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, trace: MemoryTrace) -> None:
    """Draw bars for how much of each slot is written, kept and changed."""
    left, top = corner
    columns = (
        ("written", trace.written, BLUE),
        ("kept", trace.kept, ORANGE),
        ("changed", trace.changed, GREEN),
    )
    length = GATE_WIDTH - 12
    for i, (name, shares, color) in enumerate(columns):
        x = left + i * GATE_WIDTH
        paint.text((x, top - 6), name, INK, _font(14), anchor="ls")
        for slot, share in enumerate(shares):
            high, low = top + slot * cell + cell * 0.2, top + slot * cell + cell * 0.8 - 2
            paint.rectangle((x, high, x + length, low), TRACK)
            paint.rectangle((x, high, x + length * float(share), low), color)


def _color_scale(paint: ImageDraw.ImageDraw, corner: tuple[int, int], width: int) -> None:
    """Draw the color scale of shares from 0 to 1."""
    x, y = corner
    for i in range(width):
        paint.line((x + i, y, x + i, y + 12), viridis(i / max(width - 1, 1)))
    paint.text((x, y + 16), "0", INK, _font(13))
    below = 16 if width > 180 else 34  # a narrow scale has no room between its ends
    paint.text((x + width / 2, y + below), "share of attention", FAINT, _font(13), anchor="ma")
    paint.text((x + width, y + 16), "1", INK, _font(13), anchor="ra")


def _fitting_font(text: str, width: int, bold: bool) -> ImageFont.FreeTypeFont:
    """Return the largest font, up to `FONT_SIZE`, in which the text fits into `width`."""
    sizes = range(FONT_SIZE, MIN_FONT_SIZE - 1, -1)
    return next(
        (_font(s, bold) for s in sizes if _font(s, bold).getlength(text) <= width), _font(sizes[-1], bold)
    )


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which Matplotlib bundles: the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)

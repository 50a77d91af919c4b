"""Draws the frames that `visuals` shows. All sizes are in pixels.

A heads, N slots; a slot's row shows what it attends to (the slots, then the input) and its gates.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rmc_agents.palette import BLUE, FAINT, GREEN, ORANGE, VERMILLION, YELLOW

if TYPE_CHECKING:
    from rmc_agents.visuals import Cue, MemoryTrace, Moment, Playthrough

Frame = tuple[Image.Image, float]
"""A picture, and the seconds that it is shown."""

INK, PAPER, TRACK = "#1a1a1a", "#ffffff", "#e6e6e6"

MARGIN, BAR_HEIGHT, GATE_WIDTH, NARROWEST = 16, 44, 76, 440
FIRST, EACH, LAST = 1.0, 0.3, 2.5
"""Seconds that an episode's first frame, each later one and its last are shown."""
LONGEST = 80
"""Frames of one episode; of longer ones evenly spaced frames are shown."""


def draw(episode: Playthrough, title: str, heads: bool = False) -> list[Frame]:
    """The frames of an episode; the last one says how it ended. `heads`: attention head by head."""
    moments = episode.moments
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(len(moments), LONGEST)).round().astype(int))
    if len(chosen) < len(moments):
        title += "   (fast forward)"
    frames = []
    for i in chosen.tolist():
        moment, end = moments[i], i == len(moments) - 1
        trace = moment.trace or moments[i - 1].trace  # nothing is read after the last action
        seen = any(m.cue is not None and m.cue.in_view for m in moments[: i + 1])
        text, colour = verdict(episode) if end else caption(moment, seen)
        memory = None if trace is None else _memory(trace, heads)
        image = _frame(moment, memory, f"{title}   step {moment.step}", text, colour)
        frames.append((image, LAST if end else FIRST if i == 0 else EACH))
    return frames


def _frame(moment: Moment, memory: Image.Image | None, title: str, text: str, colour: str) -> Image.Image:
    """The scene under a title and above a bar of text; beside it the memory, if it has slots."""
    scene = _scene(moment.picture, moment.cue)
    width = scene.width + 2 * MARGIN + (0 if memory is None else memory.width + 2 * MARGIN)
    height = max(scene.height, 0 if memory is None else memory.height)
    frame = Image.new("RGB", (max(width, NARROWEST), height + 2 * BAR_HEIGHT + MARGIN), PAPER)
    paint = ImageDraw.Draw(frame)
    paint.text((MARGIN, BAR_HEIGHT / 2), title, INK, _font(18, bold=True), anchor="lm")
    frame.paste(scene, (MARGIN, BAR_HEIGHT + (height - scene.height) // 2))
    if memory is not None:
        frame.paste(memory, (scene.width + 3 * MARGIN, BAR_HEIGHT + (height - memory.height) // 2))
    paint.rectangle((0, frame.height - BAR_HEIGHT, frame.width, frame.height), colour)
    bold, ink = (True, PAPER) if colour in (BLUE, VERMILLION) else (False, INK)
    middle = (frame.width / 2, frame.height - BAR_HEIGHT / 2)
    paint.text(middle, text, ink, _font(18, bold), anchor="mm")
    return frame


def caption(moment: Moment, seen: bool) -> tuple[str, str]:
    """What to say while the episode runs, and on which colour; `seen`: the cue has been in view by now."""
    if moment.cue is None:
        return f"return so far {moment.reward:.2f}", TRACK
    if moment.cue.in_view:
        return "the cue is in view", YELLOW
    if seen:
        return "the cue is out of view: only memory has it", TRACK
    return "the cue has not been in view yet", TRACK


def verdict(episode: Playthrough) -> tuple[str, str]:
    """What to say at the end, and on which colour."""
    last = episode.moments[-1]
    steps = f"{last.step} step{'s' if last.step != 1 else ''}"
    if episode.success is None:
        return f"return {last.reward:.2f} after {steps}", BLUE
    if not episode.in_time:
        return f"✗  out of time after {steps}", VERMILLION
    good, bad = "solved", "failed"
    if last.cue is not None:
        # The view at the end comes too late to choose by.
        seen = any(moment.cue is not None and moment.cue.in_view for moment in episode.moments[:-1])
        good = "remembered" if seen else "guessed right: the cue was never in view"
        bad = "forgot: the wrong object" if seen else "guessed wrong: the cue was never in view"
    return (f"✓  {good}", BLUE) if episode.success else (f"✗  {bad}", VERMILLION)


def _scene(picture: NDArray[np.uint8], cue: Cue | None) -> Image.Image:
    """The environment's picture in a fair size, the cue marked."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    longest = max(image.size)
    if longest < 200:  # pixels as pixels
        factor = -(-288 // longest)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    elif longest > 560:
        image.thumbnail((480, 480))
    if cue is None:
        return image
    paint = ImageDraw.Draw(image)
    cell = image.height / cue.maze_size
    x, y = cue.cell[0] * cell, cue.cell[1] * cell
    colour, width = (YELLOW, 4) if cue.in_view else ("#bbbbbb", 2)
    paint.rectangle((x, y, x + cell, y + cell), outline=colour, width=width)
    paint.text(
        (x + cell / 2, y - cell / 2),
        "cue",
        PAPER,
        _font(14, bold=True),
        "mm",
        stroke_width=2,
        stroke_fill=INK,
    )
    return image


def _memory(trace: MemoryTrace, heads: bool = False) -> Image.Image:
    """What each slot attends to; beside it how far it is written and kept, and how much it changed."""
    maps = trace.heads if heads else trace.attention[None]
    count, slots, rows = maps.shape
    across = math.ceil(math.sqrt(count))
    down = -(-count // across)
    cell = int(np.clip((360 if heads else 240) / (rows * across), 9 if heads else 14, 40))
    label, top = 62, 76
    wide, high = rows * cell, slots * cell
    gates = max(label + across * (wide + 20) + 10, 260)
    height = top + down * (high + 40) + 34
    image = Image.new("RGB", (gates + 3 * GATE_WIDTH, height), PAPER)
    paint = ImageDraw.Draw(image)
    paint.text((0, 4), "what each slot attends to", INK, _font(16, bold=True))
    paint.text((gates, 4), "each slot, from 0 to 1", INK, _font(16, bold=True))
    paint.text((0, 26), "(head by head)" if heads else "(mean of heads)", FAINT, _font(13))
    paint.text((gates, 26), "(gates: mean of units)", FAINT, _font(13))
    for head, shares in enumerate(maps):
        x, y = label + head % across * (wide + 20), top + head // across * (high + 40)
        _heat(paint, (x, y), cell, shares, f"head {head + 1}" if heads else "", first=head % across == 0)
    _scale(paint, label, top + down * (high + 40) - 26, across * (wide + 20) - 22, "share of attention")
    _gates(paint, (gates, top), cell if not heads else max(cell, 18), trace)
    return image


def _heat(
    paint: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: int,
    shares: NDArray[np.float32],
    title: str,
    first: bool,
) -> None:
    """A map [N, R] of shares: with a title, or with its columns numbered; `first`: its rows have names."""
    left, top = corner
    slots, rows = shares.shape
    step = 1 if cell >= 18 else -(-18 // cell)  # leave out numbers that would touch
    if title:
        paint.text((left, top - 6), title, INK, _font(13), anchor="ls")
    else:
        for column in range(0, rows - 1, step):
            paint.text((left + (column + 0.5) * cell, top - 6), str(column + 1), INK, _font(14), anchor="ms")
    narrow = cell < 38  # the word would touch the number before it
    if not title:
        x = left + (rows - 1 if narrow else rows - 0.5) * cell
        paint.text((x, top - 6), "input", INK, _font(14, bold=True), anchor="ls" if narrow else "ms")
    elif cell * rows > 84:
        paint.text((left + rows * cell, top - 6), "input", INK, _font(13), anchor="rs")
    for slot in range(slots):
        y = top + slot * cell
        if first and slot % step == 0:
            paint.text((left - 8, y + cell / 2), f"slot {slot + 1}", INK, _font(14), anchor="rm")
        for column in range(rows):
            x = left + column * cell
            gap = 2 if cell > 12 else 1
            paint.rectangle((x, y, x + cell - gap, y + cell - gap), viridis(float(shares[slot, column])))


def _gates(paint: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, trace: MemoryTrace) -> None:
    """Bars of how far each slot is written and kept, and how much it changed."""
    left, top = corner
    for i, name in enumerate(("written", "kept", "changed")):
        paint.text((left + i * GATE_WIDTH, top - 6), name, INK, _font(14), anchor="ls")
    for slot in range(len(trace.written)):
        y = top + slot * cell
        for i, (share, colour) in enumerate(
            zip((trace.written, trace.kept, trace.changed), (BLUE, ORANGE, GREEN), strict=True)
        ):
            x, length = left + i * GATE_WIDTH, GATE_WIDTH - 12
            high, low = y + cell * 0.2, y + cell * 0.8 - 2
            paint.rectangle((x, high, x + length, low), TRACK)
            paint.rectangle((x, high, x + length * float(share[slot]), low), colour)


def _scale(paint: ImageDraw.ImageDraw, x: int, y: int, width: int, name: str) -> None:
    """A colour scale from 0 to 1."""
    for i in range(width):
        paint.line((x + i, y, x + i, y + 12), viridis(i / max(width - 1, 1)))
    paint.text((x, y + 16), "0", INK, _font(13))
    below = 16 if width > 180 else 34
    paint.text((x + width / 2, y + below), name, FAINT, _font(13), anchor="ma")
    paint.text((x + width, y + 16), "1", INK, _font(13), anchor="ra")


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that pictures look the same everywhere."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@lru_cache(maxsize=512)
def viridis(share: float) -> tuple[int, int, int]:
    """0 to 1 as a colour, dark to bright, readable without colour vision."""
    import matplotlib

    red, green, blue, _ = matplotlib.colormaps["viridis"](share, bytes=True)
    return int(red), int(green), int(blue)

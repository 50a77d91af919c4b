"""Draws the frames that `visuals` shows, and saves them. All sizes are in pixels.

N slots; a slot's row shows what it attends to (the slots, then the input) and its gates.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from rmc_agents.visuals import Cue, MemoryTrace, Moment, Playthrough

Frame = tuple[Image.Image, float]
"""A picture, and the seconds that it is shown."""

# Okabe and Ito's palette, told apart with any colour vision.
BLUE, VERMILLION, YELLOW, ORANGE, GREEN = "#0072B2", "#D55E00", "#F0E442", "#E69F00", "#009E73"
INK, FAINT, PAPER, TRACK = "#1a1a1a", "#666666", "#ffffff", "#e6e6e6"

MARGIN, BAR_HEIGHT, GATE_WIDTH, NARROWEST = 16, 44, 76, 440
FIRST, EACH, LAST = 1.0, 0.3, 2.5
"""Seconds that an episode's first frame, each later one and its last are shown."""
LONGEST = 80
"""Frames of one episode; of longer ones evenly spaced frames are shown."""
SIZE_LIMIT = 2_000_000
"""Bytes of a GIF."""


def draw(episode: Playthrough, title: str) -> list[Frame]:
    """The frames of an episode; the last one says how it ended."""
    moments = episode.moments
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(len(moments), LONGEST)).round().astype(int))
    if len(chosen) < len(moments):
        title += "   (fast forward)"
    frames = []
    for i in chosen.tolist():
        moment, end = moments[i], i == len(moments) - 1
        trace = moment.trace or moments[i - 1].trace  # nothing is read after the last action
        seen = any(m.cue is not None and m.cue.in_view for m in moments[: i + 1])
        text, colour = _verdict(episode) if end else _caption(moment, seen)
        image = _frame(moment, trace, f"{title}   step {moment.step}", text, colour)
        frames.append((image, LAST if end else FIRST if i == 0 else EACH))
    return frames


def save(path: Path, frames: Sequence[Frame], limit: int = SIZE_LIMIT) -> None:
    """Save frames as a GIF of at most `limit` bytes; where it would be larger, every other short one goes."""
    size = (max(image.width for image, _ in frames), max(image.height for image, _ in frames))
    frames = [(_pad(image, size), seconds) for image, seconds in frames]
    while True:
        data = _encode(frames)
        short = [i for i, (_, seconds) in enumerate(frames) if seconds == EACH]
        if len(data) <= limit or len(short) < 2:
            break
        dropped = set(short[::2])
        frames = [frame for i, frame in enumerate(frames) if i not in dropped]
    path.write_bytes(data)


def _encode(frames: Sequence[Frame]) -> bytes:
    """One palette for all frames, so that flat areas stay equal from frame to frame and cost nothing."""
    longest_first = sorted(range(len(frames)), key=lambda i: -frames[i][1])
    samples = [frames[i][0] for i in longest_first[:8]]
    sheet = Image.new("RGB", (samples[0].width, sum(image.height for image in samples)))
    for i, image in enumerate(samples):
        sheet.paste(image, (0, i * samples[0].height))
    # Maximum coverage keeps colours that few pixels have, such as the bright end of a scale.
    palette = sheet.quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in frames]
    buffer = io.BytesIO()
    durations = [round(1000 * seconds) for _, seconds in frames]
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()


def _frame(moment: Moment, trace: MemoryTrace | None, title: str, text: str, colour: str) -> Image.Image:
    """The scene under a title and above a bar of text; beside it the memory, if it has slots."""
    scene = _scene(moment.picture, moment.cue)
    memory = None if trace is None else _memory(trace)
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


def _caption(moment: Moment, seen: bool) -> tuple[str, str]:
    """What to say while the episode runs, and on which colour; `seen`: the cue has been in view by now."""
    if moment.cue is None:
        return f"return so far {moment.reward:.2f}", TRACK
    if moment.cue.in_view:
        return "the cue is in view", YELLOW
    if seen:
        return "the cue is out of view: only memory has it", TRACK
    return "the cue has not been in view yet", TRACK


def _verdict(episode: Playthrough) -> tuple[str, str]:
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


def _memory(trace: MemoryTrace) -> Image.Image:
    """For each slot a row: what it attends to, how far it is written and kept, how much it changed."""
    slots, rows = trace.attention.shape
    cell = int(np.clip(240 / rows, 14, 40))
    label = 62
    heat = rows * cell
    gates = max(label + heat + 30, 260)
    top = 76  # titles above the rows
    image = Image.new("RGB", (gates + 3 * GATE_WIDTH, top + slots * cell + 74), PAPER)
    paint = ImageDraw.Draw(image)
    paint.text((0, 4), "what each slot attends to", INK, _font(16, bold=True))
    paint.text((gates, 4), "each slot, from 0 to 1", INK, _font(16, bold=True))
    paint.text((0, 26), "(mean of heads)", FAINT, _font(13))
    paint.text((gates, 26), "(gates: mean of units)", FAINT, _font(13))
    step = 1 if cell >= 18 else -(-18 // cell)  # leave out numbers that would touch
    for column in range(rows - 1):
        if column % step == 0:
            x = label + (column + 0.5) * cell
            paint.text((x, top - 6), str(column + 1), INK, _font(14), anchor="ms")
    narrow = cell < 38  # the word would touch the number before it
    x = label + (rows - 1 if narrow else rows - 0.5) * cell
    paint.text((x, top - 6), "input", INK, _font(14, bold=True), anchor="ls" if narrow else "ms")
    for i, name in enumerate(("written", "kept", "changed")):
        paint.text((gates + i * GATE_WIDTH, top - 6), name, INK, _font(14), anchor="ls")

    for slot in range(slots):
        y = top + slot * cell
        if slot % step == 0:
            paint.text((label - 8, y + cell / 2), f"slot {slot + 1}", INK, _font(14), anchor="rm")
        for column in range(rows):
            x = label + column * cell
            box = (x, y, x + cell - 2, y + cell - 2)
            paint.rectangle(box, _viridis(float(trace.attention[slot, column])))
        for i, (share, colour) in enumerate(
            zip((trace.written, trace.kept, trace.changed), (BLUE, ORANGE, GREEN), strict=True)
        ):
            x, length = gates + i * GATE_WIDTH, GATE_WIDTH - 12
            high, low = y + cell * 0.2, y + cell * 0.8 - 2
            paint.rectangle((x, high, x + length, low), TRACK)
            paint.rectangle((x, high, x + length * float(share[slot]), low), colour)
    _scale(paint, label, top + slots * cell + 14, heat - 2, "share of attention")
    return image


def _scale(paint: ImageDraw.ImageDraw, x: int, y: int, width: int, name: str) -> None:
    """A colour scale from 0 to 1."""
    for i in range(width):
        paint.line((x + i, y, x + i, y + 12), _viridis(i / max(width - 1, 1)))
    paint.text((x, y + 16), "0", INK, _font(13))
    below = 16 if width > 180 else 34
    paint.text((x + width / 2, y + below), name, FAINT, _font(13), anchor="ma")
    paint.text((x + width, y + 16), "1", INK, _font(13), anchor="ra")


def _pad(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    padded = Image.new("RGB", size, PAPER)
    padded.paste(image, (0, 0))
    return padded


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that pictures look the same everywhere."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@lru_cache(maxsize=512)
def _viridis(share: float) -> tuple[int, int, int]:
    """0 to 1 as a colour, dark to bright, readable without colour vision."""
    import matplotlib

    red, green, blue, _ = matplotlib.colormaps["viridis"](share, bytes=True)
    return int(red), int(green), int(blue)

"""Saves the frames that `canvas` draws, as a GIF or an MP4."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from rmc_agents.canvas import EACH, PAPER, Frame
from rmc_agents.checkpoint import write_atomically
from rmc_agents.errors import UsageError

SIZE_LIMIT = 2_000_000
"""Bytes of a GIF."""
RATE = 10
"""Frames a second of an MP4."""


def save_gif(path: Path, frames: Sequence[Frame], limit: int = SIZE_LIMIT) -> None:
    """Save frames as a GIF of at most `limit` bytes; where it would be larger, every other short one goes."""
    frames = _padded(frames)
    while True:
        data = _encode(frames)
        short = [i for i, (_, seconds) in enumerate(frames) if seconds == EACH]
        if len(data) <= limit or len(short) < 2:
            break
        dropped = set(short[::2])
        frames = [frame for i, frame in enumerate(frames) if i not in dropped]
    write_atomically(path, lambda file: file.write(data))


def can_encode() -> bool:
    """Whether the package imageio-ffmpeg, which brings the encoder, is installed."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def save_mp4(path: Path, frames: Sequence[Frame]) -> None:
    """Save frames as an MP4 (H.264), which players, slides and messengers take.

    Raises:
        UsageError: there is no encoder (`can_encode`).
    """
    if not can_encode():
        raise UsageError("an MP4 needs an encoder: pip install 'rmc-agents[video]'")
    import imageio_ffmpeg

    frames = _padded(frames, multiple=2)  # H.264 halves the resolution of colour
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")  # its ending tells the encoder what to write
    writer = imageio_ffmpeg.write_frames(
        str(temporary), frames[0][0].size, fps=RATE, codec="libx264", quality=7, macro_block_size=2
    )
    writer.send(None)
    for image, seconds in frames:
        for _ in range(max(round(seconds * RATE), 1)):
            writer.send(image.tobytes())
    writer.close()
    temporary.replace(path)


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


def _padded(frames: Sequence[Frame], multiple: int = 1) -> list[Frame]:
    """All frames in the size of the largest, or the next one whose sides are multiples."""
    width, height = (max(sides) for sides in zip(*(image.size for image, _ in frames), strict=True))
    size = (-(-width // multiple) * multiple, -(-height // multiple) * multiple)
    padded = []
    for image, seconds in frames:
        whole = Image.new("RGB", size, PAPER)
        whole.paste(image, (0, 0))
        padded.append((whole, seconds))
    return padded

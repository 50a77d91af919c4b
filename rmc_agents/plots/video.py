"""Encoders that save frames as a GIF or an MP4."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rmc_agents.errors import UsageError
from rmc_agents.plots.frames import PAPER, STEP_SECONDS, Frame
from rmc_agents.runs.files import write_atomically

MAX_GIF_BYTES = 2_000_000
"""Largest GIF that `save_gif` writes by default."""
FRAME_RATE = 10
"""Frames per second of an MP4."""


def save_gif(path: Path, frames: Sequence[Frame], max_bytes: int = MAX_GIF_BYTES) -> None:
    """Save frames as a GIF, and drop every other step until it has at most `max_bytes`.

    The first and the last frame of an episode are never dropped.

    Raises:
        OSError: the file cannot be written.
    """
    frames = _padded(frames)
    while True:
        data = _encode_gif(frames)
        steps = [i for i, (_, seconds) in enumerate(frames) if seconds == STEP_SECONDS]
        if len(data) <= max_bytes or len(steps) < 2:
            break
        dropped = set(steps[::2])
        frames = [frame for i, frame in enumerate(frames) if i not in dropped]
    write_atomically(path, lambda file: file.write(data))


def can_encode_mp4() -> bool:
    """Return whether imageio-ffmpeg, the package with the encoder, is installed."""
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def save_mp4(path: Path, frames: Sequence[Frame]) -> None:
    """Save frames as an MP4 (H.264), which players, slides and messengers accept.

    Raises:
        UsageError: the encoder is not installed (`can_encode_mp4`).
        OSError: the file cannot be written.
    """
    if not can_encode_mp4():
        raise UsageError("MP4 files need an encoder: pip install 'rmc-agents[video]'")
    with tempfile.TemporaryDirectory() as folder:
        encoded = Path(folder) / "video.mp4"
        _encode_mp4(encoded, _padded(frames, multiple=2))  # H.264 halves the resolution of color
        data = encoded.read_bytes()
    write_atomically(path, lambda file: file.write(data))


def _encode_gif(frames: Sequence[Frame]) -> bytes:
    """Return a GIF with one palette for all frames: flat areas stay equal and compress to nothing."""
    longest_first = sorted(range(len(frames)), key=lambda i: -frames[i][1])
    samples = [frames[i][0] for i in longest_first[:8]]
    sheet = Image.new("RGB", (samples[0].width, sum(image.height for image in samples)))
    for i, image in enumerate(samples):
        sheet.paste(image, (0, i * samples[0].height))
    # Maximum coverage keeps colors of few pixels, such as the bright end of a scale.
    palette = sheet.quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colors = np.array(palette.getpalette(), dtype=np.int64).reshape(-1, 3)
    colors[(colors > 247).all(1)] = 255  # Pillow matches colors roughly; the background must stay white
    palette.putpalette(colors.ravel().tolist())
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in frames]
    buffer = io.BytesIO()
    durations = [round(1000 * seconds) for _, seconds in frames]
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()


def _encode_mp4(path: Path, frames: Sequence[Frame]) -> None:
    """Write an MP4 in which each frame is repeated for as long as it is shown."""
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(path), frames[0][0].size, fps=FRAME_RATE, codec="libx264", quality=7, macro_block_size=2
    )
    writer.send(None)
    for image, seconds in frames:
        for _ in range(max(round(seconds * FRAME_RATE), 1)):
            writer.send(image.tobytes())
    writer.close()


def _padded(frames: Sequence[Frame], multiple: int = 1) -> list[Frame]:
    """Return all frames in the size of the largest, rounded up to a multiple."""
    width, height = (max(sides) for sides in zip(*(image.size for image, _ in frames), strict=True))
    size = (-(-width // multiple) * multiple, -(-height // multiple) * multiple)
    padded = []
    for image, seconds in frames:
        whole = Image.new("RGB", size, PAPER)
        whole.paste(image, (0, 0))
        padded.append((whole, seconds))
    return padded

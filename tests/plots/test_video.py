"""GIF and MP4: every frame is shown for its time, and a large GIF loses steps but no ending."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmc_agents import UsageError
from rmc_agents.plots import frames, video
from tests.support.playthroughs import traced_episode


def test_gif_over_its_limit_drops_steps_but_no_ending(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)) for _ in range(20)]
    shown = [(image, frames.STEP_SECONDS) for image in noise[:-1]] + [(noise[-1], frames.LAST_SECONDS)]
    video.save_gif(tmp_path / "x.gif", shown, max_bytes=50_000)
    assert (tmp_path / "x.gif").stat().st_size <= 50_000
    with Image.open(tmp_path / "x.gif") as gif:
        assert 1 < gif.n_frames < 20  # type: ignore[attr-defined]
        gif.seek(gif.n_frames - 1)  # type: ignore[attr-defined]
        assert gif.info["duration"] == 1000 * frames.LAST_SECONDS


def test_gif_keeps_the_background_white(tmp_path: Path) -> None:
    video.save_gif(tmp_path / "x.gif", frames.draw(traced_episode([True, False, False]), "episode"))
    with Image.open(tmp_path / "x.gif") as gif:
        assert gif.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_mp4_shows_every_frame_as_long_as_the_gif(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="no encoder: the extra `video`")
    colors = ["#ff0000", "#00ff00", "#0000ff"]
    seconds = [frames.FIRST_SECONDS, frames.STEP_SECONDS, frames.LAST_SECONDS]
    shown = [(Image.new("RGB", (101, 67), c), s) for c, s in zip(colors, seconds, strict=True)]
    video.save_mp4(tmp_path / "media" / "x.mp4", shown)
    assert [path.name for path in (tmp_path / "media").iterdir()] == ["x.mp4"]
    path = str(tmp_path / "media" / "x.mp4")
    frame_count, duration = imageio_ffmpeg.count_frames_and_secs(path)
    assert frame_count == round(sum(seconds) * video.FRAME_RATE)
    assert duration == pytest.approx(sum(seconds), abs=0.15)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(command, capture_output=True, check=True)
    assert "h264" in read.stderr.decode()
    pixels = np.frombuffer(read.stdout, dtype=np.uint8).reshape(-1, 68, 102, 3)  # even sides
    middle = pixels[:, 30, 50]
    counts = np.bincount([int(pixel.argmax()) for pixel in middle])
    assert counts.tolist() == [round(s * video.FRAME_RATE) for s in seconds]


def test_mp4_without_an_encoder_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "can_encode_mp4", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'rmc-agents\[video\]'"):
        video.save_mp4(tmp_path / "x.mp4", frames.draw(traced_episode([True, False]), "episode"))

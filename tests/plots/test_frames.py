"""Frames: captions and outcomes in words, attention and gates to scale, every text inside its image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from rmc_agents.interpret.playthrough import Cue, MemoryTrace, Moment, Playthrough
from rmc_agents.plots import frames
from tests.support.playthroughs import scripted_episode, traced_episode

ENDINGS = [
    (scripted_episode([False, True, False], True), "remembered", frames.BLUE),
    (scripted_episode([False, True, False], False), "forgot", frames.VERMILLION),
    (scripted_episode([False, False, True], True), "guessed right", frames.BLUE),
    (scripted_episode([False, False, False], False), "guessed wrong", frames.VERMILLION),
    (scripted_episode([True, False], False, in_time=False), "out of time after 1 step", frames.VERMILLION),
    (scripted_episode([False] * 3, None, cue=False), "return 3.00 after 2 steps", frames.BLUE),
    (scripted_episode([False] * 3, True, cue=False), "solved", frames.BLUE),
    (scripted_episode([False] * 3, False, cue=False), "failed", frames.VERMILLION),
]


@pytest.mark.parametrize(("played", "says", "color"), ENDINGS)
def test_last_frame_states_the_outcome_in_words_and_color(played: Playthrough, says: str, color: str) -> None:
    text, fill = frames.outcome(played)
    assert says in text
    assert fill == color
    image = frames.draw(played, "episode")[-1][0]
    assert image.getpixel((3, image.height - 3)) == ImageColor.getrgb(color)


def test_caption_says_whether_only_the_memory_holds_the_cue() -> None:
    moments = scripted_episode([False, True, False], True).moments
    captions = [frames.caption(m, seen)[0] for m, seen in zip(moments, (False, True, True), strict=True)]
    assert [c.split(":")[0] for c in captions] == [
        "the cue has not been in view yet",
        "the cue is in view",
        "the cue is out of view",
    ]
    assert (
        frames.caption(scripted_episode([False], None, cue=False).moments[0], False)[0]
        == "return so far 0.00"
    )


def test_long_episode_is_shown_as_evenly_spaced_frames() -> None:
    drawn = frames.draw(scripted_episode([False] * 1000, True), "episode")
    assert len(drawn) == frames.MAX_FRAMES
    seconds = [shown for _, shown in drawn]
    assert seconds == [frames.FIRST_SECONDS, *[frames.STEP_SECONDS] * 78, frames.LAST_SECONDS]


@pytest.mark.parametrize("slots", [1, 4, 8, 20])
def test_attention_and_gates_are_drawn_to_scale(slots: int) -> None:
    rng = np.random.default_rng(slots)
    attention = rng.dirichlet(np.ones(slots + 1), slots).astype(np.float32)
    gates = rng.random((3, slots)).astype(np.float32)
    image = np.asarray(frames.draw_memory(MemoryTrace(attention[None], *gates))).astype(int)
    for shares, color in zip(gates, (frames.BLUE, frames.ORANGE, frames.GREEN), strict=True):
        widths = (image == ImageColor.getrgb(color)).all(axis=-1).sum(1)
        assert widths.max() == pytest.approx((frames.GATE_WIDTH - 12) * shares.max(), abs=2)
    for share in (attention.max(), attention.min()):
        assert (image == frames.viridis(float(share))).all(axis=-1).any()


@pytest.mark.parametrize(("heads", "slots"), [(1, 1), (4, 4), (8, 8), (3, 20)])
def test_every_head_is_drawn(heads: int, slots: int) -> None:
    rng = np.random.default_rng(heads)
    maps = rng.dirichlet(np.ones(slots + 1), (heads, slots)).astype(np.float32)
    trace = MemoryTrace(maps, *rng.random((3, slots)).astype(np.float32))
    np.testing.assert_allclose(trace.attention, maps.mean(0))
    image = np.asarray(frames.draw_memory(trace, per_head=True)).astype(int)
    for shares in maps:
        assert (image == frames.viridis(float(shares.max()))).all(axis=-1).sum() > 50
    assert image.shape[1] < 900
    assert image.shape[0] < 700


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Every text that is painted, and whether it lies inside its image."""
    painted: list[tuple[str, bool]] = []
    paint = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: Any, words: str, *args: Any, **options: Any) -> None:
        font, anchor = args[1], args[2] if len(args) > 2 else options.get("anchor")
        left, top, right, bottom = self.textbbox(xy, words, font, anchor)
        width, height = self._image.size
        painted.append((words, left >= 0 and top >= 0 and right <= width and bottom <= height))
        paint(self, xy, words, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return painted


def test_every_text_of_an_ending_lies_inside_the_frame(texts: list[tuple[str, bool]]) -> None:
    for played, *_ in ENDINGS:
        frames.draw(played, "episode 12 of 12   (fast forward)")
    assert len(texts) > 3 * len(ENDINGS)
    assert [text for text, inside in texts if not inside] == []


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize(("heads", "slots"), [(1, 1), (4, 4), (8, 8), (3, 20), (16, 8)])
def test_every_text_of_a_memory_lies_inside_the_frame(
    texts: list[tuple[str, bool]], heads: int, slots: int, per_head: bool
) -> None:
    frames.draw(traced_episode([True, False], slots, heads), "episode 1 of 1", per_head)
    assert [text for text, inside in texts if not inside] == []


@pytest.mark.parametrize("maze_size", [7, 13, 65])
@pytest.mark.parametrize("shape", [(1, 1), (56, 56), (288, 288), (2000, 2000), (90, 600), (600, 90)])
def test_every_text_of_a_scene_lies_inside_the_frame(
    texts: list[tuple[str, bool]], shape: tuple[int, int], maze_size: int
) -> None:
    picture: NDArray[np.uint8] = np.zeros((*shape, 3), dtype=np.uint8)
    cue = Cue((1, maze_size // 2 - 1), maze_size, True) if shape[0] == shape[1] > 1 else None
    moments = [Moment(picture, step, 1e6 * step, cue, None) for step in range(2)]
    for success in (None, True, False):
        frames.draw(Playthrough(moments, success, True), "episode 1 of 1")
    assert [text for text, inside in texts if not inside] == []


def test_memory_keeps_its_size_during_an_episode() -> None:
    sizes = {image.size for image, _ in frames.draw(traced_episode([True, False, False]), "episode")}
    assert len(sizes) == 1
    assert all(isinstance(image, Image.Image) for image, _ in frames.draw(traced_episode([True]), "episode"))

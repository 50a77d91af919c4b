"""Pictures show what happened: frames are counted, colours are measured, tracing changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import envs
from rmc_agents import ActorCritic, UsageError, animation, canvas, still
from rmc_agents.visuals import Cue, MemoryTrace, Moment, Playthrough, play, save_pictures, traces
from tests.support import MAZE, small_agent

PICTURE = np.full((288, 288, 3), 100, dtype=np.uint8)


def maze(env_id: str = MAZE) -> gymnasium.Env:
    return envs.farama(env_id, render_mode="rgb_array", actions=3)()


def player(core: str = "rmc") -> ActorCritic:
    """Draws its actions nearly at random."""
    agent = small_agent(core, envs.make(MAZE, actions=3))
    torch.nn.init.zeros_(agent.policy.linear.weight)
    return agent


def episode(seen: list[bool], success: bool | None, in_time: bool = True, cue: bool = True) -> Playthrough:
    moments = [
        Moment(PICTURE, step, 1.5 * step, Cue((1, 4), 9, in_view) if cue else None, None)
        for step, in_view in enumerate(seen)
    ]
    return Playthrough(moments, success, in_time)


def test_tracing_changes_nothing_and_leaves_nothing(any_core: str) -> None:
    agent = small_agent(any_core, envs.make(MAZE, 3, actions=3))
    obs = envs.make(MAZE, 3, actions=3).reset(0)
    starts, state = torch.tensor([True, False, True]), agent.initial_state(3)
    with torch.no_grad():
        plain = agent.act(obs, starts, state, deterministic=True)
        with traces(agent.core) as found:
            traced = agent.act(obs, starts, state, deterministic=True)
    assert torch.equal(plain[0], traced[0])
    torch.testing.assert_close(traced[1:3], plain[1:3])
    assert len(found) == (1 if hasattr(agent.core, "trace") else 0)
    assert "unroll" not in vars(agent.core)


def test_play_sees_what_the_tables_know() -> None:
    env_id = "MiniGrid-MemoryS9-v0"
    env, agent = maze(env_id), player()
    played = play(agent, env, seed=4, deterministic=False)
    assert [m.step for m in played.moments] == list(range(len(played.moments)))
    for moment in played.moments[:-1]:
        assert moment.trace is not None
        np.testing.assert_allclose(moment.trace.attention.sum(1), 1, rtol=1e-5)
        assert moment.trace.attention.shape == (4, 5)
        for shares in (moment.trace.written, moment.trace.kept, moment.trace.changed):
            assert shares.shape == (4,)
            assert ((shares >= 0) & (shares <= 1)).all()
    # The same walk through the tables, which know from breadth-first search where the cue is in view.
    twin = envs.make(env_id, 1, actions=3, seeding="farama")
    assert isinstance(twin, envs.MemoryMazes)
    obs, seen, state, start = twin.reset(4), [], None, True
    torch.manual_seed(4)
    for _ in played.moments[:-1]:
        assert twin._state is not None
        seen.append(bool(twin.tables.cue_seen[int(twin._state)]))
        single = {key: x[0].numpy() for key, x in obs.items()}
        action, state = agent.predict(single, state, episode_start=start, deterministic=False)
        step = twin.step(torch.as_tensor(action).reshape(1))
        obs, start = step.obs, False
    assert [m.cue is not None and m.cue.in_view for m in played.moments[:-1]] == seen
    assert bool(step.terminated | step.truncated)
    assert played.success == bool(step.success)


@pytest.mark.parametrize("core", ["rmc", "gru"])
def test_the_gif_has_every_frame_and_is_small(tmp_path: Path, core: str) -> None:
    stem = tmp_path / "media" / "maze"
    paths, played = save_pictures(stem, player(core), maze(), [0, 1], deterministic=False)
    endings = ["maze.gif", "maze.mp4", "maze-still.png", "maze-still.svg"]
    assert [path.name for path in paths if path.suffix != ".mp4"] == [e for e in endings if e != "maze.mp4"]
    assert {path.name for path in stem.parent.iterdir()} == {path.name for path in paths}
    path = paths[0]
    with Image.open(path) as gif:
        assert gif.n_frames == sum(min(len(p.moments), canvas.LONGEST) for p in played)
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"] / 1000)
            assert gif.convert("RGB").size == gif.size
    assert durations.count(canvas.LAST) == 2
    assert durations[0] == canvas.FIRST
    assert path.stat().st_size < animation.SIZE_LIMIT


def test_a_gif_too_large_loses_frames_but_no_ending(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)) for _ in range(20)]
    frames = [(image, canvas.EACH) for image in noise[:-1]] + [(noise[-1], canvas.LAST)]
    animation.save_gif(tmp_path / "x.gif", frames, limit=50_000)
    assert (tmp_path / "x.gif").stat().st_size <= 50_000
    with Image.open(tmp_path / "x.gif") as gif:
        assert 1 < gif.n_frames < 20
        gif.seek(gif.n_frames - 1)
        assert gif.info["duration"] == 1000 * canvas.LAST


@pytest.mark.parametrize(
    ("played", "says", "colour"),
    [
        (episode([False, True, False], True), "remembered", canvas.BLUE),
        (episode([False, True, False], False), "forgot", canvas.VERMILLION),
        (episode([False, False, True], True), "guessed right", canvas.BLUE),
        (episode([False, False, False], False), "guessed wrong", canvas.VERMILLION),
        (episode([True, False], False, in_time=False), "out of time after 1 step", canvas.VERMILLION),
        (episode([False] * 3, None, cue=False), "return 3.00 after 2 steps", canvas.BLUE),
        (episode([False] * 3, True, cue=False), "solved", canvas.BLUE),
        (episode([False] * 3, False, cue=False), "failed", canvas.VERMILLION),
    ],
)
def test_the_ending_is_told_in_words_and_colour(played: Playthrough, says: str, colour: str) -> None:
    text, fill = canvas.verdict(played)
    assert says in text
    assert fill == colour
    image = canvas.draw(played, "episode")[-1][0]
    assert image.getpixel((3, image.height - 3)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_the_caption_knows_what_only_memory_has() -> None:
    moments = episode([False, True, False], True).moments
    captions = [canvas.caption(m, seen)[0] for m, seen in zip(moments, (False, True, True), strict=True)]
    assert [c.split(":")[0] for c in captions] == [
        "the cue has not been in view yet",
        "the cue is in view",
        "the cue is out of view",
    ]
    assert canvas.caption(episode([False], None, cue=False).moments[0], False)[0] == "return so far 0.00"


@pytest.mark.parametrize("slots", [1, 4, 8, 20])
def test_attention_and_gates_are_drawn_to_scale(slots: int) -> None:
    rng = np.random.default_rng(slots)
    attention = rng.dirichlet(np.ones(slots + 1), slots).astype(np.float32)
    gates = rng.random((3, slots)).astype(np.float32)
    image = np.asarray(canvas._memory(MemoryTrace(attention[None], *gates))).astype(int)
    for shares, colour in zip(gates, (canvas.BLUE, canvas.ORANGE, canvas.GREEN), strict=True):
        widths = _near(image, colour).sum(1)
        assert widths.max() == pytest.approx((canvas.GATE_WIDTH - 12) * shares.max(), abs=2)
    for share in (attention.max(), attention.min()):
        assert (image == canvas.viridis(float(share))).all(axis=-1).any()


@pytest.mark.parametrize(("heads", "slots"), [(1, 1), (4, 4), (8, 8), (3, 20)])
def test_every_head_is_drawn(heads: int, slots: int) -> None:
    rng = np.random.default_rng(heads)
    maps = rng.dirichlet(np.ones(slots + 1), (heads, slots)).astype(np.float32)
    trace = MemoryTrace(maps, *rng.random((3, slots)).astype(np.float32))
    np.testing.assert_allclose(trace.attention, maps.mean(0))
    image = np.asarray(canvas._memory(trace, heads=True)).astype(int)
    for shares in maps:
        assert (image == canvas.viridis(float(shares.max()))).all(axis=-1).sum() > 50
    assert image.shape[1] < 900
    assert image.shape[0] < 700


def _near(image: Any, colour: str) -> Any:
    return (image == Image.new("RGB", (1, 1), colour).getpixel((0, 0))).all(axis=-1)


def test_other_environments_are_drawn_too(tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    agent = small_agent("lstm", envs.make("CartPole-v1"))
    _, played = save_pictures(tmp_path / "pole", agent, env, [1])
    with Image.open(tmp_path / "pole.gif") as gif:
        assert gif.n_frames == min(len(played[0].moments), canvas.LONGEST)
    assert played[0].success is None


def test_an_environment_without_pictures_is_named() -> None:
    env = envs.farama("CartPole-v1")()
    with pytest.raises(UsageError, match="render_mode='rgb_array'"), pytest.warns(match="render"):
        play(small_agent("gru", envs.make("CartPole-v1")), env, seed=0)


def film(seen: list[bool], slots: int = 4) -> Playthrough:
    """An episode with a memory that changes by a step each step."""
    moments = []
    for step, in_view in enumerate(seen):
        heads = np.full((2, slots, slots + 1), 1 / (slots + 1), dtype=np.float32)
        gates = np.full((3, slots), step / len(seen), dtype=np.float32)
        trace = None if step == len(seen) - 1 else MemoryTrace(heads, *gates)
        moments.append(Moment(PICTURE, step, 0.0, Cue((1, 3), 9, in_view), trace))
    return Playthrough(moments, True, True)


def test_an_mp4_plays_every_frame_as_long_as_the_gif(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="no encoder: the extra `video`")
    colours = ["#ff0000", "#00ff00", "#0000ff"]
    seconds = [canvas.FIRST, canvas.EACH, canvas.LAST]
    frames = [(Image.new("RGB", (101, 67), c), s) for c, s in zip(colours, seconds, strict=True)]
    animation.save_mp4(tmp_path / "media" / "x.mp4", frames)
    assert [path.name for path in (tmp_path / "media").iterdir()] == ["x.mp4"]
    path = str(tmp_path / "media" / "x.mp4")
    frame_count, duration = imageio_ffmpeg.count_frames_and_secs(path)
    assert frame_count == round(sum(seconds) * animation.RATE)
    assert duration == pytest.approx(sum(seconds), abs=0.15)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(command, capture_output=True, check=True)
    assert "h264" in read.stderr.decode()
    pixels = np.frombuffer(read.stdout, dtype=np.uint8).reshape(-1, 68, 102, 3)  # even sides
    shown = pixels[:, 30, 50]
    counts = np.bincount([int(pixel.argmax()) for pixel in shown])
    assert counts.tolist() == [round(s * animation.RATE) for s in seconds]


def test_without_an_encoder_there_is_no_mp4_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(animation, "can_encode", lambda: False)
    paths, _ = save_pictures(tmp_path / "maze", player("gru"), maze(), [0], deterministic=False)
    assert {path.name for path in paths} == {"maze.gif", "maze-still.png", "maze-still.svg"}
    with pytest.raises(UsageError, match=r"pip install 'rmc-agents\[video\]'"):
        animation.save_mp4(tmp_path / "x.mp4", canvas.draw(film([True, False]), "episode"))


@pytest.mark.parametrize("heads", [False, True])
def test_the_still_shades_what_was_seen_and_follows_the_gates(heads: bool) -> None:
    seen = [False, True, True, False, False, True, False, False, False]
    figure = still.draw(film(seen), heads)
    courses = [plot for plot in figure.axes if plot.get_xlabel() == "step"]
    assert len(courses) == len(still.COURSES)
    for plot, (title, course) in zip(courses, still.COURSES, strict=True):
        assert plot.get_title(loc="left") == title
        lines = [line for line in plot.lines if line.get_linestyle() == "-"]
        assert len(lines) == 4
        for slot, line in enumerate(lines):
            expected = [course(m.trace)[slot] for m in film(seen).moments[:-1] if m.trace is not None]
            np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected)
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in plot.patches]
        assert spans == [(0.5, 2.5), (4.5, 5.5)]
        choice = [line.get_xdata()[0] for line in plot.lines if line.get_linestyle() == "--"]
        assert choice == [8]
    titles = [
        plot.get_title(loc="left") for plot in figure.axes if plot.get_title(loc="left").startswith("step ")
    ]
    assert titles == [f"step {i}" for i in still.key_moments(film(seen).moments)]


def test_key_moments_are_the_looks_at_the_cue_and_the_choice() -> None:
    def chosen(seen: list[bool]) -> list[int]:
        return still.key_moments(film(seen).moments)

    assert chosen([False] * 3 + [True] * 2 + [False] * 5) == [0, 4, 6, 8, 9]
    assert chosen([True] + [False] * 9) == [0, 4, 8, 9]
    assert chosen([False] * 20 + [True]) == [0, 5, 10, 15, 20]  # the view at the end comes too late
    assert chosen([True, False]) == [0, 1]


def test_views_are_spans() -> None:
    assert still.views(film([True, True, False, True]).moments) == [(0, 2), (3, 4)]
    assert still.views(film([False, False]).moments) == []

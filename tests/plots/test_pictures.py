"""Pictures of played episodes: every file is written, with every frame of every episode."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
import torch
from PIL import Image

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.plots import frames, video
from rmc_agents.plots.pictures import save_pictures
from tests.support.agents import MAZE, small_agent


def maze(env_id: str = MAZE) -> gymnasium.Env:
    return rmc_envs.make_reference(env_id, render_mode="rgb_array", actions=3)()


def player(core: str = "rmc") -> ActorCritic:
    """An agent with a uniform policy."""
    agent = small_agent(core, rmc_envs.make(MAZE, actions=3))
    torch.nn.init.zeros_(agent.policy.linear.weight)
    return agent


@pytest.mark.parametrize("core", [pytest.param("rmc", marks=pytest.mark.slow), "gru"])
def test_gif_has_every_frame_and_is_small(tmp_path: Path, core: str) -> None:
    stem = tmp_path / "media" / "maze"
    paths, played = save_pictures(stem, player(core), maze(), [0, 1], deterministic=False)
    endings = ["maze.gif", "maze.mp4", "maze-still.png", "maze-still.svg"]
    assert [path.name for path in paths if path.suffix != ".mp4"] == [e for e in endings if e != "maze.mp4"]
    assert {path.name for path in stem.parent.iterdir()} == {path.name for path in paths}
    path = paths[0]
    with Image.open(path) as gif:
        n_frames: int = gif.n_frames  # type: ignore[attr-defined]
        assert n_frames == sum(min(len(p.moments), frames.MAX_FRAMES) for p in played)
        durations = []
        for i in range(n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"] / 1000)
            assert gif.convert("RGB").size == gif.size
    assert durations.count(frames.LAST_SECONDS) == 2
    assert durations[0] == frames.FIRST_SECONDS
    assert path.stat().st_size < video.MAX_GIF_BYTES


def test_other_environments_are_drawn(tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    agent = small_agent("lstm", rmc_envs.make("CartPole-v1"))
    _, played = save_pictures(tmp_path / "pole", agent, env, [1])
    with Image.open(tmp_path / "pole.gif") as gif:
        assert gif.n_frames == min(len(played[0].moments), frames.MAX_FRAMES)  # type: ignore[attr-defined]
    assert played[0].success is None


def test_there_is_no_mp4_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "can_encode_mp4", lambda: False)
    paths, _ = save_pictures(tmp_path / "maze", player("gru"), maze(), [0], deterministic=False)
    assert {path.name for path in paths} == {"maze.gif", "maze-still.png", "maze-still.svg"}

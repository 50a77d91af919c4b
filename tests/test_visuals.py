"""Pictures show what happened: frames are counted, colours are measured, tracing changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import envs
from rmc_agents import ActorCritic, UsageError, canvas
from rmc_agents.visuals import Cue, MemoryTrace, Moment, Playthrough, play, save_gif, traces
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
    path = tmp_path / "media" / "maze.gif"
    played = save_gif(path, player(core), maze(), [0, 1], deterministic=False)
    with Image.open(path) as gif:
        assert gif.n_frames == sum(min(len(p.moments), canvas.LONGEST) for p in played)
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"] / 1000)
            assert gif.convert("RGB").size == gif.size
    assert durations.count(canvas.LAST) == 2
    assert durations[0] == canvas.FIRST
    assert path.stat().st_size < canvas.SIZE_LIMIT


def test_a_gif_too_large_loses_frames_but_no_ending(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)) for _ in range(20)]
    frames = [(image, canvas.EACH) for image in noise[:-1]] + [(noise[-1], canvas.LAST)]
    canvas.save(tmp_path / "x.gif", frames, limit=50_000)
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
    text, fill = canvas._verdict(played)
    assert says in text
    assert fill == colour
    image = canvas.draw(played, "episode")[-1][0]
    assert image.getpixel((3, image.height - 3)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_the_caption_knows_what_only_memory_has() -> None:
    moments = episode([False, True, False], True).moments
    captions = [canvas._caption(m, seen)[0] for m, seen in zip(moments, (False, True, True), strict=True)]
    assert [c.split(":")[0] for c in captions] == [
        "the cue has not been in view yet",
        "the cue is in view",
        "the cue is out of view",
    ]
    assert canvas._caption(episode([False], None, cue=False).moments[0], False)[0] == "return so far 0.00"


@pytest.mark.parametrize("slots", [1, 4, 8, 20])
def test_attention_and_gates_are_drawn_to_scale(slots: int) -> None:
    rng = np.random.default_rng(slots)
    attention = rng.dirichlet(np.ones(slots + 1), slots).astype(np.float32)
    gates = rng.random((3, slots)).astype(np.float32)
    image = np.asarray(canvas._memory(MemoryTrace(attention, *gates))).astype(int)
    for shares, colour in zip(gates, (canvas.BLUE, canvas.ORANGE, canvas.GREEN), strict=True):
        widths = _near(image, colour).sum(1)
        assert widths.max() == pytest.approx((canvas.GATE_WIDTH - 12) * shares.max(), abs=2)
    for share in (attention.max(), attention.min()):
        assert (image == canvas._viridis(float(share))).all(axis=-1).any()


def _near(image: Any, colour: str) -> Any:
    return (image == Image.new("RGB", (1, 1), colour).getpixel((0, 0))).all(axis=-1)


def test_other_environments_are_drawn_too(tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    agent = small_agent("lstm", envs.make("CartPole-v1"))
    played = save_gif(tmp_path / "pole.gif", agent, env, [1])
    with Image.open(tmp_path / "pole.gif") as gif:
        assert gif.n_frames == min(len(played[0].moments), canvas.LONGEST)
    assert played[0].success is None


def test_an_environment_without_pictures_is_named() -> None:
    env = envs.farama("CartPole-v1")()
    with pytest.raises(UsageError, match="render_mode='rgb_array'"), pytest.warns(match="render"):
        play(small_agent("gru", envs.make("CartPole-v1")), env, seed=0)

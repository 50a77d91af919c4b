"""Pictures of what an agent does and of what its memory does meanwhile.

Axes: N slots, R rows that a slot can read (the slots, then the input), A heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Env
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.actor_critic import ActorCritic
from rmc_agents.cores import MemoryCore, reset_rows
from rmc_agents.errors import UsageError


@dataclass(frozen=True)
class MemoryTrace:
    """What a step did to a memory of slots."""

    heads: NDArray[np.float32]
    """[A, N, R] how much each slot read of each slot and, last, of the input, by head. Rows sum to 1."""
    written: NDArray[np.float32]
    """[N] how open the gate to new content was, 0 to 1: mean over a slot's units."""
    kept: NDArray[np.float32]
    """[N] how open the gate to the old content was."""
    changed: NDArray[np.float32]
    """[N] |M' - M| / (|M'| + |M|) of a slot's content M before and M' after: 0 the same, 1 the opposite."""

    @property
    def attention(self) -> NDArray[np.float32]:
        """[N, R] the mean of all heads."""
        return self.heads.mean(0)


@dataclass(frozen=True)
class Moment:
    """One step of an episode: what there was to see, and what the memory did with it."""

    picture: NDArray[np.uint8]
    """[height, width, 3]."""
    step: int
    reward: float
    """Sum of rewards so far."""
    cue: Cue | None
    """Where the cue is, in a memory maze."""
    trace: MemoryTrace | None
    """None for cores that have no slots, and after the last action."""


@dataclass(frozen=True)
class Cue:
    """The object to remember."""

    cell: tuple[int, int]
    """Column and row in the maze."""
    maze_size: int
    """Cells to a side of the maze."""
    in_view: bool


@dataclass(frozen=True)
class Playthrough:
    """An episode, moment by moment; the last is after the last action."""

    moments: list[Moment]
    success: bool | None
    """None where the task does not say."""
    in_time: bool
    """Whether it came to an end before its time limit."""


class Step(NamedTuple):
    """One step of a core, from the inside."""

    trace: Any
    before: Any
    """State that the input was read with."""
    after: Any


@contextmanager
def traces(core: MemoryCore) -> Iterator[list[Step]]:
    """While open, every step of the core is added to the list; when closed this costs nothing.

    The list stays empty for a core without a method `trace(inputs, state) -> output, state, trace`.
    """
    found: list[Step] = []
    trace = getattr(core, "trace", None)
    if trace is None:
        yield found
        return

    def unroll(inputs: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        fresh = core.initial_state(inputs.shape[1])
        outputs = []
        for x, start in zip(inputs.unbind(0), starts.unbind(0), strict=True):
            before = reset_rows(state, fresh, start)
            output, state, happened = trace(x, before)
            outputs.append(output)
            found.append(Step(happened, before, state))
        return torch.stack(outputs), state

    core.unroll = unroll  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del core.unroll


def play(agent: ActorCritic, env: Env[Any, Any], seed: int, deterministic: bool = True) -> Playthrough:
    """One episode of a single environment made with `render_mode="rgb_array"`."""
    obs, _ = env.reset(seed=seed)
    if not deterministic:
        torch.manual_seed(seed)
    state, start, total = None, True, 0.0
    moments: list[Moment] = []
    with traces(agent.core) as found:
        while True:
            picture, cue = _render(env), _cue(env)
            action, state = agent.predict(obs, state, episode_start=start, deterministic=deterministic)
            trace = _memory_trace(found[-1]) if found else None
            moments.append(Moment(picture, len(moments), total, cue, trace))
            obs, reward, terminated, truncated, info = env.step(action)
            total, start = total + float(reward), False
            state = state._replace(reward=torch.full_like(state.reward, float(reward)))
            if terminated or truncated:
                break
    moments.append(Moment(_render(env), len(moments), total, _cue(env), None))
    said = info.get("is_success", info.get("success"))
    if said is None and moments[-1].cue is not None:
        said = terminated and float(reward) > 0
    return Playthrough(moments, None if said is None else bool(said), bool(terminated))


def save_pictures(
    stem: Path,
    agent: ActorCritic,
    env: Env[Any, Any],
    seeds: Sequence[int],
    deterministic: bool = True,
    heads: bool = False,
) -> tuple[list[Path], list[Playthrough]]:
    """Play an episode for each seed, and show what happened.

    Args:
        stem: where to, without an ending; its folder is made.
        agent: the player.
        env: made with `render_mode="rgb_array"`. For MiniGrid's Memory mazes the pictures say whether
            the cue is in view, and at the end whether the agent remembered it.
        seeds: of the episodes.
        deterministic: the most likely action rather than a drawn one.
        heads: attention head by head, rather than their mean.

    Returns:
        `stem`.gif with all episodes, one after the other, and `stem`.mp4 with the same where there is an
        encoder (`animation.save_mp4`); `stem`-still.png and .svg of the first episode, for papers. And what
        was played.
    """
    from rmc_agents import animation, canvas, plots, still

    played = [play(agent, env, seed, deterministic) for seed in seeds]
    frames = [
        frame
        for number, episode in enumerate(played)
        for frame in canvas.draw(episode, f"episode {number + 1} of {len(played)}", heads)
    ]
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("gif", "mp4")]
    animation.save_gif(paths[0], frames)
    if animation.can_encode():
        animation.save_mp4(paths[1], frames)
    else:
        paths.pop()
    return paths + plots.save(still.draw(played[0], heads), stem.with_name(f"{stem.name}-still")), played


def _render(env: Env[Any, Any]) -> NDArray[np.uint8]:
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        raise UsageError(f"{env} renders to {type(picture).__name__}; make it with render_mode='rgb_array'")
    return picture.copy()


def _cue(env: Env[Any, Any]) -> Cue | None:
    """The cue of MiniGrid's MemoryEnv, which stands in the upper left corner of its room."""
    maze: Any = env.unwrapped
    if not (hasattr(maze, "success_pos") and hasattr(maze, "agent_sees")):
        return None
    cell = (1, maze.height // 2 - 1)
    return Cue(cell, maze.height, bool(maze.agent_sees(*cell)))


def _memory_trace(step: Step) -> MemoryTrace:
    """The first row of a core of slots, averaged for the eye over blocks and units."""
    trace, before, after = step.trace, step.before.memory[0], step.after.memory[0]
    change = (after - before).norm(dim=-1) / (after.norm(dim=-1) + before.norm(dim=-1)).clamp(min=1e-8)
    rows = (
        trace.attention[0].mean(0),
        trace.input_gate[0].mean(-1),
        trace.forget_gate[0].mean(-1),
        change,
    )
    return MemoryTrace(*(row.cpu().numpy() for row in rows))

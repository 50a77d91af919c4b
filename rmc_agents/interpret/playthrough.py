"""Episodes played one step at a time, with pictures and with what the memory did at each step.

Axes: N slots, R rows that a slot can read (the slots, then the input), A heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import Env
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.cores import MemoryCore, SlotTrace, State, TracedCore
from rmc_agents.environment import EnvironmentFailed
from rmc_agents.errors import UsageError, shown
from rmc_agents.spaces.masks import METHOD, choice_sizes, mask_of

STEP_LIMIT = 1500
"""Steps after which a playthrough ends: MiniGrid's largest Memory maze has 1445."""


@dataclass(frozen=True)
class MemoryTrace:
    """One step of a memory with slots."""

    heads: NDArray[np.float32]
    """[A, N, R] attention of each slot to each slot and, last, to the input, by head. Rows sum to 1."""
    written: NDArray[np.float32]
    """[N] input gate, 0 to 1: mean over the units of a slot."""
    kept: NDArray[np.float32]
    """[N] forget gate, 0 to 1: mean over the units of a slot."""
    changed: NDArray[np.float32]
    """[N] |M' - M| / (|M'| + |M|) for a slot's content M before and M' after: 0 unchanged, 1 reversed."""

    @property
    def attention(self) -> NDArray[np.float32]:
        """[N, R] mean over the heads."""
        return self.heads.mean(0)


@dataclass(frozen=True)
class Cue:
    """The object to remember."""

    cell: tuple[int, int]
    """Column and row in the maze."""
    maze_size: int
    """Cells per side of the maze."""
    in_view: bool


@dataclass(frozen=True)
class Moment:
    """One step of an episode: the picture, and how the memory changed."""

    picture: NDArray[np.uint8]
    """[height, width, 3]."""
    step: int
    reward: float
    """Sum of rewards so far."""
    cue: Cue | None
    """Where the cue is; None outside the memory mazes."""
    trace: MemoryTrace | None
    """None for cores without slots, and after the last action."""


@dataclass(frozen=True)
class Playthrough:
    """One episode, moment by moment. The last moment follows the last action."""

    moments: list[Moment]
    success: bool | None
    """None if the task does not report success."""
    in_time: bool
    """Whether the episode ended before its time limit."""


class Step(NamedTuple):
    """One traced step of a core."""

    trace: SlotTrace
    before: State
    """The state with which the input was read."""
    after: State


class TracingCore(MemoryCore):
    """A core that computes the steps of another core and records their traces.

    `unroll` is the default loop over `step`, which equals the core's own `unroll` up to rounding.

    Args:
        core: a core that is a `TracedCore`. Its parameters are used, not copied.

    Attributes:
        steps: the recorded steps, oldest first.
    """

    def __init__(self, core: MemoryCore) -> None:
        super().__init__(core.input_size)
        if not isinstance(core, TracedCore):
            raise TypeError(f"{type(core).__name__} has no method `trace`")
        self.core = core
        self.steps: list[Step] = []

    @property
    def output_size(self) -> int:
        return self.core.output_size

    def initial_state(self, batch_size: int) -> State:
        return self.core.initial_state(batch_size)

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        output, after, trace = self.core.trace(inputs, state)
        self.steps.append(Step(trace, state, after))
        return output, after


@contextmanager
def trace_steps(agent: ActorCritic) -> Iterator[list[Step]]:
    """Record every step of the agent's core while the context is open.

    The core is replaced by a `TracingCore` of it, and put back at the end. The list stays empty if the core
    is not a `TracedCore`.
    """
    core = agent.core
    if not isinstance(core, TracedCore):
        yield []
        return
    tracing = TracingCore(core)
    agent.core = tracing
    try:
        yield tracing.steps
    finally:
        agent.core = core


def play(
    agent: ActorCritic,
    env: Env[Any, Any],
    seed: int,
    deterministic: bool = True,
    step_limit: int = STEP_LIMIT,
) -> Playthrough:
    """Play one episode of a single environment.

    Args:
        agent: the player.
        env: made with `render_mode="rgb_array"`.
        seed: of the episode and of the actions, if they are drawn.
        deterministic: choose the most likely action instead of drawing one.
        step_limit: steps after which the playthrough ends, though the episode has not.

    Raises:
        UsageError: the environment does not render to pictures, or has other spaces than the agent.
        EnvironmentFailed: the environment raised.
    """
    try:
        agent.use_spaces(env.observation_space, env.action_space)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with _calls(env, "reset"):
        obs, info = env.reset(seed=seed)
    generator = torch.Generator(agent.device).manual_seed(seed)
    state, start, total = None, True, 0.0
    moments: list[Moment] = []
    with trace_steps(agent) as steps:
        while True:
            picture, cue = _render(env), _find_cue(env)
            masks = _masks(agent, env, info)
            action, state = agent.predict(obs, state, start, deterministic, generator, action_masks=masks)
            trace = _memory_trace(steps[-1]) if steps else None
            moments.append(Moment(picture, len(moments), total, cue, trace))
            with _calls(env, "step"):
                obs, reward, terminated, truncated, info = env.step(action)
            total, start = total + float(reward), False
            state = state._replace(reward=torch.full_like(state.reward, float(reward)))
            if terminated or truncated or len(moments) >= step_limit:
                break
    moments.append(Moment(_render(env), len(moments), total, _find_cue(env), None))
    success = info.get("is_success", info.get("success"))
    if success is None and moments[-1].cue is not None:
        success = terminated and float(reward) > 0
    return Playthrough(moments, None if success is None else bool(success), bool(terminated))


def _masks(agent: ActorCritic, env: Env[Any, Any], info: dict[str, Any]) -> Any:
    """Return the environment's action masks, if the agent uses them."""
    if agent.config.action_masks == "ignore" or choice_sizes(agent.action_space) is None:
        return None
    with _calls(env, METHOD):
        return mask_of(env, info)


@contextmanager
def _calls(env: Env[Any, Any], method: str) -> Iterator[None]:
    """Turn whatever an environment's method raises into EnvironmentFailed."""
    try:
        yield
    except EnvironmentFailed:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {shown(error)}"
        raise EnvironmentFailed(f"{_name(env)} raised in {method}: {reason}") from error


def _name(env: Env[Any, Any]) -> str:
    return shown(env.unwrapped if env.spec is None else env.spec.id)


def _render(env: Env[Any, Any]) -> NDArray[np.uint8]:
    """Return the environment's picture: [height, width, 3]."""
    with _calls(env, "render"):
        picture = env.render()
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            f"{_name(env)} renders to {type(picture).__name__}; make it with render_mode='rgb_array'"
        )
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4) or not picture.size:
        raise UsageError(
            f"{_name(env)} renders to an array of shape {picture.shape}, expected [height, width, 3]"
        )
    if picture.dtype.kind not in "biu" or picture.min() < 0 or picture.max() > 255:
        raise UsageError(f"{_name(env)} renders to {picture.dtype}, expected whole numbers from 0 to 255")
    colors = picture.repeat(3, axis=-1) if picture.shape[-1] == 1 else picture[..., :3]
    return colors.astype(np.uint8)


@runtime_checkable
class _MemoryMaze(Protocol):
    """MiniGrid's MemoryEnv."""

    success_pos: tuple[int, int]
    height: int

    def agent_sees(self, x: int, y: int) -> bool: ...


def _find_cue(env: Env[Any, Any]) -> Cue | None:
    """Find the cue of MiniGrid's MemoryEnv, which is in the upper left corner of the first room."""
    maze: Any = env.unwrapped
    if not isinstance(maze, _MemoryMaze):
        return None
    cell = (1, maze.height // 2 - 1)
    return Cue(cell, maze.height, bool(maze.agent_sees(*cell)))


def _memory_trace(step: Step) -> MemoryTrace:
    """Reduce the first row of a traced step: mean attention over blocks, mean gates over units."""
    trace, before, after = step.trace, step.before.memory[0], step.after.memory[0]
    change = (after - before).norm(dim=-1) / (after.norm(dim=-1) + before.norm(dim=-1)).clamp(min=1e-8)
    rows = (
        trace.attention[0].mean(0),
        trace.input_gate[0].mean(-1),
        trace.forget_gate[0].mean(-1),
        change,
    )
    return MemoryTrace(*(row.cpu().numpy() for row in rows))

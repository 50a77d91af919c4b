"""MiniGrid's own environments, one at a time: the reference for the batched mazes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gymnasium

from .tables import MazeSpec


def is_minigrid(env_id: str) -> bool:
    """Return whether the id belongs to Farama's MiniGrid package."""
    return env_id.startswith(("MiniGrid-", "BabyAI-"))


def minigrid_maker(
    env_id: str,
    render_mode: str | None = None,
    view_size: int = 7,
    actions: Literal[3, 7] = 7,
    **options: Any,
) -> Callable[[], gymnasium.Env]:
    """Return a function that builds one of MiniGrid's environments, without the mission text.

    Args:
        env_id: a registered id, or a Memory maze of any odd size.
        render_mode: as in `gymnasium.make`.
        view_size: side of the square that the agent sees, in cells.
        actions: 7, or 3 for an action space without those that do nothing in the Memory mazes.
        options: further arguments of MiniGrid's class.

    Raises:
        ValueError: an option that MiniGrid's class does not have.
    """
    if "seeding" in options:
        raise ValueError(f"{env_id}: MiniGrid's environments have their own generators; leave seeding out")
    spec = MazeSpec.from_id(env_id, view_size)
    if spec is not None and spec.hallway is not None:
        raise ValueError(f"{env_id}: Farama's MemoryEnv cannot set the hallway; use vectorization='auto'")
    if actions not in (3, 7):
        raise ValueError(f"actions={actions}: expected 3 (turn, turn, forward) or 7 (MiniGrid's)")

    def make() -> gymnasium.Env:
        from minigrid.envs.memory import MemoryEnv  # slow to import; registers MiniGrid's ids

        if spec is not None:
            env: gymnasium.Env = MemoryEnv(
                size=spec.size,
                random_length=spec.random_length,
                agent_view_size=view_size,
                render_mode=render_mode,
                **options,
            )
        else:
            env = gymnasium.make(env_id, agent_view_size=view_size, render_mode=render_mode, **options)
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        kept = gymnasium.spaces.Dict(
            {key: space for key, space in env.observation_space.items() if key != "mission"}
        )
        env = gymnasium.wrappers.TransformObservation(env, lambda obs: {key: obs[key] for key in kept}, kept)
        if actions == 3:
            env = gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Discrete(3))
        return env

    return make

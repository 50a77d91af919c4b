"""MiniGrid's own environments, one at a time: the reference for the batched mazes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gymnasium

from ..numbers import require_whole
from .missions import Mission, mission_to_read, with_mission
from .tables import MAX_VIEW_SIZE, MazeSpec, require_actions


def is_minigrid(env_id: str) -> bool:
    """Return whether the id belongs to Farama's MiniGrid package."""
    return env_id.startswith(("MiniGrid-", "BabyAI-"))


def minigrid_maker(
    env_id: str,
    render_mode: str | None = None,
    view_size: int = 7,
    actions: Literal[3, 7] = 7,
    mission: Mission = "auto",
    **options: Any,
) -> Callable[[], gymnasium.Env]:
    """Return a function that builds one of MiniGrid's environments, with its mission if agents read it.

    Args:
        env_id: a registered id, or a Memory maze of any odd size.
        render_mode: as in `gymnasium.make`.
        view_size: side of the square that the agent sees, in cells.
        actions: 7, or 3 for an action space without those that do nothing in the Memory mazes.
        mission: see `missions.Mission`.
        options: further arguments of MiniGrid's class.

    Raises:
        ValueError: an option that MiniGrid's class does not have, or an unknown `mission`.
    """
    if "seeding" in options:
        raise ValueError(f"{env_id}: MiniGrid's environments have their own generators; leave seeding out")
    spec = MazeSpec.from_id(env_id, view_size)
    if spec is not None and spec.hallway is not None:
        raise ValueError(f"{env_id}: Farama's MemoryEnv cannot set the hallway; use vectorization='auto'")
    require_actions(actions)
    require_whole("view_size", view_size, 1, MAX_VIEW_SIZE)

    import minigrid  # noqa: F401 - slow to import; registers its ids

    registered = gymnasium.registry.get(env_id)  # another process may not know it
    # An unregistered id that is no maze is refused later, with the nearest ids.
    words = mission_to_read(env_id, mission, options) if registered or spec is not None else None

    def make() -> gymnasium.Env:
        from minigrid.envs.memory import MemoryEnv

        if spec is not None:
            env: gymnasium.Env = MemoryEnv(
                size=spec.size,
                random_length=spec.random_length,
                agent_view_size=view_size,
                render_mode=render_mode,
                **options,
            )
        else:
            env = gymnasium.make(
                registered or env_id, agent_view_size=view_size, render_mode=render_mode, **options
            )
        env = with_mission(env, words)
        if actions == 3:
            env = gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Discrete(3))
        return env

    return make

"""MiniGrid's own environments, one at a time: the reference for the batched mazes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium

from ..numbers import require_whole
from .tables import MAX_VIEW_SIZE, MazeSpec, require_actions

MISSIONS = 12
"""Number of BabyAI's episodes whose missions are compared; those that vary did so within 4."""


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
    require_actions(actions)
    require_whole("view_size", view_size, 1, MAX_VIEW_SIZE)

    import minigrid  # noqa: F401 - slow to import; registers its ids

    registered = gymnasium.registry.get(env_id)  # another process may not know it

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
        env = _without_mission(env)
        if actions == 3:
            env = gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Discrete(3))
        return env

    return make


def _without_mission(env: gymnasium.Env) -> gymnasium.Env:
    space = env.observation_space
    if not isinstance(space, gymnasium.spaces.Dict):
        return env
    kept = gymnasium.spaces.Dict({key: part for key, part in space.items() if key != "mission"})
    return gymnasium.wrappers.TransformObservation(env, lambda obs: {key: obs[key] for key in kept}, kept)


def mission_notes(env_id: str, name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a note if the mission of one of MiniGrid's environments changes from episode to episode.

    Args:
        env_id: the environment, for the note.
        name: its id without a module.
        options: as for `minigrid_maker`.
    """
    if not is_minigrid(name) or MazeSpec.from_id(name) is not None:
        return ()
    own = {key: x for key, x in options.items() if key not in ("view_size", "actions")}
    with contextlib.redirect_stdout(io.StringIO()):  # BabyAI prints which of its drafts it rejects
        env = gymnasium.make(name, **own)
        varies = _mission_varies(env)
        env.close()
    if not varies:
        return ()
    return (
        f"warning: {env_id}: the mission, a text, changes from episode to episode, and the agent does not "
        "see it: it cannot know what it is asked to do",
    )


def _mission_varies(env: gymnasium.Env) -> bool:
    from minigrid.core.mission import MissionSpace

    if not isinstance(env.observation_space, gymnasium.spaces.Dict):
        return False
    space = env.observation_space.spaces.get("mission")
    if type(space) is MissionSpace:
        return any(len(values) > 1 for values in space.ordered_placeholders or ())
    missions = set()  # BabyAI's space does not say which missions there are
    for seed in range(MISSIONS if space is not None else 0):
        missions.add(env.reset(seed=seed)[0]["mission"])
        if len(missions) > 1:
            return True
    return False

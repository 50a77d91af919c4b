"""Missions of MiniGrid and BabyAI: which ones agents read, and notes about those that they do not."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, Literal, get_args

import gymnasium
from gymnasium import spaces

from rmc_agents.spaces.text import AnnotatedText, mission_text

from .tables import MazeSpec

Mission = Literal["auto", "read", "drop"]
"""auto: the mission is part of the observation if it changes from episode to episode; read: always;
drop: never."""
EPISODES = 12
"""Number of BabyAI's episodes whose missions are compared; those that vary did so within 4."""
OWN_OPTIONS = ("view_size", "actions", "mission")
"""Options that MiniGrid's classes do not have."""


def read_mission(env: gymnasium.Env) -> gymnasium.Env:
    """Wrap an environment of MiniGrid or BabyAI so that agents read its mission.

    `rmc_envs.make` does it for their own ids. Use this where you build or register the environment yourself.

    Raises:
        ValueError: the observation holds no mission of MiniGrid or BabyAI.
    """
    return with_mission(env, _words(env))


def with_mission(env: gymnasium.Env, words: AnnotatedText | None) -> gymnasium.Env:
    """Wrap an environment so that its mission has the space `words`, or is left out with None."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return env
    kept: dict[Any, spaces.Space] = {key: part for key, part in space.items() if key != "mission"}
    if words is not None:
        kept["mission"] = words
    return gymnasium.wrappers.TransformObservation(
        env, lambda obs: {key: obs[key] for key in kept}, spaces.Dict(kept)
    )


def mission_to_read(name: str, mission: Mission, options: Mapping[str, Any]) -> AnnotatedText | None:
    """Return the space of an environment's missions if agents read them, and None if not.

    Args:
        name: a registered id of MiniGrid or BabyAI, or a Memory maze of any size.
        mission: see `Mission`.
        options: of MiniGrid's class.

    Raises:
        ValueError: an unknown `mission`.
    """
    if mission not in get_args(Mission):
        raise ValueError(f"mission={mission!r}: expected one of {', '.join(get_args(Mission))}")
    maze = MazeSpec.from_id(name) is not None
    if mission == "drop" or (maze and mission == "auto"):
        return None
    with _built("MiniGrid-MemoryS7-v0" if maze else name, {} if maze else options) as env:
        if mission == "read" or _varies(env):
            return _words(env)
    return None


def mission_notes(env_id: str, name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a note if the mission of an environment changes from episode to episode, and is left out.

    Args:
        env_id: the environment, for the note.
        name: its id without a module.
        options: as for `minigrid_maker`.
    """
    if not name.startswith(("MiniGrid-", "BabyAI-")) or options.get("mission") != "drop":
        return ()
    own = {key: x for key, x in options.items() if key not in OWN_OPTIONS}
    if mission_to_read(name, "auto", own) is None:
        return ()
    return (
        f"warning: {env_id}: the mission, a text, changes from episode to episode, and the agent does not "
        "see it: it cannot know what it is asked to do (with mission='auto' or 'read', it reads the mission)",
    )


@contextlib.contextmanager
def _built(name: str, options: Mapping[str, Any]) -> Any:
    """Build an environment for a while, in silence: BabyAI prints which of its drafts it rejects."""
    with contextlib.redirect_stdout(io.StringIO()):
        env = gymnasium.make(name, **options)
        try:
            yield env
        finally:
            env.close()


def _words(env: gymnasium.Env) -> AnnotatedText:
    space = _mission_space(env)
    words = None if space is None else mission_text(space)
    if words is None:
        raise ValueError(f"{env} has no mission of MiniGrid or BabyAI, or one without words")
    return words


def _mission_space(env: gymnasium.Env) -> spaces.Space | None:
    space = env.observation_space
    return space.spaces.get("mission") if isinstance(space, spaces.Dict) else None


def _varies(env: gymnasium.Env) -> bool:
    from minigrid.core.mission import MissionSpace

    space = _mission_space(env)
    if type(space) is MissionSpace:
        return any(len(values) > 1 for values in space.ordered_placeholders or ())
    missions = set()  # BabyAI's space does not say which missions there are
    for seed in range(EPISODES if space is not None else 0):
        missions.add(env.reset(seed=seed)[0]["mission"])
        if len(missions) > 1:
            return True
    return False

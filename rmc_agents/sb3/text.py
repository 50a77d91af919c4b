"""Texts of observations for SB3, which reads none: the ids of their words, or nothing.

MiniGrid's observation holds a `mission` in words, and SB3's `DummyVecEnv` raises a TypeError for a `Dict`
space that holds text. There are four solutions:

1. The environments of this project have no text: `"rmc_envs:rmc/MemoryS7-v0"` plays the same episodes, and
   `BatchedVecEnv(rmc_envs.make(...))` holds the ids of the words of missions that change.
2. `with_words(env)` turns the mission into the ids of its words, which `RMCPolicy` reads.
3. `without_text(env)` leaves texts out. With `make_vec_env`, use `wrapper_class=without_text` or
   `wrapper_class=with_words`. They work in `SubprocVecEnv` too, whose environments run in other processes.
4. `install_text_filter()` makes every `DummyVecEnv` of this process wrap its environments in `without_text`
   and, if they are MiniGrid's, annotate how their images are read (pixels or codes).

`RecurrentPPO(RMCPolicy, "MiniGrid-MemoryS7-v0")` needs the fourth: the algorithm makes the environment
from its id before it uses the policy, and SB3 has no hook in between. Loading `RMCPolicy` therefore installs
the filter. It is this package's only change to another library. It replaces the constructor of one public
class, acts only on `Dict` spaces that hold text, which SB3 rejects otherwise, and on MiniGrid's environments,
and leaves Gymnasium and MiniGrid unchanged. `remove_text_filter()` undoes it.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from rmc_agents.spaces.annotated import AnnotatedBox, AnnotatedDict, annotate
from rmc_agents.spaces.plain import is_text, plain_leaf
from rmc_agents.spaces.reading import read
from rmc_agents.spaces.text import AnnotatedText, ids_of_texts, mission_text

with contextlib.suppress(ImportError):
    import minigrid  # noqa: F401 - registers MiniGrid's ids with Gymnasium

_filtered: Callable[..., None] | None = None
"""The constructor of `DummyVecEnv` while the filter is installed."""


def without_text(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Wrap an environment so that its dictionary observations hold no text.

    Returns:
        `env` itself where the observation is not a dictionary, or all or none of its parts are text.
    """
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return env
    kept = [key for key, part in space.spaces.items() if not is_text(part)]
    if len(kept) in (0, len(space.spaces)):
        return env
    return gymnasium.wrappers.FilterObservation(env, kept)


def with_words(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Wrap an environment so that its dictionary observations hold the ids of the words of texts.

    Texts whose words are not known are left out; those of MiniGrid's missions are.

    Raises:
        ValueError: there is no text whose words are known.
    """
    space = env.observation_space
    parts = list(space.spaces.items()) if isinstance(space, spaces.Dict) else []
    texts = {key: part if isinstance(part, AnnotatedText) else mission_text(part) for key, part in parts}
    known = {key: text for key, text in texts.items() if text is not None}
    if not known:
        raise ValueError(f"no text with known words in {space}: use without_text")
    kept = [
        (key, plain_leaf(known[key]) if key in known else part)
        for key, part in parts
        if key in known or not is_text(part)
    ]
    plain = AnnotatedDict(spaces.Dict(kept), known)
    return gymnasium.wrappers.TransformObservation(
        env, lambda obs: ids_of_texts(plain, {key: obs[key] for key, _ in kept}), plain
    )


def annotated(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Wrap an environment whose `image` may hold MiniGrid's codes, so that its space says how it is read.

    Returns:
        `env` itself if it is not MiniGrid's and has no `image` beside a `direction`.
    """
    space = annotate(env)
    if isinstance(space, spaces.Dict) and {"image", "direction"} <= space.spaces.keys():
        image = space["image"]
        if type(image) is spaces.Box:  # not MiniGrid's, but it looks like it
            parts = {**space.spaces, "image": AnnotatedBox(image, str(read(image)))}
            space = spaces.Dict(list(parts.items()))
    if space is env.observation_space:
        return env
    texts = getattr(env.observation_space, "texts", {})
    env = gymnasium.Wrapper(env)
    # SB3 transposes images, and replaces their boxes in place.
    env.observation_space = AnnotatedDict(space, texts) if isinstance(space, spaces.Dict) else space
    return env


def install_text_filter() -> None:
    """Wrap environments of a `DummyVecEnv` in `without_text` and `annotated`; a second call does nothing."""
    global _filtered
    if _filtered is not None:
        return
    original = DummyVecEnv.__init__

    @functools.wraps(original)
    def filtered(
        self: DummyVecEnv, env_fns: list[Callable[[], gymnasium.Env]], *args: Any, **options: Any
    ) -> None:
        original(self, [_filtering(env_fn) for env_fn in env_fns], *args, **options)

    _filtered = DummyVecEnv.__init__ = filtered


def remove_text_filter() -> None:
    """Undo `install_text_filter`; do nothing if the filter is not installed.

    Raises:
        RuntimeError: other code has replaced the constructor of `DummyVecEnv` since.
    """
    global _filtered
    if _filtered is None:
        return
    if DummyVecEnv.__init__ is not _filtered:
        raise RuntimeError("another library has replaced DummyVecEnv.__init__ since; undo that first")
    DummyVecEnv.__init__ = _filtered.__wrapped__  # type: ignore[attr-defined]
    _filtered = None


def _filtering(env_fn: Callable[[], gymnasium.Env]) -> Callable[[], gymnasium.Env]:
    def make() -> gymnasium.Env:
        env = env_fn()
        if not isinstance(env, gymnasium.Env):  # SB3 itself converts environments of the old Gym
            return env
        if _has_changing_mission(env):
            warnings.warn(
                f"the policy does not see the mission of {env}; wrap the environment in "
                "rmc_agents.sb3.with_words to let it read the words, or in without_text to leave them out",
                stacklevel=2,
            )
        return annotated(without_text(env))

    return make


def _has_changing_mission(env: gymnasium.Env[Any, Any]) -> bool:
    """Return whether an observation holds a mission that may change; BabyAI's space does not say so."""
    space = env.observation_space
    mission = space.spaces.get("mission") if isinstance(space, spaces.Dict) else None
    if mission is None or mission_text(mission) is None:
        return False
    placeholders = getattr(mission, "ordered_placeholders", None) or ()
    return type(mission).__name__ != "MissionSpace" or any(len(values) > 1 for values in placeholders)

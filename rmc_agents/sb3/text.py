"""Removal of text from observations, so that SB3 accepts MiniGrid's ids, and annotation of its images.

MiniGrid's observation holds a `mission` in words, and SB3's `DummyVecEnv` raises a TypeError for a `Dict`
space that holds text. There are three solutions:

1. The environments of this project have no text: `"rmc_envs:rmc/MemoryS7-v0"` plays the same episodes.
2. `without_text(env)` wraps one environment. With `make_vec_env`, use `wrapper_class=without_text`. It works
   in `SubprocVecEnv` too, whose environments run in other processes.
3. `install_text_filter()` makes every `DummyVecEnv` of this process wrap its environments in `without_text`
   and, if they are MiniGrid's, annotate how their images are read (pixels or codes).

`RecurrentPPO(RMCPolicy, "MiniGrid-MemoryS7-v0")` needs the third: the algorithm makes the environment
from its id before it uses the policy, and SB3 has no hook in between. Loading `RMCPolicy` therefore installs
the filter. It is this package's only change to another library. It replaces the constructor of one public
class, acts only on `Dict` spaces that hold text, which SB3 rejects otherwise, and on MiniGrid's environments,
and leaves Gymnasium and MiniGrid unchanged. `remove_text_filter()` undoes it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from rmc_agents.spaces.annotated import AnnotatedBox, AnnotatedDict, annotate
from rmc_agents.spaces.plain import is_text
from rmc_agents.spaces.reading import read

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
    env = gymnasium.Wrapper(env)
    # SB3 transposes images, and replaces their boxes in place.
    env.observation_space = AnnotatedDict(space) if isinstance(space, spaces.Dict) else space
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
        # SB3 itself converts environments of the old Gym.
        return annotated(without_text(env)) if isinstance(env, gymnasium.Env) else env

    return make

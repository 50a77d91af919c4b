"""MiniGrid's ids for SB3: `RecurrentPPO(RMCPolicy, "MiniGrid-MemoryS7-v0")`.

MiniGrid's observation holds a `mission` in words, and SB3 stops at words: its `DummyVecEnv`, through which
every environment goes that is not vectorized yet, raises a TypeError where a `Dict` space has a text in it.
Importing `rmc_agents.sb3` makes it leave such entries out instead. Whatever SB3 could do before it still
does in the same way, and nothing of Gymnasium or MiniGrid changes. (`SubprocVecEnv` works in other processes:
there, give `make_vec_env` the arguments `wrapper_class=gymnasium.wrappers.FilterObservation` and
`wrapper_kwargs=dict(filter_keys=["image", "direction"])`.)
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.vec_env import dummy_vec_env

with contextlib.suppress(ImportError):  # only its own environments need it
    import minigrid  # noqa: F401 - Gymnasium knows its ids once it is imported


def without_text(env: gymnasium.Env) -> gymnasium.Env:
    """`env`, the texts left out of its observations if they are a dictionary."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return env
    kept = [key for key, part in space.spaces.items() if not _is_text(part)]
    if len(kept) in (0, len(space.spaces)):
        return env
    return gymnasium.wrappers.FilterObservation(env, kept)


def let_sb3_leave_text_out() -> None:
    """Have SB3's `DummyVecEnv` take every environment `without_text`; a second call changes nothing."""
    patch_env = getattr(dummy_vec_env, "_patch_env", None)
    if patch_env is None or hasattr(patch_env, "__wrapped__"):
        return  # an SB3 that has none stops at texts as it always did

    @functools.wraps(patch_env)
    def patch_env_without_text(env: Any) -> gymnasium.Env:
        return without_text(patch_env(env))

    dummy_vec_env._patch_env = patch_env_without_text  # type: ignore[attr-defined]


def _is_text(space: spaces.Space[Any]) -> bool:
    # MiniGrid's mission space is no `Text`, but says that it holds one.
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")

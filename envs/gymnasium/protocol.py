"""Gymnasium's interface, checked: what `reset` and `step` of a single environment must return."""

from __future__ import annotations

import copy
import re
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rmc_agents.errors import shown

RESET = "`reset(self, *, seed=None, options=None)` must return (observation, info)"
STEP = "`step(self, action)` must return (observation, reward, terminated, truncated, info)"
OLD_GYM = "; environments of the old Gym can be wrapped, for example by the package shimmy"


class ProtocolError(TypeError):
    """An environment does not follow Gymnasium's interface; the message reads "returned ...; correct it"."""


class Protocol(gymnasium.Wrapper):
    """The innermost wrapper, which checks what the environment returns before other wrappers unpack it.

    It copies observations, since other wrappers may keep them: a stack of frames, say.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        try:
            obs, info = checked_reset(self.env.reset(seed=seed, options=options))
            return copied(obs), info
        except TypeError as error:
            if re.search("unexpected keyword argument '(seed|options)'", str(error)):
                raise ProtocolError(f"has a `reset` without seed or options; {RESET}{OLD_GYM}") from error
            raise

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = checked_step(self.env.step(action))
        return copied(obs), reward, terminated, truncated, info


def with_protocol(env: gymnasium.Env) -> gymnasium.Env:
    """Return the environment with `Protocol` around its innermost part, below all other wrappers."""
    if not isinstance(env, gymnasium.Wrapper):
        return Protocol(env)
    layer: gymnasium.Wrapper = env
    while isinstance(layer.env, gymnasium.Wrapper):
        layer = layer.env
    if not isinstance(layer, Protocol):
        layer.env = Protocol(layer.env)
    return env


def checked_reset(result: Any) -> tuple[Any, dict[str, Any]]:
    """Return what `reset` returned.

    Raises:
        ProtocolError: it is not an observation and an info.
    """
    if not (isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[1], dict)):
        raise ProtocolError(f"returned {_kind(result)} from `reset`; {RESET}{OLD_GYM}")
    return result[0], result[1]


def checked_step(result: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Return what `step` returned, with a float and two bools.

    Raises:
        ProtocolError: a value is missing, or has the wrong type.
    """
    if not (isinstance(result, tuple | list) and len(result) == 5):
        old = OLD_GYM if isinstance(result, tuple | list) and len(result) == 4 else ""
        raise ProtocolError(f"returned {_kind(result)} from `step`; {STEP}{old}")
    obs, reward, terminated, truncated, info = result
    if not isinstance(info, dict):
        raise ProtocolError(f"returned {_kind(info)} as info, expected a dict; {STEP}")
    return obs, _number(reward), _flag("terminated", terminated), _flag("truncated", truncated), info


def checked_vector_step(result: Any, num_envs: int) -> tuple[Any, NDArray, NDArray, NDArray, dict[str, Any]]:
    """Return what the `step` of a vector environment returned, with new arrays [B] of float32 and bool.

    Raises:
        ProtocolError: a value is missing, or has the wrong type or shape.
    """
    if not (isinstance(result, tuple | list) and len(result) == 5):
        raise ProtocolError(f"returned {_kind(result)} from `step`; {STEP}")
    obs, *columns, infos = result
    names = ("rewards", "terminated", "truncated")
    arrays = []
    for name, column in zip(names, columns, strict=True):
        array = np.asarray(on_host(column))
        kinds = "biuf" if name == "rewards" else "biu"
        if array.shape != (num_envs,) or array.dtype.kind not in kinds:
            raise ProtocolError(
                f"returned {name} of shape {array.shape} and type {array.dtype}, expected one for each of "
                f"{num_envs} environments"
            )
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused later
            arrays.append(array.astype(np.float32 if name == "rewards" else bool))
    return obs, arrays[0], arrays[1], arrays[2], infos if isinstance(infos, dict) else {}


def on_host(value: Any) -> Any:
    """Return a tensor of torch, which may be on a GPU, as an array; other values as they are."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def copied(value: Any) -> Any:
    """Return a copy of an observation or action, which the environment may change later in place."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if type(value) is tuple:
        return tuple(copied(part) for part in value)
    if type(value) is list:
        return [copied(part) for part in value]
    if isinstance(value, bool | int | float | str | np.generic | None):
        return value
    return copy.deepcopy(value)


def _number(reward: Any) -> float:
    if type(reward) is float:
        return reward
    try:
        if np.ndim(reward) or np.asarray(reward).dtype.kind not in "biuf":
            raise TypeError
        return float(reward)
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"returned {_text(reward)} as a reward, expected a number") from error


def _flag(name: str, value: Any) -> bool:
    if type(value) is bool:
        return value
    try:
        if not np.ndim(value) and np.asarray(value).dtype.kind in "biu" and value in (0, 1):
            return bool(value)
    except (TypeError, ValueError):
        pass
    raise ProtocolError(f"returned {_text(value)} as {name}, expected True or False")


def _kind(result: Any) -> str:
    """Describe the type of a result, and how many values it has."""
    kind = type(result).__name__
    return (
        f"a {kind} of {len(result)} values" if isinstance(result, tuple | list) else f"a value of type {kind}"
    )


def _text(value: Any) -> str:
    return shown(repr(value), 60)

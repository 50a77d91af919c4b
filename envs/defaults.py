"""The options that an environment has where none are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from rmc_agents.options import as_plain, is_plain

from .minigrid.reference import is_minigrid, minigrid_maker
from .registry import native, resolve

NO_OPTIONS = ("num_envs", "device", "render_mode", "seeding")
"""Arguments that do not change a task."""


def default_options(env_id: str) -> dict[str, Any]:
    """Return the options of an id and their values where none are given, as a run folder would hold them.

    Those that are passed on, such as to the class of a registered environment from a function that builds it,
    are not known and left out.

    Raises:
        ValueError: a maze that cannot exist, or a module that cannot be imported.
    """
    name = resolve(env_id)
    builder, fixed = native(env_id), dict[str, Any]()
    if builder is None and is_minigrid(name):
        builder = minigrid_maker
    elif builder is None and name in gymnasium.registry:
        builder, fixed = _registered(name)
    known = {**({} if builder is None else _defaults(builder)), **fixed}
    plain = {option: as_plain(value) for option, value in known.items() if option not in NO_OPTIONS}
    return {option: value for option, value in plain.items() if is_plain(value)}


def _registered(name: str) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
    """Return what builds a registered environment, and the arguments that its id fixes."""
    spec = gymnasium.registry[name]
    if not isinstance(spec.entry_point, str):
        return spec.entry_point, dict(spec.kwargs)
    try:
        return load_env_creator(spec.entry_point), dict(spec.kwargs)
    except Exception:  # whatever the import of somebody's module raises; building the environment reports it
        return None, dict(spec.kwargs)


def _defaults(builder: Callable[..., Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError):  # it is not written in Python
        return {}
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}

"""The task of an evaluation: an environment with its options, and how results name it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

import rmc_envs
from rmc_agents.agent.saved import GRIDS, Run

_MISSING = object()
"""In the place of an option that is neither given nor has a known default; it equals no value."""


@dataclass(frozen=True)
class Task:
    """An environment with the options in which a run is evaluated."""

    env_id: str
    options: dict[str, Any]
    """Those of the run, replaced by those that are given."""
    rules: dict[str, Any]
    """The values of all options that are known: these options, and the defaults of the others."""
    changed: tuple[str, ...] = ()
    """Names of the given options whose values differ from the run's own."""

    @property
    def name(self) -> str:
        """Name in the run's own results, with the options that the run does not have anyway."""
        return self.named(self.changed)

    @property
    def is_default(self) -> bool:
        """Whether every option has its default."""
        return not differing(self.options, rmc_envs.default_options(self.env_id))

    def named(self, options: Iterable[str]) -> str:
        """Return the id with the values of these options, as far as they are known."""
        stated = (f"{name}={self.rules[name]}" for name in sorted(options) if name in self.rules)
        return " ".join([self.env_id, *stated])


def task_of(run: Run, env_id: str, given: Mapping[str, Any]) -> Task:
    """Return the task of an environment: with the options of the run, replaced by those that are given."""
    own = run.options_for(env_id)
    options = {**own, **given}
    return Task(env_id, options, rules_of(run, env_id, options), differing(given, rules_of(run, env_id, own)))


def rules_of(run: Run, env_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options and the defaults of the others; a grid world's mission is read if the agent reads it."""
    rules = {**rmc_envs.default_options(env_id), **options}
    if env_id.startswith(GRIDS) and rules.get("mission") == "auto":
        space = run.agent.observation_space
        rules["mission"] = "read" if isinstance(space, spaces.Dict) and "mission" in space.spaces else "drop"
    return rules


def differing(options: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the options that others do not have, or have with another value."""
    return tuple(name for name, value in sorted(options.items()) if others.get(name, _MISSING) != value)


def names_in_comparison(tasks: Sequence[Task]) -> list[str]:
    """Return a name for each task, with all options in which tasks of an environment differ.

    So are those that were changed for any of the runs. Equal tasks have equal names.
    """
    stated: dict[str, set[str]] = {}
    first: dict[str, Task] = {}
    for task in tasks:
        other = first.setdefault(task.env_id, task)
        names = stated.setdefault(task.env_id, set())
        names.update(task.changed, differing(task.rules, other.rules), differing(other.rules, task.rules))
    return [task.named(stated[task.env_id]) for task in tasks]

"""User-defined cores and tasks: modules that register them, and how the scripts find those modules.

A module adds a memory core with `CORES["mine"] = Mine`, or a task with `rmc_envs.register(...)`, when it is
imported. The scripts import what `--import MODULE` names, what the run folder remembers, and what installed
packages declare in the entry-point group `rmc_agents.plugins`:

    [project.entry-points."rmc_agents.plugins"]
    anything = "my_package.my_cores"
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType

from rmc_agents.errors import UsageError

GROUP = "rmc_agents.plugins"
"""Entry-point group whose modules every script imports."""


def import_module(name: str) -> ModuleType:
    """Import a module, also from the current directory, which is not on a script's import path.

    Raises:
        UsageError: there is no such module, or it raises when it is imported.
    """
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)  # it stays there: worker processes import the module, too
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if added:
            sys.path.remove(here)
        missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        advice = f"; it must be installed or lie in {here}" if missing or not name else ""
        raise UsageError(
            f"cannot import the module {name!r} ({type(error).__name__}: {error}){advice}"
        ) from error


def import_modules(names: Iterable[str]) -> None:
    """Import modules that register cores or tasks.

    Raises:
        UsageError: one of them cannot be imported.
    """
    for name in dict.fromkeys(names):
        import_module(name)


def load_installed() -> list[str]:
    """Import the plug-ins of installed packages; return a warning for each that cannot be imported."""
    warnings = []
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            warnings.append(f"warning: plug-in {point.name} ({point.value}) cannot be imported: {error!r}")
    return warnings


def registering_modules(*objects: object) -> tuple[str, ...]:
    """Return the modules that define some objects' classes, except this package's and `__main__`."""
    modules = dict.fromkeys(type(each).__module__ for each in objects)
    own = ("rmc_agents", "rmc_envs", "envs")
    return tuple(m for m in modules if m != "__main__" and m.split(".")[0] not in own)

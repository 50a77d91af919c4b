"""Versions of Python and of the packages that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("rmc-agents", "torch", "numpy", "gymnasium", "minigrid")


def versions() -> dict[str, str]:
    """Return the installed version of each package in `PACKAGES`, and Python's."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

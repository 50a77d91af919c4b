"""What a result was made with."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("rmc-agents", "torch", "numpy", "gymnasium", "minigrid")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

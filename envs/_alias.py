"""One set of modules under both names of this folder: `rmc_envs` where installed, `envs` in a checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location, spec_from_loader
from types import ModuleType

PACKAGE = "rmc_envs"


def alias_package(alias: str, folder: str) -> None:
    """Import this folder as `rmc_envs`, and give the name `alias` to the same module objects.

    Without this, `import envs` besides `import rmc_envs` would run every file twice: two registries, two
    classes of each name, and a second registration with Gymnasium.

    Args:
        alias: the name under which the folder is being imported.
        folder: the folder, which becomes `rmc_envs` where that was not imported before.
    """
    sys.modules.pop(f"{alias}._alias", None)  # the second copy of this file
    sys.meta_path.insert(0, _AliasFinder(alias, folder))
    importlib.import_module(PACKAGE)
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            sys.modules[alias + name.removeprefix(PACKAGE)] = module


class _AliasFinder(MetaPathFinder, Loader):
    """Finder of `rmc_envs` in `folder`, and of the modules `alias.NAME` as the modules `rmc_envs.NAME`."""

    def __init__(self, alias: str, folder: str) -> None:
        self.alias, self.folder = alias, folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == PACKAGE:
            return spec_from_file_location(
                PACKAGE, f"{self.folder}/__init__.py", submodule_search_locations=[self.folder]
            )
        if not fullname.startswith(self.alias + ".") or find_spec(self._original(fullname)) is None:
            return None
        return spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._original(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run; undo the import system's replacement of the module's own specification."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def _original(self, fullname: str) -> str:
        return PACKAGE + fullname.removeprefix(self.alias)

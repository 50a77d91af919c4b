"""Imports of a source tree, read from the files without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One import statement's target, anywhere in a file: in functions and TYPE_CHECKING blocks, too."""

    module: str
    """The module that imports."""
    target: str
    """The module that is imported; of another package, the name as written."""
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules(packages: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of some packages by module name.

    Args:
        packages: each package's folder by the name that it is imported under.
    """
    found: dict[str, Path] = {}
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: Mapping[str, Path]) -> list[Import]:
    """Return every import of some modules.

    `from package import name` imports the module `package.name` where there is one, else `package`.

    Args:
        files: as `modules` returns them.
    """
    return [found for module, path in files.items() for found in _imports_of(module, path, files)]


def _imports_of(module: str, path: Path, files: Mapping[str, Path]) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                outside = base.partition(".")[0] not in {known.partition(".")[0] for known in files}
                yield Import(module, name if name in files or outside else base, node.lineno)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            # importlib.import_module("package.module")
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called == "import_module" and isinstance(node.args[0].value, str):
                yield Import(module, node.args[0].value, node.lineno)


def upward(found: list[Import], layers: Mapping[str, int]) -> list[str]:
    """Return a line for each import of another part that is not in a lower layer.

    Args:
        found: the imports.
        layers: the layer of each part: a package, one of its folders, or one of its modules. A module belongs
            to the longest name that it starts with; modules without a part may import anything.
    """
    wrong = []
    for each in found:
        own, other = part_of(each.module, layers), part_of(each.target, layers)
        if own is not None and other is not None and own != other and layers[other] >= layers[own]:
            wrong.append(f"{each} (layer {layers[own]} imports layer {layers[other]})")
    return wrong


def part_of(module: str, layers: Mapping[str, int]) -> str | None:
    """Return the part of `layers` that a module belongs to, or None."""
    names = [name for name in layers if module == name or module.startswith(f"{name}.")]
    return max(names, key=len, default=None)


def cycles(found: list[Import]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others (Tarjan 1972)."""
    graph: dict[str, set[str]] = {}
    for each in found:
        graph.setdefault(each.module, set()).add(each.target)
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for target in sorted(graph.get(module, ())):
            if target not in order:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], order[target])
        if lowest[module] == order[module]:
            at = stack.index(module)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1 or module in graph.get(module, ()):
                groups.append(group)

    for module in graph:
        if module not in order:
            visit(module)
    return groups


def opened_files(path: Path) -> list[int]:
    """Return the lines of a file that call the built-in `open`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "open"]

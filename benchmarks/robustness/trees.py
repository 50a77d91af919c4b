"""Every node of a tree replaced by every strange value, one at a time: hand-made JSON and checkpoints."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch

DEEP: list[Any] = []
"""Lists within lists, 200 deep."""
for _ in range(200):
    DEEP = [DEEP]
STRANGE: list[Any] = [
    None,
    "",
    "x",
    -1,
    0,
    1.5,
    1e400,
    -1e400,
    float("nan"),
    10**30,
    True,
    [],
    {},
    [1],
    {"x": 1},
    DEEP,
]
"""Values that replace others."""
STRANGE_TENSORS = [
    torch.zeros(0),
    torch.zeros(()),
    torch.full((3, 3), float("nan")),
    torch.full((8,), -1),
    torch.full((8,), 2**40),
]
"""Values that replace tensors of a checkpoint, besides those of `STRANGE`."""


def paths(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every node below the root."""
    items = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    )
    for key, part in items:
        yield (*above, key)
        yield from paths(part, (*above, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a tree in which the node at a path is another value."""
    return _edited(tree, path, lambda parent, key: parent.__setitem__(key, value))


def without(tree: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of a tree without the node at a path."""
    return _edited(tree, path, lambda parent, key: parent.__delitem__(key))


def _edited(tree: Any, path: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> Any:
    """Return a copy of a tree after `edit(parent, key)` of the node at a path; the tree itself in a tuple."""
    copied = copy.deepcopy(tree)
    node = copied
    for key in path[:-1]:
        node = node[key]
    if isinstance(node, tuple):
        return tree
    edit(node, path[-1])
    return copied


def variants(tree: Any, values: list[Any], count: int, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield `count` trees (or all) with one node replaced, or missing, and what was done to it."""
    rng = random.Random(seed)
    choices = [(path, index) for path in paths(tree) for index in range(-1, len(values))]
    for path, index in rng.sample(choices, min(count, len(choices))):
        name = ".".join(map(str, path))
        if index < 0:
            yield f"without {name}", without(tree, path)
        else:
            yield f"{name} = {str(values[index])[:30]}", replaced(tree, path, values[index])

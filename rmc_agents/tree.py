"""Trees of tensors: an observation (tensor or dictionary) and a memory state (nested NamedTuples)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

Tree = Any
"""A tensor, None, or a dictionary, tuple or NamedTuple of trees."""


def map_tree(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to the tensors of trees of one shape; the result has the first tree's type."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {key: map_tree(function, value, *(o[key] for o in others)) for key, value in tree.items()}
    branches = [map_tree(function, *branch) for branch in zip(tree, *others, strict=True)]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def leaves(tree: Tree) -> Iterator[Tensor]:
    """The tensors of a tree, in a fixed order (dictionaries by the order of their keys)."""
    if isinstance(tree, Tensor):
        yield tree
    elif tree is not None:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def unflatten(template: Tree, tensors: list[Tensor]) -> Tree:
    """The tree of `template`'s shape whose `leaves` are `tensors`.

    Raises:
        ValueError: the number of tensors or one of their shapes is not the template's.
    """
    expected = list(leaves(template))
    if [tuple(t.shape) for t in expected] != [tuple(t.shape) for t in tensors]:
        raise ValueError(
            f"expected tensors of shapes {[tuple(t.shape) for t in expected]}, "
            f"got {[tuple(t.shape) for t in tensors]}"
        )
    remaining = iter(tensors)
    return map_tree(lambda t: next(remaining).to(device=t.device, dtype=t.dtype), template)

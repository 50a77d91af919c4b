"""Trees of tensors: observations (a tensor or a dictionary) and memory states (nested NamedTuples)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Tree = Any
"""A tensor, None, or a dictionary, tuple or NamedTuple of trees."""


def map_tree(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to the corresponding tensors of trees with the same structure.

    The result has the structure and types of the first tree.
    """
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {key: map_tree(function, value, *(o[key] for o in others)) for key, value in tree.items()}
    branches = [map_tree(function, *branch) for branch in zip(tree, *others, strict=True)]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def leaves(tree: Tree) -> Iterator[Tensor]:
    """Yield the tensors of a tree in a fixed order (dictionaries in the order of their keys)."""
    if isinstance(tree, Tensor):
        yield tree
    elif tree is not None:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def upload(values: Any, device: torch.device) -> Tensor:
    """Return host values (a list, an array or a tensor) on a device; the host does not wait for a GPU."""
    x = torch.as_tensor(values)
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def clone(tree: Any) -> Any:
    """Return a copy of nested dictionaries, lists and tuples that shares no tensor with the original."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: clone(part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [clone(part) for part in tree]
    return tree


def to_device(tree: Any, device: torch.device | str) -> Any:
    """Return nested dictionaries, lists and tuples with their tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: to_device(part, device) for key, part in tree.items()}
    return [to_device(part, device) for part in tree] if isinstance(tree, list | tuple) else tree


def unflatten(template: Tree, tensors: list[Tensor]) -> Tree:
    """Build a tree with the structure of `template` from its `leaves`; the inverse of `leaves`.

    Each tensor is moved to the device and dtype of the template's tensor.

    Raises:
        ValueError: the number of tensors or one of their shapes differs from the template's.
    """
    expected = list(leaves(template))
    if [tuple(t.shape) for t in expected] != [tuple(t.shape) for t in tensors]:
        raise ValueError(
            f"expected tensors of shapes {[tuple(t.shape) for t in expected]}, "
            f"got {[tuple(t.shape) for t in tensors]}"
        )
    remaining = iter(tensors)
    return map_tree(lambda t: next(remaining).to(device=t.device, dtype=t.dtype), template)

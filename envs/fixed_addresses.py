"""State at fixed addresses, so that a CUDA graph can replay the steps of a task."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rmc_agents.tree import Tree, leaves, unflatten


class FixedAddresses:
    """Keeps the tensors of a task where they are from one rollout to the next.

    Most steps replace the state, as in `self._time = self._time + 1`. A CUDA graph reads and writes the
    addresses that it was recorded with. So the state has to lie where the recorded steps begin, and has to be
    back there after them; copying it back is recorded, too.

    Args:
        task: its tensors are the values of its attributes, or in dictionaries and tuples that are.
    """

    def __init__(self, task: object) -> None:
        self._attributes = vars(task)
        self._name = type(task).__name__
        self._fixed: dict[str, tuple[Tree, tuple[Tensor, ...]]] = {}  # a tree of the form, and its tensors

    def prepare(self) -> None:
        """Bring back what has been replaced since the latest steps, such as by a reset.

        Raises:
            RuntimeError: it has other shapes now.
        """
        for name, (form, tensors) in self._fixed.items():
            given = self._attributes[name]
            if given is None:  # such as what is kept for pictures, after a reset
                continue
            self._copy(name, tuple(leaves(given)), tensors)
            self._attributes[name] = unflatten(form, list(tensors))

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Bring the state back after the steps in this context.

        If they fail, the tensors are those from before.

        Raises:
            RuntimeError: the steps changed something that is no tensor, or a shape, which a graph could not
                repeat.
        """
        before = dict(self._attributes)
        host = {
            name: copy.deepcopy(x)
            for name, x in before.items()
            if isinstance(x, dict | list | set) and not _is_tree(x)
        }
        held = {name: tuple(leaves(tree)) for name, tree in before.items() if _is_tree(tree)}
        try:
            yield
            self._require_same_host(before | host)
            self._bring_back(held)
        except BaseException:
            self._attributes.update(before)
            for name, tensors in held.items():  # a dictionary may have been changed in place
                self._attributes[name] = unflatten(before[name], list(tensors))
            raise

    def _bring_back(self, held: dict[str, tuple[Tensor, ...]]) -> None:
        trees = {name: tree for name, tree in self._attributes.items() if _is_tree(tree)}
        now = {name: tuple(leaves(tree)) for name, tree in trees.items()}
        # Copies first: what replaced one tensor may lie in another one.
        copies = {
            name: tuple(x.clone() for x in tensors)
            for name, tensors in now.items()
            if not _are_same(tensors, held.get(name, ()))
        }
        self._require_own_memory(now)
        for name, tree in trees.items():
            if name not in copies:  # changed in place, or by a reset only
                self._fixed[name] = tree, now[name]
            elif name not in self._fixed:
                self._fixed[name] = tree, copies[name]
            else:
                self._copy(name, copies[name], self._fixed[name][1])
            self._attributes[name] = unflatten(tree, list(self._fixed[name][1]))

    def _require_own_memory(self, now: dict[str, tuple[Tensor, ...]]) -> None:
        """Raise RuntimeError for views: as copies, they would no longer change with each other."""
        owners: dict[int, tuple[str, Tensor]] = {}
        for name, tensors in now.items():
            for x in tensors:
                other, known = owners.setdefault(x.untyped_storage().data_ptr(), (name, x))
                if known is not x and x.numel():
                    raise RuntimeError(f"{other} and {name} of {self._name} share memory: clone one of them")

    def _copy(self, name: str, given: tuple[Tensor, ...], fixed: tuple[Tensor, ...]) -> None:
        forms = [[(x.shape, x.dtype) for x in tensors] for tensors in (given, fixed)]
        if forms[0] != forms[1]:
            raise RuntimeError(f"{name} of {self._name} has other shapes than in the steps before")
        for to, x in zip(fixed, given, strict=True):
            if x is not to:
                to.copy_(x)

    def _require_same_host(self, before: dict[str, Any]) -> None:
        for name, value in self._attributes.items():
            if isinstance(value, list) and any(map(_is_tree, value)):
                raise RuntimeError(f"{name} of {self._name} is a list of tensors: use a tuple")
            if not _is_tree(value) and (name not in before or _differ(value, before[name])):
                raise RuntimeError(f"a step of {self._name} changes {name}, which is no tensor")


def _is_tree(value: object) -> bool:
    """Return whether a value is made of tensors, and holds one."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        return len(value) > 0 and all(map(_is_tree, value))
    return isinstance(value, Tensor)


def _differ(value: object, other: object) -> bool:
    try:
        return value is not other and bool(value != other)
    except (RuntimeError, ValueError):  # of arrays, or of tensors that are mixed with numbers
        return True


def _are_same(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))

"""State at fixed addresses, so that a CUDA graph can replay the steps of a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rmc_agents.tree import map_tree


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
        self._fixed: dict[str, Any] = {}

    def prepare(self) -> None:
        """Bring back what has been replaced since the latest steps, such as by a reset."""
        for name, fixed in self._fixed.items():
            given = self._attributes[name]
            if given is not fixed and given is not None:
                map_tree(lambda to, x: to.copy_(x), fixed, given)
            self._attributes[name] = fixed

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Bring the state back after the steps in this context.

        If they fail, the attributes are those from before.

        Raises:
            RuntimeError: the steps changed something that is no tensor, which a graph could not repeat.
        """
        before = dict(self._attributes)
        try:
            yield
            after = dict(self._attributes)
            self._require_same_host(before, after)
            # Copies first: what replaced one tensor may lie in another one.
            copies = {
                name: map_tree(lambda x: x.clone(), tree)
                for name, tree in after.items()
                if _is_tree(tree) and tree is not before.get(name)
            }
            for name, copy in copies.items():
                if self._fixed.get(name) is None:
                    self._fixed[name] = copy
                else:
                    map_tree(lambda to, x: to.copy_(x), self._fixed[name], copy)
                self._attributes[name] = self._fixed[name]
            for name, tree in after.items():  # changed in place, or replaced by a reset only
                if _is_tree(tree) and name not in copies:
                    self._fixed[name] = tree
        except BaseException:
            self._attributes.update(before)
            raise

    def _require_same_host(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for name, value in after.items():
            if value is before.get(name) or _is_tree(value):
                continue
            if name not in before or value != before[name]:
                raise RuntimeError(f"a step of {self._name} changes {name}, which is no tensor")


def _is_tree(value: object) -> bool:
    """Return whether a value is made of tensors, and holds one."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        return len(value) > 0 and all(map(_is_tree, value))
    return isinstance(value, Tensor)

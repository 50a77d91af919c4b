"""Action masks: which actions an environment allows next.

A mask is one flat array of P bools, true where a choice is allowed: the choices of a `Discrete`, or those of
every component of a `MultiDiscrete` one after the other. A bit of a `MultiBinary` has two choices, 0 and 1.
Axes: B batch, P choices of all components.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.spaces.plain import Actions

INFO_KEY = "action_mask"
"""Name of a mask in an info."""
METHOD = "action_masks"
"""Name of an environment's method that returns a mask, as sb3-contrib has it."""
MASKS_ARE_FOR = "action masks are for Discrete, MultiDiscrete and MultiBinary actions"
"""Beginning of messages about other spaces."""


@final
class ActionMasks:
    """Masks of the actions of one environment, in the forms in which environments give them.

    - One array of P truth values (or 0 and 1), as for sb3-contrib's `MaskablePPO`.
    - For a `MultiDiscrete`, a tuple of arrays, one for each component, as in Gymnasium's `sample(mask)`.
    - For a `MultiBinary` of n bits, 2 n values, as for `MaskablePPO`: whether 0 and whether 1 is allowed.
    - For a `Dict` or `Tuple` of actions, a dictionary or tuple of these.

    Args:
        space: the environment's own action space.

    Raises:
        ValueError: the space is not supported.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        sizes = choice_sizes(Actions(space).plain)
        self.supported = sizes is not None
        """Whether actions are choices, which masks can restrict."""
        self.sizes = sizes or []
        self._first = np.cumsum([0, *self.sizes[:-1]])

    def read(self, mask: Any, batch_size: int | None = None) -> NDArray[np.bool_]:
        """Return a mask as an array [P], or masks of a batch as [B, P].

        Args:
            mask: in one of the forms above; those of a batch have the batch axis first in every array.
            batch_size: B; None for one mask.

        Raises:
            ValueError: another shape, values that are not truth values, or a component without an allowed
                choice.
        """
        if not self.supported:
            raise ValueError(f"{MASKS_ARE_FOR}, not {self.space}")
        shape = (sum(self.sizes),) if batch_size is None else (batch_size, sum(self.sizes))
        array = _array(mask)
        if array is None or array.shape != shape:
            array = self._joined(mask)
        if array is None or array.shape != shape:
            parts = "" if len(self.sizes) == 1 else f", or a tuple of arrays of {_listed(self.sizes)} values"
            raise ValueError(f"an action mask of {_form(mask)}, expected one of shape {shape}{parts}")
        if array.dtype != bool:
            if not ((array == 0) | (array == 1)).all():
                raise ValueError("an action mask with other values than True, False, 1 and 0")
            array = array == 1
        allowed = np.logical_or.reduceat(array, self._first, axis=-1)
        if not allowed.all():
            *row, component = np.argwhere(~allowed)[0].tolist()
            where = f" in row {row[0]}" if row else ""
            what = f" for component {component} of the action" if len(self.sizes) > 1 else ""
            raise ValueError(f"an action mask without an allowed choice{what}{where}")
        return array

    def _joined(self, mask: Any) -> NDArray[Any] | None:
        """Return the arrays of all components as one; None if they are not those of the space."""
        try:
            parts = list(_components(mask, self.space))
            if [part.shape[-1] for part in parts] != _part_sizes(self.space, parts):
                return None
            return np.concatenate(parts, axis=-1)
        except (LookupError, TypeError, ValueError):
            return None


def choice_sizes(space: spaces.Space[Any]) -> list[int] | None:
    """Return the number of choices of each component of a plain action space; None if it has no choices."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.flat]
    if isinstance(space, spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    return None


def allowed_actions(actions: Tensor, masks: Tensor, space: spaces.Space[Any]) -> Tensor:
    """Return actions [B, ...] of a plain space with forbidden choices replaced by the first allowed ones.

    Args:
        actions: whole numbers.
        masks: [B, P].
        space: one with choices.
    """
    sizes = choice_sizes(space)
    assert sizes is not None
    columns = actions.long().reshape(len(actions), len(sizes)).unbind(1)
    chosen = []
    for number, mask in zip(columns, masks.split(sizes, dim=1), strict=True):
        allowed = mask.gather(1, number.unsqueeze(1)).squeeze(1)
        chosen.append(torch.where(allowed, number, mask.byte().argmax(1)))
    return torch.stack(chosen, dim=1).view_as(actions).to(actions.dtype)


def random_allowed(masks: Tensor, space: spaces.Space[Any], generator: torch.Generator) -> Tensor:
    """Draw actions [B, ...] of a plain space, uniformly from those that masks [B, P] allow.

    Args:
        masks: on any device.
        space: one with choices.
        generator: on the CPU.
    """
    sizes = choice_sizes(space)
    assert sizes is not None
    # A random order of the choices, in which forbidden ones come last.
    order = torch.rand(masks.shape, generator=generator).to(masks.device) + masks
    numbers = [part.argmax(1) for part in order.split(sizes, dim=1)]
    drawn = torch.stack(numbers, dim=1).view(len(masks), *(space.shape or ()))
    return drawn.float() if isinstance(space, spaces.MultiBinary) else drawn


def method_of(env: Any) -> Callable[[], Any] | None:
    """Return the method of a Gymnasium environment, or of a wrapper in it, that returns masks; None if none.

    Raises:
        Exception: whatever the environment raises when it is asked for an attribute.
    """
    if not env.has_wrapper_attr(METHOD):
        return None
    method = env.get_wrapper_attr(METHOD)
    return method if callable(method) else None


def mask_of(env: Any, info: Mapping[str, Any]) -> Any:
    """Return the mask that a Gymnasium environment gives after `reset` or `step`; None if it gives none.

    Args:
        env: the environment; its method `action_masks` is asked first.
        info: what it returned; "action_mask" is read from it otherwise.
    """
    method = method_of(env)
    return info.get(INFO_KEY) if method is None else method()


def _array(value: Any) -> NDArray[Any] | None:
    """Return numbers or truth values as an array; None for anything else, such as arrays of several sizes."""
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "biuf" else None


def _components(mask: Any, space: spaces.Space[Any]) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a mask in the order of a space's components."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _components(mask[key], part)
    elif isinstance(space, spaces.Tuple):
        for one, part in zip(mask, space.spaces, strict=True):
            yield from _components(one, part)
    else:
        yield from _flat(mask)


def _flat(mask: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays of nested tuples."""
    nested = isinstance(mask, tuple | list) or (isinstance(mask, np.ndarray) and mask.dtype == object)
    if nested and any(isinstance(x, tuple | list) or np.ndim(x) for x in mask):
        for part in mask:
            yield from _flat(part)
    else:
        array = _array(mask)
        if array is None or not array.ndim:
            raise ValueError("no truth values")
        yield array


def _part_sizes(space: spaces.Space[Any], parts: list[NDArray[Any]]) -> list[int]:
    """Return the sizes that the arrays of `_components` must have.

    An array holds one component, or all those of a `MultiDiscrete` or `MultiBinary`.
    """
    sizes: list[int] = []
    for _, part in Actions(space).leaves:
        own = choice_sizes(part) or []
        whole = len(sizes) < len(parts) and parts[len(sizes)].shape[-1] == sum(own)
        sizes += [sum(own)] if whole else own
    return sizes


def _form(mask: Any) -> str:
    """Describe a mask in a few words."""
    array = _array(mask)
    return f"type {type(mask).__name__}" if array is None else f"shape {array.shape}"


def _listed(sizes: list[int]) -> str:
    shown = ", ".join(map(str, sizes[:8]))
    return f"{shown}, ..." if len(sizes) > 8 else shown

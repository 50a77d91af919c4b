"""Networks as shapes: built without memory, and without the second that torch needs to import for values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_)


class _WithoutValues(TorchFunctionMode):
    """Leave out what sets the values of new parameters.

    On the meta device such functions compute nothing, but the first of them lets torch import its
    decompositions: about 900 modules, in a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is torch.eye and not {"n", "m", "out"} & set(kwargs):
            return torch.empty(args if len(args) == 2 else args * 2, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build networks inside this context on the meta device, where parameters have no values."""
    with torch.device("meta"), _WithoutValues():
        yield

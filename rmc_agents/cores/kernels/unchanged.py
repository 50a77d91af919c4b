"""Checks that a module computes what its class defines, so that C and Triton may compute it from its weights.

Users can replace methods, in a subclass or in an instance, and register hooks. None of that changes weights.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as modules_of_torch

_GLOBAL_HOOKS = (
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
)
_FORWARDS = (nn.Linear.forward, nn.LayerNorm.forward)


def has_hooks(*modules: Any) -> bool:
    """Return whether a call of one of the modules runs anything but the `forward` of its class."""
    return any(getattr(modules_of_torch, name) for name in _GLOBAL_HOOKS) or any(map(_differs, modules))


def has_registered_hooks(*modules: Any) -> bool:
    """Return whether a call of one of the modules runs a hook."""
    return any(getattr(modules_of_torch, name) for name in _GLOBAL_HOOKS) or any(map(_is_hooked, modules))


def are_plain(*layers: Any) -> bool:
    """Return whether linear layers and layer norms compute what torch's classes do, and nothing else."""
    return not has_hooks(*layers) and all(type(layer).forward in _FORWARDS for layer in layers)


def replaces(module: Any, cls: type, *methods: str) -> bool:
    """Return whether a subclass of `cls`, or a patch of the module, replaces one of these methods."""
    own, patches = type(module), module.__dict__
    if own is cls:
        return any(name in patches for name in methods)
    return any(name in patches or getattr(own, name) is not getattr(cls, name) for name in methods)


def _differs(module: Any) -> bool:
    return "forward" in module.__dict__ or _is_hooked(module)


def _is_hooked(module: Any) -> bool:
    own = module.__dict__  # much faster than attributes of a module, and this runs in each step
    return bool(
        own["_forward_pre_hooks"]
        or own["_forward_hooks"]
        or own["_backward_pre_hooks"]
        or own["_backward_hooks"]
    )

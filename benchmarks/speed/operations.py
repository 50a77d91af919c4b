"""Counts of what code would do on a GPU: kernels, bytes, memory and waits, without a GPU.

The code runs on torch's meta device, whose tensors hold no numbers: there the package takes its branches for
GPUs, and sizes are real. Counted are the operations that torch dispatches, other than views.
"""

from __future__ import annotations

import contextlib
import sys
import types
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rmc_agents.cores import kernels
from rmc_agents.cores.kernels import gated_triton, rmc_triton, triton_common
from rmc_agents.rl.optimizer import FlatAdam
from rmc_agents.tree import upload

KERNELS = {
    "eye": 2,
    "masked_fill": 2,
    "native_layer_norm_backward": 2,
    "randperm": 6,
    "select_backward": 2,
    "slice_backward": 2,
    "sort": 8,
}
"""Kernels that an operation launches on CUDA, if more than one. From ATen's source, so good to some 10 %."""
NO_KERNEL = {"_unsafe_view", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "set_"}
"""Operations that launch nothing, besides views."""
COPIES = {"_to_copy", "copy_"}
PICKS = {"embedding", "gather", "index", "index_select"}
"""Operations that read only as much of their first argument as they return."""
SMALL_EMBEDDING, LARGE_EMBEDDING_KERNELS = 3072, 14
"""Number of rows up to which the gradient of an embedding is two kernels; above, rows are sorted first."""


@dataclass
class Count:
    """What the code in a `counting` context would do on a GPU."""

    kernels: int = 0
    bytes: int = 0
    """Inputs and outputs of each kernel, as if no cache helped."""
    peak_bytes: int = 0
    """Largest number of bytes that tensors made in the context held at once."""
    waits: int = 0
    """How often the host waits: it reads a tensor, or copies one to the device other than by `upload`."""
    operations: Counter[str] = field(default_factory=Counter)
    """Kernels by operation."""

    def launch(self, name: str, kernels: int, tensors: Iterable[Tensor]) -> None:
        """Count an operation on some tensors."""
        self.kernels += kernels
        self.operations[name] += kernels
        self.bytes += sum(map(num_bytes, tensors))


def num_bytes(x: Tensor) -> int:
    """Return the bytes that a tensor occupies; those of an expanded tensor count once."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


@contextlib.contextmanager
def counting(triton: bool = False) -> Iterator[Count]:
    """Count what the code in this context does on the meta device.

    Reading a meta tensor by `tolist` returns ones; any other read raises.

    Args:
        triton: let cores use their Triton kernels; each launch counts as one kernel.
    """
    count = Count()
    to_list = Tensor.tolist

    def read(tensor: Tensor) -> Any:
        if not tensor.is_meta:
            return to_list(tensor)
        count.waits += 1
        return to_list(torch.ones(tensor.shape, dtype=tensor.dtype, device="cpu"))

    take_step = FlatAdam.step

    def step(optimizer: FlatAdam, learning_rate: Tensor, skip: Tensor) -> Tensor:
        count.launch("_fused_adam_", 1, [optimizer.gradient, *optimizer.tensors, *optimizer.tensors])
        return take_step(optimizer, learning_rate, skip)  # which has no such kernel on the meta device

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "tolist", read))
        stack.enter_context(mock.patch.object(FlatAdam, "step", step))
        if triton:
            stack.enter_context(_counted_launches(count))
        stack.enter_context(_Mode(count))
        yield count


class _Mode(TorchDispatchMode):
    """Counts operations as they are dispatched, and follows storages until they are freed."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count, self.live = count, 0
        self.seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        results = _tensors(result)
        if all(not x.is_meta for x in results):  # work of the host
            return result
        if not func.is_view and name not in NO_KERNEL:
            given = _tensors((args, kwargs))
            if name in PICKS:
                given = [*results, *given[1:]]
            self.count.launch(name, _kernels(name, given), [*given, *results])
            if name in COPIES and any(not x.is_meta and x.ndim for x in given) and not _is_uploading():
                self.count.waits += 1
        for x in results:
            self._follow(x)
        return result

    def _follow(self, x: Tensor) -> None:
        """Add the storage of a tensor to the live ones, until it is freed."""
        storage = x.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if not x.is_meta or key in self.seen:
            return
        self.seen[key] = weakref.ref(storage, lambda _: self._free(key, size))
        self.live += size
        self.count.peak_bytes = max(self.count.peak_bytes, self.live)

    def _free(self, key: int, size: int) -> None:
        del self.seen[key]
        self.live -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _is_uploading() -> bool:
    """Return whether the running code was called by `upload`, which copies without a wait."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not upload.__code__:
        frame = frame.f_back
    return frame is not None


def _kernels(name: str, given: list[Tensor]) -> int:
    """Return the number of kernels that an operation launches."""
    if name == "embedding_dense_backward":
        return 2 if given[1].numel() <= SMALL_EMBEDDING else LARGE_EMBEDDING_KERNELS
    return 1 if name.startswith("_foreach") else KERNELS.get(name, 1)


@contextlib.contextmanager
def _counted_launches(count: Count) -> Iterator[None]:
    """Let cores use their Triton kernels on the meta device; what they would launch is counted."""
    with contextlib.ExitStack() as stack:
        for name in ("rmc_triton_kernels", "gated_triton_kernels"):
            module = _Kernels(name, count)
            full_name = f"{kernels.__name__}.{name}"
            stack.callback(_restore_module, full_name, sys.modules.get(full_name))
            sys.modules[full_name] = module
            # An import reads the package's attribute first, which an import of the real module has set.
            stack.enter_context(mock.patch.object(kernels, name, module, create=True))
        for module in (rmc_triton, gated_triton):
            stack.enter_context(mock.patch.object(module, "_failure", return_value=None))
        stack.enter_context(mock.patch.object(triton_common, "DEVICE_TYPES", {"meta"}))
        yield


def _restore_module(name: str, module: types.ModuleType | None) -> None:
    if module is None:
        del sys.modules[name]
    else:
        sys.modules[name] = module


class _Kernels(types.ModuleType):
    """Stand-in for a module of Triton kernels: `module.kernel[grid](*args)` counts a launch."""

    def __init__(self, name: str, count: Count) -> None:
        super().__init__(name)
        self._count = count

    def __getattr__(self, name: str) -> Any:
        def launch(*args: Any, **_constants: Any) -> None:
            self._count.launch(f"triton {name}", 1, _tensors(args))

        return defaultdict(lambda: launch)

"""Calls into the compiled library: argument checks, tensor addresses and errors."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmc_agents.cores.kernels.build import disable, library

_PLAIN = (Tensor, torch.nn.Parameter)
_ALL_FLOATS = {(True, torch.float32, torch.device("cpu"), torch.strided)}
_IDS = (Tensor, torch.int32, torch.device("cpu"), 2)
_ALL_FLAGS = (Tensor, torch.bool, torch.device("cpu"))


def eager(device: torch.device) -> bool:
    """Return whether operations run immediately and in the precision of their arguments.

    False while compiling, tracing, under autocast and inside functorch transforms.
    """
    kind = device.type
    return (
        not torch.compiler.is_compiling()
        and not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind))
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
    )


def agrees(matches_pytorch: Callable[[], bool]) -> bool:
    """Return whether there is a library, and a comparison of its results with PyTorch's succeeds.

    If it fails, no kernel is used any more.

    Args:
        matches_pytorch: makes the comparison; gradients are enabled for it.
    """
    if library() is None:
        return False
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with torch.inference_mode(False), torch.enable_grad():
            if matches_pytorch():
                return True
    finally:
        torch.set_default_dtype(dtype)
    disable("the results of the compiled kernels differ from PyTorch's")
    return False


def readable(floats: Iterable[Tensor | None], flags: Iterable[Tensor | None]) -> bool:
    """Return whether the library can read these tensors: plain, on the CPU, float32 and bool.

    The memory of subclasses, and of views with a pending negation, does not hold the tensor's values.
    """
    given = [tensor for tensor in floats if tensor is not None]
    return (
        {(type(t) in _PLAIN, t.dtype, t.device, t.layout) for t in given} == _ALL_FLOATS
        and all((type(t), t.dtype, t.device) == _ALL_FLAGS for t in flags if t is not None)
        and not any(tensor.is_neg() for tensor in given)
    )


def readable_ids(ids: Tensor | None) -> bool:
    """Return whether the library can read these ids [T, B] of rows; it can do without."""
    return ids is None or (type(ids), ids.dtype, ids.device, ids.ndim) == _IDS


def addresses(tensors: Sequence[Tensor | None], alive: list[Any]) -> list[int | None]:
    """Return the addresses of the tensors, copied where they are not contiguous.

    The tensors are appended to `alive`, which the caller must keep until the call has returned.
    """
    plain = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    alive += plain
    return [None if tensor is None else tensor.data_ptr() for tensor in plain]


def rows_of(tensor: Tensor, alive: list[Any]) -> list[int]:
    """Return the addresses of `tensor[0]`, `tensor[1]` and so on; the tensor is appended to `alive`."""
    alive.append(tensor)
    first, size = tensor.data_ptr(), tensor.stride(0) * tensor.element_size()
    return [first + i * size for i in range(len(tensor))]


MULTIPLICATIONS_PER_THREAD = 1e7
"""Smallest work of a call for several threads: starting one costs a few million multiplications."""


class Share(NamedTuple):
    """How a call is divided: into groups of rows, held in the lanes of vectors, which threads share."""

    threads: int
    lanes: int
    """8 or 16; without effect where the kernels exist with one number of lanes only."""


def share(rows: int, multiplications: float) -> Share:
    """Return the division that takes the least time.

    The time is that of the thread with most groups. The choice depends only on the sizes, the number of
    threads and the type of processor, so that a run can be repeated.
    """
    threads = torch.get_num_threads() if multiplications >= MULTIPLICATIONS_PER_THREAD else 1
    narrow = narrow_percent()
    time_16 = 100 * math.ceil(math.ceil(rows / 16) / threads)
    time_8 = narrow * math.ceil(math.ceil(rows / 8) / threads)
    return Share(threads, 8 if 0 < time_8 < time_16 else 16)


def lane_counts() -> tuple[int, ...]:
    """Return the numbers of lanes that a call can ask for."""
    return (16, 8) if narrow_percent() else (16,)


def narrow_percent() -> int:
    """Return the time of a group of 8 lanes in percent of that of 16 lanes; 0 if there is no choice."""
    kernels = library()
    return 0 if kernels is None else int(kernels.narrow_percent())


def run(function: str, call: ctypes.Structure) -> int:
    """Call a function of the library and return its result.

    Raises:
        MemoryError: the function could not allocate memory.
    """
    return Prepared(function, call)()


class Prepared:
    """A function of the library with its arguments, to be called repeatedly.

    Between calls, the arguments can be changed, and the contents of tensors, but tensors must stay in place.

    Args:
        function: its name.
        arguments: its structure.
        alive: objects whose addresses are among the arguments.

    Raises:
        MemoryError: in a call, the function could not allocate memory.
    """

    def __init__(self, function: str, arguments: ctypes.Structure, alive: Sequence[Any] = ()) -> None:
        self.name, self.arguments, self.alive = function, arguments, alive
        self._entry = getattr(library(), function)
        self._entry.restype = ctypes.c_long
        self._reference = ctypes.byref(arguments)

    def __call__(self) -> int:
        result = self._entry(self._reference)
        if result < 0:
            raise MemoryError(f"{self.name} ran out of memory")
        return result


class PreparedPasses:
    """Forward and backward passes of a core over sequences of the same sizes, without autograd.

    Args:
        kernel: name before that of the functions, `_forward` and `_backward`.
        arguments: their structure, with a field `n`, the number of inputs.
        alive: objects whose addresses are among the arguments.
        outputs: what a forward pass writes.
        d_inputs: what a backward pass writes.
        upstream: field of the gradient of the outputs.
    """

    def __init__(
        self,
        kernel: str,
        arguments: Any,
        alive: Sequence[Any],
        outputs: Tensor,
        d_inputs: Tensor,
        upstream: str,
    ) -> None:
        self.outputs, self.d_inputs = outputs, d_inputs
        self._arguments, self._upstream = arguments, upstream
        self._forward = Prepared(f"{kernel}_forward", arguments, alive)
        self._backward = Prepared(f"{kernel}_backward", arguments, alive)

    def forward(self, num_inputs: int) -> Tensor:
        """Read sequences of the first `num_inputs` inputs; return the outputs."""
        self._arguments.n = num_inputs
        self._forward()
        return self.outputs

    def backward(self, d_outputs: Tensor) -> Tensor:
        """Return the gradients of the inputs [n, I] for contiguous gradients of the outputs."""
        setattr(self._arguments, self._upstream, d_outputs.data_ptr())
        self._backward()
        return self.d_inputs


def in_place(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether `addresses` returns those of the tensors themselves, not of copies."""
    return all(tensor is None or tensor.is_contiguous() for tensor in tensors)

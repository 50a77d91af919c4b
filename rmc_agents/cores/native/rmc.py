"""A whole sequence of a one-block RMC in C: `rmc.c` as one autograd node.

Axes as in `rmc_sequence`.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmc_agents.cores.native.build import library

if TYPE_CHECKING:
    from rmc_agents.cores.rmc_sequence import Weights

_SIZES = ("T", "B", "N", "A", "K", "V", "G", "layers", "threads")
_WEIGHTS = (
    *("qkv", "qkv_bias", "qkv_norm", "qkv_norm_bias", "attention_norm", "attention_norm_bias"),
    *("mlp_norm", "mlp_norm_bias", "gates"),
)
_POINTERS = (
    *("x_qkv", "x_gates", "memory", "fresh", "starts", *_WEIGHTS, "mlp", "memories", "last", "saved"),
    *(
        "d_memories",
        "d_last",
        "d_memory",
        "d_x_qkv",
        "d_x_gates",
        *(f"d_{name}" for name in _WEIGHTS),
        "d_mlp",
    ),
)


class _Call(ctypes.Structure):
    """`struct call` in rmc.h: sizes, then addresses."""

    _fields_ = (
        *((name, ctypes.c_long) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


def usable(
    x_qkv: Tensor,
    x_gates: Tensor | None,
    memory: Tensor,
    fresh: Tensor,
    starts: Tensor | None,
    weights: Weights,
    num_heads: int,
) -> bool:
    """Whether the library can do `rmc_sequence` with these arguments.

    It reads memory by its address, so everything must be as it expects; what is not goes to PyTorch, which
    either knows how to do it or how to complain.
    """
    if x_qkv.device.type != "cpu" or x_qkv.ndim != 3 or fresh.ndim != 2:
        return False
    if torch._C._get_tracing_state() is not None or torch._C._are_functorch_transforms_active():
        return False
    (T, B, F), (N, D) = x_qkv.shape, fresh.shape
    G2 = 0 if weights.gates is None else weights.gates.shape[0]
    expected: list[tuple[Tensor, tuple[int, ...]]] = [
        (x_qkv, (T, B, F)),
        (memory, (B, N, D)),
        (fresh, (N, D)),
        (weights.qkv, (F, D)),
        *((vector, (F,)) for vector in weights[1:4]),
        *((vector, (D,)) for vector in weights[4:8]),
        *((p, (D,) if i % 2 else (D, D)) for i, p in enumerate(weights.mlp)),
    ]
    if weights.gates is not None and x_gates is not None:
        expected += [(x_gates, (T, B, G2)), (weights.gates, (G2, D))]
    return (
        T * B > 0
        and D % num_heads == 0
        and F > D
        and (F - D) % (2 * num_heads) == 0
        and G2 in (0, 2, 2 * D)
        and (x_gates is None) == (weights.gates is None)
        and (starts is None or _is(starts, (T, B), torch.bool))
        and all(_is(tensor, shape, torch.float32) for tensor, shape in expected)
        and library() is not None
    )


def _is(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """A plain tensor in the CPU's memory: no subclass, which may have none of its own."""
    return (
        tensor.dtype == dtype
        and tensor.shape == shape
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )


def native_sequence(
    x_qkv: Tensor,
    x_gates: Tensor | None,
    memory: Tensor,
    fresh: Tensor,
    starts: Tensor | None,
    weights: Weights,
    num_heads: int,
) -> tuple[Tensor, Tensor]:
    """As `rmc_sequence`, for what is `usable`."""
    *single, mlp = weights
    arguments = x_qkv, x_gates, memory, fresh, starts, *single, *mlp
    if torch.is_grad_enabled():
        return _Sequence.apply(num_heads, *arguments)
    return _forward(num_heads, *arguments, keep=False)[:2]


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        num_heads: int,
        x_qkv: Tensor,
        x_gates: Tensor | None,
        memory: Tensor,
        fresh: Tensor,
        *others: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        keep = any(ctx.needs_input_grad)
        memories, last, saved = _forward(num_heads, x_qkv, x_gates, memory, fresh, *others, keep=keep)
        ctx.num_heads = num_heads
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(memories, saved, memory, fresh, *others)
        return memories, last

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_memories: Tensor | None, d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return None, *_backward(ctx.num_heads, d_memories, d_last, *ctx.saved_tensors)


def _forward(
    num_heads: int,
    x_qkv: Tensor,
    x_gates: Tensor | None,
    memory: Tensor,
    fresh: Tensor,
    *others: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The memories after each input, the last one, and what the backward pass needs if that is to be kept."""
    T = x_qkv.shape[0]
    memories, last = memory.new_empty(T, *memory.shape), memory.new_empty(memory.shape)
    call, alive = _prepare(num_heads, memories, memory, fresh, *others)
    _point(call, alive, x_qkv=x_qkv, x_gates=x_gates, memories=memories, last=last)
    saved = None
    if keep:
        saved = memory.new_empty(_run("rmc_saved", call))
        _point(call, alive, saved=saved)
    if _run("rmc_forward", call) != 0:
        raise MemoryError("the RMC's forward pass ran out of memory")
    return memories, last, saved


def _backward(
    num_heads: int,
    d_memories: Tensor | None,
    d_last: Tensor | None,
    memories: Tensor,
    saved: Tensor,
    memory: Tensor,
    fresh: Tensor,
    starts: Tensor | None,
    *weights: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of x_qkv, x_gates, memory, fresh, starts and all weights."""
    call, alive = _prepare(num_heads, memories, memory, fresh, starts, *weights)
    _point(call, alive, memories=memories, saved=saved, d_memories=d_memories, d_last=d_last)
    T, B, *_ = memories.shape
    qkv, gates = weights[0], weights[8]
    assert qkv is not None
    d_memory, d_x_qkv = torch.empty_like(memories[0]), memory.new_empty(T, B, qkv.shape[0])
    d_x_gates = None if gates is None else memory.new_empty(T, B, gates.shape[0])
    d_weights = [None if w is None else memory.new_empty(w.shape) for w in weights]
    _point(call, alive, d_memory=d_memory, d_x_qkv=d_x_qkv, d_x_gates=d_x_gates)
    _point_weights(call, alive, "d_", d_weights)
    if _run("rmc_backward", call) != 0:
        raise MemoryError("the RMC's backward pass ran out of memory")
    return [d_x_qkv, d_x_gates, d_memory, None, None, *d_weights]


def _prepare(
    num_heads: int,
    memories: Tensor,
    memory: Tensor,
    fresh: Tensor,
    starts: Tensor | None,
    *weights: Tensor | None,
) -> tuple[_Call, list[Any]]:
    """A call with what both passes read, and a list of what must live as long as the call."""
    T, B, N, D = memories.shape
    qkv, gates, V = weights[0], weights[8], D // num_heads
    assert qkv is not None
    K = (qkv.shape[0] // num_heads - V) // 2
    G = 0 if gates is None else gates.shape[0] // 2
    call = _Call(T, B, N, num_heads, K, V, G, (len(weights) - 9) // 2, torch.get_num_threads())
    alive: list[Any] = []
    _point(call, alive, memory=memory, fresh=fresh, starts=starts)
    _point_weights(call, alive, "", weights)
    return call, alive


def _point_weights(call: _Call, alive: list[Any], prefix: str, weights: Any) -> None:
    for name, weight in zip(_WEIGHTS, weights, strict=False):
        _point(call, alive, **{prefix + name: weight})
    mlp = [p.contiguous() for p in weights[len(_WEIGHTS) :]]
    addresses = (ctypes.c_void_p * len(mlp))(*(p.data_ptr() for p in mlp))
    setattr(call, prefix + "mlp", ctypes.addressof(addresses))
    alive += mlp, addresses


def _point(call: _Call, alive: list[Any], **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None:
            plain = tensor.contiguous()
            setattr(call, name, plain.data_ptr())
            alive.append(plain)


def _run(function: str, call: _Call) -> int:
    return getattr(library(), function)(ctypes.byref(call))

"""Linear recurrences y[t] = a[t] y[t - 1] + b[t] over whole sequences.

Axes: T time, and any others, the same for all tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_scan(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """Return all y [T, ...] of y[t] = a[t] * y[t - 1] + b[t].

    On a CPU the steps are one after the other, each one operation; elsewhere T steps take log2(T) operations
    on all of them.

    Args:
        a: [T, ...] factors, real or complex; 0 where a new sequence starts, so that earlier y do not matter.
        b: [T, ...].
        first: [...] y before the first step.
    """
    return _Scan.apply(a, b, first)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        y = _scanned(a, b, first)
        ctx.save_for_backward(a, first, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        a, first, y = ctx.saved_tensors
        # The gradient runs backwards: g[t] = d_y[t] + conj(a[t + 1]) g[t + 1].
        factors = torch.cat([torch.zeros_like(a[:1]), a[1:].flip(0)]).conj().resolve_conj()
        d_b = _scanned(factors, d_y.flip(0), torch.zeros_like(first)).flip(0)
        earlier = torch.cat([first.unsqueeze(0), y[:-1]])
        return d_b * earlier.conj(), d_b, a[0].conj() * d_b[0]


def _scanned(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    return (_in_steps if a.device.type == "cpu" else _in_rounds)(a, b, first)


def _in_steps(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    y = torch.empty_like(b)
    last, has_zeros = first, (a == 0).flatten(1).any(1).tolist()
    for t, some in enumerate(has_zeros):
        last = torch.where(a[t] == 0, 0, last) if some else last  # 0 * inf is not 0
        last = torch.addcmul(b[t], a[t], last, out=y[t])
    return y


def _in_rounds(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """Scan in log2(T) rounds (Hillis and Steele 1986).

    After the round of step d, y[t] holds what the latest 2 d steps add, and a[t] their factors' product.
    """
    y = torch.cat([b[:1] + torch.where(a[:1] == 0, 0, a[:1] * first), b[1:]])
    d = 1
    while d < len(y):
        y = torch.cat([y[:d], y[d:] + torch.where(a[d:] == 0, 0, a[d:] * y[:-d])])
        a = torch.cat([a[:d], a[d:] * a[:-d]])
        d *= 2
    return y

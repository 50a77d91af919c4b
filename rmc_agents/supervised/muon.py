"""Muon, an optimiser of matrices: momentum whose singular values are all set to about 1 before each step.

Source: K. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. The update is that of
`torch.optim.Muon`, which orthogonalises in bfloat16: many times slower than float32 on a CPU without
instructions for bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Orthogonalization = Literal["float32", "bfloat16"]
"""Precision of the Newton-Schulz iteration."""

COEFFICIENTS = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
MOMENTUM = 0.95
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for parameters that are matrices [M, N].

    Args:
        matrices: the parameters.
        lr: learning rate; a step changes a square matrix by about this spectral norm.
        weight_decay: share of the parameters, times `lr`, that a step takes away.
        orthogonalization: precision of the orthogonalisation. torch has bfloat16.

    Raises:
        ValueError: a parameter that is no matrix, or an unknown precision.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.1,
        orthogonalization: Orthogonalization = "float32",
    ) -> None:
        check_precision(orthogonalization)
        self.dtype = getattr(torch, orthogonalization)
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay})
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]
        if shapes:
            raise ValueError(f"Muon optimises matrices, got parameters of shapes {shapes}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update the matrices that have a gradient; return the loss of `closure`, which computes them."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            lr, weight_decay = group["lr"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - MOMENTUM)
                direction = orthogonalized(parameter.grad.lerp(momentum, MOMENTUM), self.dtype)
                m, n = parameter.shape
                parameter.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr * max(1, m / n) ** 0.5)
        return loss


def check_precision(orthogonalization: str) -> None:
    """Raise ValueError unless this is an `Orthogonalization`."""
    if orthogonalization not in get_args(Orthogonalization):
        raise ValueError(
            f"orthogonalization must be one of {get_args(Orthogonalization)}, got {orthogonalization!r}"
        )


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Return U S V^T for a matrix [M, N] = U D V^T, with singular values S from 0.7 to 1.2.

    Each iteration applies the polynomial a x + b x^3 + c x^5 to the singular values x.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix.to(dtype)
    x = x if wide else x.T
    x = x / x.norm().clamp(min=EPS)  # singular values of at most 1
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T

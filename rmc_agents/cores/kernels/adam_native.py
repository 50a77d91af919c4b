"""Clipping and a step of Adam on one flat tensor in C: `c/adam.c`."""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from rmc_agents.cores.kernels.call import Prepared, agrees

BETA1, BETA2 = 0.9, 0.999


class Arguments(NamedTuple):
    """Tensors of a step, in the order of `struct call` in adam.c; float32 and contiguous."""

    learning_rate: Tensor
    """Scalar."""
    skip: Tensor
    """Scalar; 1 for no step."""
    gradient: Tensor
    """[n]."""
    values: Tensor
    """[n], changed in place, as is all that follows."""
    exp_avg: Tensor
    """[n]."""
    exp_avg_sq: Tensor
    """[n]."""
    steps: Tensor
    """Scalar: the number of steps so far."""


class _Call(ctypes.Structure):
    """`struct call` of adam.c."""

    _fields_ = (
        ("n", ctypes.c_long),
        *((name, ctypes.c_double) for name in ("beta1", "beta2", "eps", "max_grad_norm")),
        *((name, ctypes.c_void_p) for name in (*Arguments._fields, "norm")),
    )


def usable(a: Arguments) -> bool:
    """Return whether the library can take this step."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in a) and works()
    )


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its steps match the equations of Adam."""
    return agrees(_matches_pytorch)


def _matches_pytorch() -> bool:
    """Compare two steps, one of them clipped, with the equations in PyTorch.

    Not with `torch.optim.Adam`, whose import takes a second.
    """
    size, rate, eps, limit = 1000, 0.01, 1e-5, 0.5
    values = torch.arange(size, dtype=torch.float32, device="cpu").sin()
    expected, mean, squares = values.clone(), torch.zeros_like(values), torch.zeros_like(values)
    learning_rate, skip, steps = (torch.tensor(x, device="cpu") for x in (rate, 0.0, 0.0))
    exp_avg, exp_avg_sq = torch.zeros_like(values), torch.zeros_like(values)
    for step, scale in enumerate((1.0, 0.01), 1):
        gradient = scale * torch.arange(size, dtype=torch.float32, device="cpu").cos()
        norm = gradient.norm()
        clipped = gradient * (limit / (norm + 1e-6)).clamp(max=1)
        mean, squares = torch.lerp(clipped, mean, BETA1), torch.lerp(clipped.square(), squares, BETA2)
        expected -= rate * mean / (1 - BETA1**step) / ((squares / (1 - BETA2**step)).sqrt() + eps)
        arguments = Arguments(learning_rate, skip, gradient, values, exp_avg, exp_avg_sq, steps)
        adam = PreparedAdam(arguments, eps=eps, max_grad_norm=limit)
        if not torch.allclose(adam.step(), norm, rtol=1e-4):
            return False
    return steps.item() == 2 and torch.allclose(values, expected, rtol=1e-4, atol=1e-6)


class PreparedAdam:
    """Steps on the same tensors.

    Args:
        a: the tensors.
        eps, max_grad_norm: as in `rl.optimizer.FlatAdam`.
    """

    def __init__(self, a: Arguments, *, eps: float, max_grad_norm: float) -> None:
        self.norm = torch.empty((), dtype=torch.float32, device="cpu")
        sizes = a.gradient.numel(), BETA1, BETA2, eps, max_grad_norm
        addresses = (t.data_ptr() for t in (*a, self.norm))
        self._step = Prepared("adam_step", _Call(*sizes, *addresses), (*a, self.norm))

    def step(self) -> Tensor:
        """Take one step; return the gradient's norm before it was clipped, valid until the next step.

        A gradient whose norm is not finite changes nothing.
        """
        self._step()
        return self.norm

"""Adam on one flat tensor that holds all parameters, with the gradient clipped before each step.

One tensor instead of some thirty: a step is a few operations, and processes sum their gradients in one call.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rmc_agents.cores.kernels import adam_native
from rmc_agents.cores.kernels.adam_native import BETA1, BETA2, PreparedAdam
from rmc_agents.rl.ppo import PPOConfig

ALIGNMENT = 16
"""Floats at a multiple of which each parameter begins: whole cache lines."""


class FlatAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) after clipping the gradient's norm, as `torch.optim.Adam` does.

    The parameters become views of one tensor, and their gradients views of another: move the network to its
    device first. Gradients are set to zero, never to None. Call `attach` after code that may have replaced
    either.

    Args:
        parameters: float32, on one device.
        eps: epsilon.
        max_grad_norm: largest norm of the gradient; longer ones are scaled down to it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, eps: float, max_grad_norm: float) -> None:
        self.parameters = list(parameters)
        self.eps, self.max_grad_norm = eps, max_grad_norm
        starts, size = [], 0
        for p in self.parameters:
            starts.append(size)
            size += -(-p.numel() // ALIGNMENT) * ALIGNMENT
        device = self.parameters[0].device
        self.values = torch.zeros(size, device=device)
        self.gradient, self.exp_avg, self.exp_avg_sq = (torch.zeros_like(self.values) for _ in range(3))
        self.steps = torch.zeros((), device=device)
        """Number of steps, float32 as in `torch.optim.Adam`."""
        self._starts = starts
        self.attach()

    @torch.no_grad()
    def attach(self) -> None:
        """Make views of all parameters and gradients that are none, as after `network.zero_grad()`.

        The values of the parameters are kept. Frozen parameters lose their moments, which would move them.

        Raises:
            ValueError: a parameter has another type or device.
        """
        flat = self.values, self.gradient, self.exp_avg, self.exp_avg_sq
        for p, values, gradient, *moments in zip(self.parameters, *map(self._views, flat), strict=True):
            if (p.dtype, p.device) != (values.dtype, values.device):
                found, expected = (f"{x.dtype} on {x.device}".removeprefix("torch.") for x in (p, values))
                raise ValueError(
                    f"a parameter of the agent is {found}, expected {expected}: convert or move an agent "
                    "before you make its trainer, and train it in float32"
                )
            if not _same_memory(p, values):
                values.copy_(p)
                p.data = values
                _pickle_alone(p)
            if p.grad is None or not _same_memory(p.grad, gradient):
                p.grad = gradient
            if not p.requires_grad:
                for moment in moments:
                    moment.zero_()

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Return the part of each parameter, in its shape."""
        parts = zip(self.parameters, self._starts, strict=True)
        return [flat[start : start + p.numel()].view(p.shape) for p, start in parts]

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self, learning_rate: Tensor, skip: Tensor) -> Tensor:
        """Take one step, and return the gradient's norm before it was clipped.

        A gradient that is not finite changes nothing.

        Args:
            learning_rate: a scalar on the parameters' device.
            skip: a float scalar; 1 for no step.
        """
        prepared = self.prepare(learning_rate, skip)
        if prepared is not None:
            return prepared.step()
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        found_inf = torch.maximum((~norm.isfinite()).float(), skip)
        self.steps.add_(1 - found_inf)
        if self.values.device.type != "meta":
            torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
                [self.values],
                [self.gradient],
                [self.exp_avg],
                [self.exp_avg_sq],
                [],
                [self.steps],
                lr=learning_rate,
                beta1=BETA1,
                beta2=BETA2,
                weight_decay=0.0,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=found_inf,
            )
        return norm

    def prepare(self, learning_rate: Tensor, skip: Tensor) -> PreparedAdam | None:
        """Return what takes steps as `step` does, in less time; None if only PyTorch can take them."""
        state = self.gradient, self.values, self.exp_avg, self.exp_avg_sq, self.steps
        arguments = adam_native.Arguments(learning_rate, skip, *state)
        if not adam_native.usable(arguments):
            return None
        return adam_native.PreparedAdam(arguments, eps=self.eps, max_grad_norm=self.max_grad_norm)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights and both moments of all parameters, each as one tensor."""
        return self.values, self.exp_avg, self.exp_avg_sq

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameters, as a `torch.optim.Optimizer` lists them."""
        return [{"params": self.parameters}]

    @property
    def state(self) -> dict[nn.Parameter, dict[str, Tensor]]:
        """Moments of each parameter, as `torch.optim.Adam` names them; empty before the first step."""
        if not bool(self.steps):
            return {}
        parts = zip(self.parameters, self._views(self.exp_avg), self._views(self.exp_avg_sq), strict=True)
        return {p: {"step": self.steps, "exp_avg": m, "exp_avg_sq": v} for p, m, v in parts}

    def state_dict(self) -> dict[str, Any]:
        """Return the moments in the format of `torch.optim.Adam`."""
        return {"state": dict(enumerate(self.state.values()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the moments of a `state_dict`, its own or that of `torch.optim.Adam`.

        In the latter, parameters that were frozen for a while took fewer steps; the largest number counts.
        """
        moments = state["state"]
        self.steps.fill_(max((float(each["step"]) for each in moments.values()), default=0.0))
        for name, flat in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            flat.zero_()
            for i, part in enumerate(self._views(flat) if moments else []):
                part.copy_(moments[i][name])


def _pickle_alone(parameter: nn.Parameter) -> None:
    """Let pickle write a parameter without the other parameters in its memory, as it does otherwise."""
    this = weakref.ref(parameter)

    def reduce(protocol: int) -> tuple[Any, ...]:
        own = this()
        assert own is not None
        return nn.Parameter, (own.detach().clone(), own.requires_grad)

    parameter.__reduce_ex__ = reduce  # pyright: ignore[reportAttributeAccessIssue]


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return not a.is_meta and a.data_ptr() == b.data_ptr() and a.stride() == b.stride()


def make_optimizer(agent: nn.Module, config: PPOConfig) -> FlatAdam:
    """Return the optimizer of all parameters of an agent."""
    return FlatAdam(agent.parameters(), eps=config.adam_eps, max_grad_norm=config.max_grad_norm)

"""Action heads: distributions over the actions of a Gymnasium space.

A head computes the parameters of a distribution from features; its other methods are pure functions of those
parameters and never synchronise with the host, so that they run on a GPU and compile.
Axes: `...` any number of leading axes (time, batch), F features, P parameters of the distribution.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.spaces.reading import code_values, owners


class ActionHead(nn.Module, ABC):
    """A distribution over actions [..., *action_shape] with parameters [..., P]."""

    action_shape: tuple[int, ...]
    """Shape of one action."""
    action_dtype: torch.dtype
    """Type of `sample` and `mode`."""
    encoding_size: int
    """Width of the vectors that `encode` returns."""

    def __init__(self, input_size: int, parameter_size: int, action_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.action_shape = action_shape
        self.linear = nn.Linear(input_size, parameter_size)
        # A small gain makes the first policy nearly uniform (Andrychowicz et al. 2021).
        nn.init.orthogonal_(self.linear.weight, gain=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the parameters [..., P] of the distribution from features [..., F]."""
        return self.linear(features)

    def _rows(self, actions: Tensor) -> Tensor:
        """Return actions [..., *action_shape] as vectors [..., n]."""
        leading = actions.shape[: actions.ndim - len(self.action_shape)]
        return actions.reshape(*leading, math.prod(self.action_shape))

    def _shaped(self, rows: Tensor) -> Tensor:
        """Return vectors [..., n] as actions [..., *action_shape]; the inverse of `_rows`."""
        return rows.reshape(*rows.shape[:-1], *self.action_shape)

    @abstractmethod
    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions from the distribution."""

    @abstractmethod
    def mode(self, parameters: Tensor) -> Tensor:
        """Return the most likely actions."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Return log p(action) [...], in nats."""

    @abstractmethod
    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the entropy of the distribution [...], in nats."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Return actions as vectors [..., encoding_size], the input of a network."""


class CategoricalHead(ActionHead):
    """Head of `Discrete` and `MultiDiscrete`: an independent softmax for each component of the action."""

    codes: Tensor
    """[P] the value that each logit stands for."""
    component: Tensor
    """[P] the component of the action that each logit belongs to."""

    def __init__(self, input_size: int, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else [int(n) for n in space.nvec.flat]
        super().__init__(input_size, sum(sizes), space.shape or ())
        if np.any(space.start):
            raise ValueError(f"actions must count from 0, got {space}")
        self.sizes = sizes
        self.action_dtype = torch.int64
        self.encoding_size = sum(sizes)
        self.register_buffer("codes", torch.tensor(code_values(sizes)), persistent=False)
        self.register_buffer(
            "component",
            torch.tensor(owners(sizes)),
            persistent=False,
        )

    def _split(self, parameters: Tensor) -> list[Tensor]:
        return [torch.log_softmax(logits, dim=-1) for logits in parameters.split(self.sizes, dim=-1)]

    def _join(self, numbers: list[Tensor]) -> Tensor:
        return self._shaped(torch.stack(numbers, dim=-1)) if self.action_shape else numbers[0]

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # The Gumbel-max trick, argmax of log p - log(exponential noise), because it takes a generator.
        noise = torch.empty_like(parameters, dtype=torch.float32).exponential_(generator=generator)
        scores = parameters - noise.log()
        return self._join([s.argmax(dim=-1) for s in scores.split(self.sizes, dim=-1)])

    def mode(self, parameters: Tensor) -> Tensor:
        return self._join([logits.argmax(dim=-1) for logits in parameters.split(self.sizes, dim=-1)])

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        numbers = self._rows(actions)
        chosen = [
            log_p.gather(-1, number.unsqueeze(-1)).squeeze(-1)
            for log_p, number in zip(self._split(parameters), numbers.unbind(-1), strict=True)
        ]
        return torch.stack(chosen).sum(0) if len(chosen) > 1 else chosen[0]

    def entropy(self, parameters: Tensor) -> Tensor:
        entropies = [-(log_p.exp() * log_p).sum(-1) for log_p in self._split(parameters)]
        return torch.stack(entropies).sum(0) if len(entropies) > 1 else entropies[0]

    def encode(self, actions: Tensor) -> Tensor:
        numbers = self._rows(actions)
        return (numbers.index_select(-1, self.component) == self.codes).to(self.linear.weight.dtype)


class BernoulliHead(ActionHead):
    """Head of `MultiBinary`: an independent Bernoulli distribution for each bit."""

    def __init__(self, input_size: int, space: spaces.MultiBinary) -> None:
        super().__init__(input_size, math.prod(space.shape), space.shape)
        self.action_dtype = torch.float32
        self.encoding_size = math.prod(space.shape)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.empty_like(parameters).uniform_(generator=generator)
        return self._shaped((uniform < torch.sigmoid(parameters)).float())

    def mode(self, parameters: Tensor) -> Tensor:
        return self._shaped((parameters > 0).float())

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return (self._rows(actions) * parameters - nn.functional.softplus(parameters)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        return (nn.functional.softplus(parameters) - torch.sigmoid(parameters) * parameters).sum(-1)

    def encode(self, actions: Tensor) -> Tensor:
        return self._rows(actions).to(self.linear.weight.dtype)


class GaussianHead(ActionHead):
    """Head of `Box`: a diagonal normal whose standard deviation is learned and does not depend on the state.

    Actions outside the box are clipped by the environment, not here, so `log_prob` is that of the normal.
    """

    def __init__(self, input_size: int, space: spaces.Box) -> None:
        super().__init__(input_size, math.prod(space.shape), space.shape)
        self.log_std = nn.Parameter(torch.zeros(math.prod(space.shape)))
        self.action_dtype = torch.float32
        self.encoding_size = math.prod(space.shape)

    def forward(self, features: Tensor) -> Tensor:
        mean = self.linear(features)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, log_std = parameters.chunk(2, dim=-1)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return self._shaped(mean + log_std.exp() * noise)

    def mode(self, parameters: Tensor) -> Tensor:
        return self._shaped(parameters.chunk(2, dim=-1)[0])

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, dim=-1)
        z = (self._rows(actions) - mean) * (-log_std).exp()
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        log_std = parameters.chunk(2, dim=-1)[1]
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def encode(self, actions: Tensor) -> Tensor:
        return self._rows(actions).to(self.linear.weight.dtype)


def make_action_head(input_size: int, space: spaces.Space[Any]) -> ActionHead:
    """Build the head of an action space.

    Args:
        input_size: F, number of features.
        space: a plain action space: Discrete or MultiDiscrete (counting from 0), MultiBinary or Box.

    Raises:
        ValueError: any other space.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return CategoricalHead(input_size, space)
    if isinstance(space, spaces.MultiBinary):
        return BernoulliHead(input_size, space)
    if isinstance(space, spaces.Box):
        return GaussianHead(input_size, space)
    raise ValueError(f"no action head for {space}; use Discrete, MultiDiscrete, MultiBinary or Box")

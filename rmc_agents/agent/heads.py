"""Action heads: distributions over the actions of a Gymnasium space.

A head computes the parameters of a distribution from features; its other methods are pure functions of those
parameters and never synchronise with the host, so that they run on a GPU and compile.
Axes: `...` any number of leading axes (time, batch), F features, P parameters of the distribution.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.spaces.masks import MASKS_ARE_FOR
from rmc_agents.spaces.reading import code_values, owners

FORBIDDEN = -1e8
"""Logit of a forbidden choice. Its probability is exactly 0; log-probabilities and gradients are finite."""
NO_MASKS = f"{MASKS_ARE_FOR}: build the agent with action_masks='ignore', or change the action space"
TINY = torch.finfo(torch.float32).tiny
UNBOUNDED = 1e6
"""Bounds of actions beyond this are no bounds, but a formality."""


class ActionHead(nn.Module, ABC):
    """A distribution over actions [..., *action_shape] with parameters [..., P]."""

    action_shape: tuple[int, ...]
    """Shape of one action."""
    action_dtype: torch.dtype
    """Type of `sample` and `mode`."""
    encoding_size: int
    """Width of the vectors that `encode` returns."""
    noise_name: ClassVar[Literal["exponential", "uniform", "normal"]]
    """Distribution of the numbers of `draw_noise`."""
    persistence: float
    """Correlation of successive actions where the policy is uniform, or its mean 0."""

    def __init__(
        self, input_size: int, parameter_size: int, action_shape: tuple[int, ...], persistence: float
    ) -> None:
        super().__init__()
        self.action_shape, self.persistence = action_shape, persistence
        self.linear = nn.Linear(input_size, parameter_size)
        # A small gain makes the first policy nearly uniform (Andrychowicz et al. 2021).
        nn.init.orthogonal_(self.linear.weight, gain=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the parameters [..., P] of the distribution from features [..., F]."""
        return self.linear(features)

    def restrict(self, parameters: Tensor, masks: Tensor) -> Tensor:
        """Return the parameters of the distribution over allowed actions only.

        Args:
            parameters: [..., P].
            masks: [..., P] bool, true where a choice is allowed: at least one of each component. For bits,
                [..., 2 P], whether 0 and whether 1 is allowed.

        Raises:
            ValueError: masks cannot restrict actions of this kind.
        """
        raise ValueError(NO_MASKS)

    def divergence(self, parameters: Tensor, advice: Tensor) -> Tensor:
        """Return the KL divergence of the policy from a teacher, KL(teacher, policy) [...], in nats.

        Args:
            parameters: [..., P].
            advice: [..., P] the teacher's probabilities of the choices; all 0 for none, where it is 0.

        Raises:
            ValueError: actions of this kind are no choices.
        """
        raise ValueError("teachers are for Discrete and MultiDiscrete actions")

    @abstractmethod
    def persist(self, parameters: Tensor, previous: Tensor, starts: Tensor) -> Tensor:
        """Return the parameters of the distribution that tends to repeat previous actions.

        Args:
            parameters: [..., P].
            previous: [..., *action_shape] the actions before.
            starts: [...] bool, true at the first step of an episode, which has none.
        """

    def _rows(self, actions: Tensor) -> Tensor:
        """Return actions [..., *action_shape] as vectors [..., n]."""
        leading = actions.shape[: actions.ndim - len(self.action_shape)]
        return actions.reshape(*leading, math.prod(self.action_shape))

    def _shaped(self, rows: Tensor) -> Tensor:
        """Return vectors [..., n] as actions [..., *action_shape]; the inverse of `_rows`."""
        return rows.reshape(*rows.shape[:-1], *self.action_shape)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions from the distribution."""
        return self.pick(parameters, self.draw_noise(parameters, generator))

    @abstractmethod
    def draw_noise(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the random numbers [..., n] of a sample."""

    @abstractmethod
    def pick(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return the sample that these random numbers determine."""

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
    bonus: Tensor
    """[P] added to the logits of the previous action."""
    noise_name = "exponential"

    def __init__(
        self, input_size: int, space: spaces.Discrete | spaces.MultiDiscrete, persistence: float = 0.0
    ) -> None:
        sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else [int(n) for n in space.nvec.flat]
        super().__init__(input_size, sum(sizes), space.shape or (), persistence)
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
        # An action is repeated with probability rho + (1 - rho) / n; others follow with (1 - rho) / n each.
        ratios = [math.log1p(persistence * n / (1 - persistence)) for n in sizes]
        bonus = [ratios[component] for component in owners(sizes)]
        self.register_buffer("bonus", torch.tensor(bonus), persistent=False)

    def _split(self, parameters: Tensor) -> list[Tensor]:
        return [torch.log_softmax(logits, dim=-1) for logits in parameters.split(self.sizes, dim=-1)]

    def _join(self, numbers: list[Tensor]) -> Tensor:
        return self._shaped(torch.stack(numbers, dim=-1)) if self.action_shape else numbers[0]

    def restrict(self, parameters: Tensor, masks: Tensor) -> Tensor:
        return torch.where(masks, parameters, FORBIDDEN)

    def divergence(self, parameters: Tensor, advice: Tensor) -> Tensor:
        # 0 times the logarithm of what the policy may not choose is 0, too.
        return (torch.xlogy(advice, advice) - advice * torch.cat(self._split(parameters), dim=-1)).sum(-1)

    def persist(self, parameters: Tensor, previous: Tensor, starts: Tensor) -> Tensor:
        return parameters + torch.where(starts.unsqueeze(-1), 0.0, self.bonus * self.encode(previous))

    def draw_noise(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.empty_like(parameters, dtype=torch.float32).exponential_(generator=generator)

    def pick(self, parameters: Tensor, noise: Tensor) -> Tensor:
        # The Gumbel-max trick, argmax of log p - log(exponential noise), because it takes a generator. Noise
        # may be 0, which must not choose what is forbidden.
        scores = parameters - noise.clamp_min(TINY).log()
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

    noise_name = "uniform"

    def __init__(self, input_size: int, space: spaces.MultiBinary, persistence: float = 0.0) -> None:
        super().__init__(input_size, math.prod(space.shape), space.shape, persistence)
        self.action_dtype = torch.float32
        self.encoding_size = math.prod(space.shape)

    def restrict(self, parameters: Tensor, masks: Tensor) -> Tensor:
        zero, one = masks.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.where(zero, torch.where(one, parameters, FORBIDDEN), -FORBIDDEN)

    def persist(self, parameters: Tensor, previous: Tensor, starts: Tensor) -> Tensor:
        bonus = math.log1p(2 * self.persistence / (1 - self.persistence))  # of a softmax over two values
        return parameters + torch.where(starts.unsqueeze(-1), 0.0, bonus * (2 * self.encode(previous) - 1))

    def draw_noise(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.empty_like(parameters).uniform_(generator=generator)

    def pick(self, parameters: Tensor, noise: Tensor) -> Tensor:
        return self._shaped((noise < torch.sigmoid(parameters)).float())

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

    Args:
        input_size: F, number of features.
        space: of one action.
        scale: whether the normal is over actions on a scale of -1 to 1 between finite bounds; `log_prob` and
            `entropy` are then those of the scaled actions.
        persistence: rho of an autoregressive normal. Its mean is moved by rho times the previous action,
            clipped to the box, and its standard deviation is multiplied by sqrt(1 - rho^2).
        log_std: initial logarithm of the standard deviation, on that scale.
    """

    centre: Tensor
    """[n] the action that is 0 on the scale."""
    half_range: Tensor
    """[n] half the range of the actions."""
    low: Tensor
    """[n] bounds of the box."""
    high: Tensor
    """[n]"""
    noise_name = "normal"

    def __init__(
        self,
        input_size: int,
        space: spaces.Box,
        scale: bool = False,
        persistence: float = 0.0,
        log_std: float = 0.0,
    ) -> None:
        super().__init__(input_size, math.prod(space.shape), space.shape, persistence)
        self.scale = scale
        # Bounds are determined by the space, so they are not saved.
        for name, bound in (("low", space.low), ("high", space.high)):
            limits = torch.tensor(bound.astype(np.float32).reshape(-1))
            self.register_buffer(name, limits, persistent=False)
        if scale:
            low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
            finite = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED) & (low < high)
            low, high = np.where(finite, low, -1.0), np.where(finite, high, 1.0)
            centre, half_range = (low + high) / 2, (high - low) / 2
            for name, values in (("centre", centre), ("half_range", half_range)):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.log_std = nn.Parameter(torch.full((math.prod(space.shape),), float(log_std)))
        self.action_dtype = torch.float32
        self.encoding_size = math.prod(space.shape)

    def forward(self, features: Tensor) -> Tensor:
        mean = self.linear(features)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)

    def persist(self, parameters: Tensor, previous: Tensor, starts: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, dim=-1)
        inside = self._rows(previous).clamp(self.low, self.high)
        rho = torch.where(starts, 0.0, self.persistence).unsqueeze(-1)
        moved = mean + rho * self._to_rows(self._shaped(inside))
        return torch.cat([moved, log_std + 0.5 * torch.log1p(-rho.square())], dim=-1)

    def draw_noise(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.empty_like(parameters.chunk(2, dim=-1)[0]).normal_(generator=generator)

    def pick(self, parameters: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, dim=-1)
        return self._to_actions(mean + log_std.exp() * noise)

    def mode(self, parameters: Tensor) -> Tensor:
        return self._to_actions(parameters.chunk(2, dim=-1)[0])

    def _to_actions(self, rows: Tensor) -> Tensor:
        """Return vectors [..., n] on the scale of the normal as actions [..., *action_shape]."""
        return self._shaped(self.centre + self.half_range * rows if self.scale else rows)

    def _to_rows(self, actions: Tensor) -> Tensor:
        """Return actions as vectors on the scale of the normal; the inverse of `_to_actions`."""
        rows = self._rows(actions)
        return (rows - self.centre) / self.half_range if self.scale else rows

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, dim=-1)
        z = (self._to_rows(actions) - mean) * (-log_std).exp()
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        log_std = parameters.chunk(2, dim=-1)[1]
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def encode(self, actions: Tensor) -> Tensor:
        return self._to_rows(actions).to(self.linear.weight.dtype)


def make_action_head(
    input_size: int,
    space: spaces.Space[Any],
    scale: bool = False,
    persistence: float = 0.0,
    log_std: float = 0.0,
) -> ActionHead:
    """Build the head of an action space.

    Args:
        input_size: F, number of features.
        space: a plain action space: Discrete or MultiDiscrete (counting from 0), MultiBinary or Box.
        scale: whether the actions of a Box are on a scale of -1 to 1 between its bounds.
        persistence: correlation of successive actions under the untrained policy.
        log_std: initial logarithm of the standard deviation of a Box's actions.

    Raises:
        ValueError: any other space.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return CategoricalHead(input_size, space, persistence)
    if isinstance(space, spaces.MultiBinary):
        return BernoulliHead(input_size, space, persistence)
    if isinstance(space, spaces.Box):
        return GaussianHead(input_size, space, scale, persistence, log_std)
    raise ValueError(f"no action head for {space}; use Discrete, MultiDiscrete, MultiBinary or Box")

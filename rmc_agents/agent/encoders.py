"""Encoder of observations: any supported observation space -> a vector of features.

Each part of an observation becomes a vector: embeddings of MiniGrid's codes, convolutions of an image,
one-hot vectors of integers. The vectors are concatenated and pass one linear layer with a ReLU.
Axes: `...` any leading axes (time, batch), V side of MiniGrid's view, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.agent.distinct import find_distinct_rows

GRID_CODES = (11, 6, 4)
"""Number of object, colour and state codes of a cell in MiniGrid's symbolic image."""


class Encoder(nn.Module):
    """Features of an observation: relu(W [vectors of its parts] + b).

    Args:
        space: space of one observation: Box, Discrete, MultiDiscrete, MultiBinary, or a flat Dict of them.
        output_size: number of features.

    Raises:
        ValueError: the space has no encoding; the message names it and an alternative.
    """

    def __init__(self, space: spaces.Space[Any], output_size: int) -> None:
        super().__init__()
        self.keys = list(space.spaces) if isinstance(space, spaces.Dict) else None
        parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
        self.spaces = parts
        self.parts = nn.ModuleList(_make_part(part) for part in parts)
        # Only discrete observations repeat often enough for a search to pay off.
        self.deduplicate = all(isinstance(part, _SymbolicGrid | _OneHot) for part in self.parts)
        self.output_size = output_size
        self.linear = nn.Linear(sum(part.output_size for part in self.parts), output_size)  # type: ignore[misc]
        nn.init.orthogonal_(self.linear.weight, gain=math.sqrt(2))
        nn.init.zeros_(self.linear.bias)

    def forward(self, obs: Tensor | dict[str, Tensor]) -> Tensor:
        """Encode observations [..., *space.shape] as features [..., output_size]."""
        values: list[Tensor] = [obs[key] for key in self.keys] if self.keys is not None else [obs]  # type: ignore
        if self.deduplicate:
            shapes = [space.shape or () for space in self.spaces]
            leading = values[0].shape[: values[0].ndim - len(shapes[0])]
            rows = [x.reshape(-1, *shape) for x, shape in zip(values, shapes, strict=True)]
            distinct = find_distinct_rows([x.reshape(x.shape[0], -1) for x in rows])
            if distinct is not None:
                features = self._encode([x.index_select(0, distinct.rows) for x in rows])
                return features.index_select(0, distinct.inverse).unflatten(0, leading)
        return self._encode(values)

    def _encode(self, values: list[Tensor]) -> Tensor:
        vectors = [part(value) for part, value in zip(self.parts, values, strict=True)]
        joined = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)
        return torch.relu(self.linear(joined))


def is_symbolic_grid(space: spaces.Space[Any]) -> bool:
    """Return whether a space is MiniGrid's `image`: uint8 [V, V, 3] of object, colour and state codes.

    No camera has as few as 15 x 15 pixels, so the size distinguishes it from an image of pixels.
    """
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[2] == 3
        and max(space.shape) <= 15
    )


def _make_part(space: spaces.Space[Any]) -> nn.Module:
    """Return the module that turns a value of `space` into a vector."""
    if is_symbolic_grid(space):
        return _SymbolicGrid(space.shape)  # type: ignore[arg-type]
    if isinstance(space, spaces.Box):
        if len(space.shape) == 3 and space.dtype == np.uint8:
            return _Image(space.shape)
        return _Vector(space.shape)
    if isinstance(space, spaces.Discrete):
        return _OneHot([int(space.n)], (), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return _OneHot([int(n) for n in space.nvec.reshape(-1)], space.nvec.shape, 0)
    if isinstance(space, spaces.MultiBinary):
        return _Vector(space.shape)
    raise ValueError(
        f"no encoder for an observation of {space}; use Box, Discrete, MultiDiscrete, MultiBinary or a "
        "flat Dict of them (gymnasium.wrappers.FlattenObservation turns the others into a Box)"
    )


class _SymbolicGrid(nn.Module):
    """Embeddings of MiniGrid's cells. The codes are categories, so they are not divided by 255."""

    codes: Tensor
    """[21] the code that each one-hot entry stands for."""
    channel: Tensor
    """[21] the image channel that each one-hot entry reads."""

    def __init__(self, shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.output_size = shape[0] * shape[1] * width
        self.embedding = nn.Linear(sum(GRID_CODES), width, bias=False)
        nn.init.normal_(self.embedding.weight, std=3**-0.5)
        self.register_buffer("codes", torch.cat([torch.arange(n) for n in GRID_CODES]).to(torch.uint8), False)
        self.register_buffer(
            "channel",
            torch.repeat_interleave(torch.arange(3), torch.tensor(GRID_CODES), output_size=sum(GRID_CODES)),
            persistent=False,
        )

    def forward(self, image: Tensor) -> Tensor:
        # A product with one-hot codes, because its backward pass is a product too, not a scatter.
        one_hot = image.index_select(-1, self.channel) == self.codes  # [..., V, V, 21]
        return self.embedding(one_hot.to(self.embedding.weight.dtype)).flatten(-3)


class _Image(nn.Module):
    """Convolutions of uint8 pixels, channels last or first.

    From 36 x 36 pixels on, the three layers of Mnih et al. (2015); below, two smaller layers.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.channels_last = shape[2] < shape[0]
        c, h, w = (shape[2], shape[0], shape[1]) if self.channels_last else shape
        if min(h, w) >= 36:
            layers = [nn.Conv2d(c, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)]
        else:
            layers = [nn.Conv2d(c, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)]
        for conv in layers:
            nn.init.orthogonal_(conv.weight, gain=math.sqrt(2))
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.convolutions = nn.Sequential(*(m for conv in layers for m in (conv, nn.ReLU())))
        with torch.no_grad():
            self.output_size = self.convolutions(torch.zeros(1, c, h, w)).numel()

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.reshape(-1, *image.shape[-3:])
        pixels = pixels.permute(0, 3, 1, 2) if self.channels_last else pixels  # [..., C, H, W]
        vectors = self.convolutions(pixels.to(next(self.parameters()).dtype) / 255)
        return vectors.reshape(*image.shape[:-3], -1)


class _Vector(nn.Module):
    """Numbers without any scaling, flattened."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.ndim = len(shape)
        self.output_size = math.prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.float().reshape(*x.shape[: x.ndim - self.ndim], self.output_size)


class _OneHot(nn.Module):
    """Concatenated one-hot vectors of integers.

    Args:
        sizes: number of values of each integer.
        shape: shape of the observation.
        start: the smallest value.
    """

    codes: Tensor
    """[sum(sizes)] the value that each one-hot entry stands for."""
    component: Tensor
    """[sum(sizes)] the integer that each one-hot entry reads."""

    def __init__(self, sizes: list[int], shape: tuple[int, ...], start: int) -> None:
        super().__init__()
        self.ndim, self.output_size = len(shape), sum(sizes)
        self.register_buffer("codes", torch.cat([torch.arange(n) for n in sizes]) + start, persistent=False)
        self.register_buffer(
            "component",
            torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes), output_size=sum(sizes)),
            persistent=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.reshape(*x.shape[: x.ndim - self.ndim], -1)
        return (numbers.index_select(-1, self.component) == self.codes).float()

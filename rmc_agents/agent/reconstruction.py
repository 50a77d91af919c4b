"""Reconstruction of observations from the memory: an auxiliary loss that makes the memory hold what it reads.

As in Memory Gym (Pleines et al. 2024, arXiv:2309.17207), a decoder reads the output of the memory core and
predicts the current observation. No policy reads the prediction; the decoder is not used after training.
Axes: T time, B batch, N = T * B observations, H output of the core, F width, M cells, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from rmc_agents.agent.encoders import Cells, Encoder, Picture, start_of
from rmc_agents.agent.text_encoder import Words
from rmc_agents.cores.kernels.unchanged import are_plain
from rmc_agents.spaces.reading import bounds, category_sizes, named_parts, read
from rmc_agents.tree import Tree

MOST_LOGITS = 2**15
"""Largest number of logits for a part of an observation; a part that needs more is not reconstructed."""


class Decoder(nn.Module):
    """Predicts the parts of an observation from the output of a memory core.

    The error of a part is a mean over its numbers: the cross entropy of categories (integers, the channels of
    cells, words), the binary cross entropy of bits and of pixels between bounds, the squared error of other
    numbers, on the encoder's scale.

    Args:
        space: space of one observation, as the encoder reads it.
        encoder: its encoder.
        input_size: H.
        width: F, of the layer that all parts share.

    Raises:
        ValueError: no part can be reconstructed.
    """

    def __init__(self, space: spaces.Space[Any], encoder: Encoder, input_size: int, width: int) -> None:
        super().__init__()
        parts = named_parts(space)
        made = {
            key: _make_decoder(part, own, width)
            for (key, own), part in zip(parts.items(), encoder.parts, strict=True)
        }
        self.reconstructed = [key for key, decoder in made.items() if decoder is not None]
        """Names of the parts that are reconstructed."""
        self.left_out = [key for key, decoder in made.items() if decoder is None]
        """Names of those with too many values."""
        if not self.reconstructed:
            raise ValueError(
                f"reconstruct=True: every part of the observation ({', '.join(self.left_out)}) has more than "
                f"{MOST_LOGITS:,} values to choose from, too many to reconstruct"
            )
        self._indices = [i for i, decoder in enumerate(made.values()) if decoder is not None]
        self.hidden = nn.Sequential(nn.Linear(input_size, width), nn.ReLU())
        self.parts = nn.ModuleList(decoder for decoder in made.values() if decoder is not None)

    def forward(self, outputs: Tensor, obs: Tree, encoder: Encoder) -> Tensor:
        """Return the errors [T, B]: the mean over the parts.

        Args:
            outputs: [T, B, H] of the core.
            obs: [T, B, ...] the observations that it read last, or ids of them.
            encoder: the encoder that the decoder was made for.
        """
        values, hidden = encoder.parts_of(obs), self.hidden(outputs.flatten(0, 1))
        errors = [
            decoder(hidden, values[i], encoder.parts[i])
            for i, decoder in zip(self._indices, self.parts, strict=True)
        ]
        return torch.stack(errors).mean(0).unflatten(0, outputs.shape[:2])


def _make_decoder(part: nn.Module, space: spaces.Space[Any], width: int) -> nn.Module | None:
    """Return the decoder of a part that the module `part` encodes; None if it has too many values."""
    kind = read(space).kind
    if kind == "bits":
        return _Bits(width, math.prod(space.shape or ()))
    if isinstance(part, Picture):
        assert isinstance(space, spaces.Box)
        return _Pixels(
            width, part, bounded=bounds(space) == (float(space.low.min()), float(space.high.max()))
        )
    if isinstance(part, Cells) and part.large:
        return _Pixels(width, part, bounded=True)
    if isinstance(part, Cells):
        c, h, w = part.shape
        return _categories(width, h * w, [Cells.CATEGORIES] * c)
    if kind == "categories":
        return _categories(width, 1, category_sizes(space), start_of(space))
    if kind == "codes":
        return _categories(width, math.prod((space.shape or ())[:2]), read(space).sizes)
    if isinstance(part, Words):
        return _categories(width, part.length, [part.embedding.num_embeddings])
    return _Numbers(width, part.output_size)  # type: ignore[arg-type]


def _categories(width: int, cells: int, sizes: Sequence[int], start: Sequence[int] = ()) -> nn.Module | None:
    return _Categories(width, cells, sizes, start) if cells * sum(sizes) <= MOST_LOGITS else None


class _Categories(nn.Module):
    """Cross entropy of M cells with C categories each. Several cells share the layer that predicts theirs.

    Args:
        width: F.
        cells: M.
        sizes: [C] number of values of each category.
        start: [C] their smallest values; 0 if not given.
        cell_width: of a cell's vector, from which its categories are predicted.
    """

    start: Tensor

    def __init__(
        self, width: int, cells: int, sizes: Sequence[int], start: Sequence[int] = (), cell_width: int = 16
    ) -> None:
        super().__init__()
        self.cells, self.sizes = cells, list(sizes)
        self.register_buffer("start", torch.tensor(list(start) or [0] * len(sizes)), persistent=False)
        # Categories with equally many values stand together among the logits, to be normalised at once.
        self.groups = {size: [c for c, n in enumerate(sizes) if n == size] for size in sorted(set(sizes))}
        if cells > 1:
            self.spread: nn.Module = nn.Linear(width, cells * cell_width)
        else:
            self.spread, cell_width = nn.Identity(), width
        self.logits = nn.Linear(cell_width, sum(sizes))

    def forward(self, hidden: Tensor, values: Tensor, part: nn.Module) -> Tensor:
        """Return the errors [N] of predictions from `hidden` [N, F]."""
        values = part.categories_of(values) if isinstance(part, Cells) else values
        targets = values.reshape(-1, len(self.sizes)).long() - self.start  # [N * M, C]
        cells = self.spread(hidden).reshape(len(targets), -1)
        # With the categories first, a softmax over few of them is vectorised over cells: three times as fast.
        if are_plain(self.logits):
            logits = torch.addmm(self.logits.bias.unsqueeze(1), self.logits.weight, cells.t())
        else:
            logits = self.logits(cells).t()
        errors, first = hidden.new_zeros(len(targets)), 0
        for size, members in self.groups.items():
            last = first + size * len(members)
            scores = logits[first:last].unflatten(0, (len(members), size))  # [members, size, N * M]
            # A value beyond the bounds of its space, which training survives, counts as the nearest one.
            target = targets[:, members].clamp(0, size - 1).t()
            errors = errors + functional.cross_entropy(scores, target, reduction="none").sum(0)
            first = last
        return errors.view(len(hidden), -1).mean(1) / len(self.sizes)


class _Bits(nn.Module):
    """Binary cross entropy of bits."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, count)

    def forward(self, hidden: Tensor, values: Tensor, part: nn.Module) -> Tensor:
        """Return the errors [N] of predictions from `hidden` [N, F]."""
        targets = part(values).clamp(0, 1)
        errors = functional.binary_cross_entropy_with_logits(self.logits(hidden), targets, reduction="none")
        return errors.mean(1)


class _Numbers(nn.Module):
    """Squared error of numbers on the encoder's scale."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, count)

    def forward(self, hidden: Tensor, values: Tensor, part: nn.Module) -> Tensor:
        """Return the errors [N] of predictions from `hidden` [N, F]."""
        return (self.linear(hidden) - part(values)).square().mean(1)


class _Pixels(nn.Module):
    """Transposed convolutions, which mirror those of the encoder: its layers in reverse order.

    Args:
        width: F.
        part: encodes the picture.
        bounded: whether pixels lie between 0 and 1, which permits their binary cross entropy. The error of
            others is squared.
    """

    def __init__(self, width: int, part: Picture | Cells, bounded: bool) -> None:
        super().__init__()
        self.bounded = bounded
        c, *size = part.shape
        layers = [layer for layer in part.convolutions if isinstance(layer, nn.Conv2d)]  # type: ignore[union-attr]
        sizes = [size]  # before each layer, and after the last
        for layer in layers:
            sizes.append([_convolved(n, layer, axis) for axis, n in enumerate(sizes[-1])])
        first = [layers[-1].out_channels, *sizes[-1]]
        self.spread = nn.Sequential(nn.Linear(width, math.prod(first)), nn.ReLU(), nn.Unflatten(1, first))
        channels = [layer.out_channels for layer in reversed(layers)] + [c]
        self.layers = nn.ModuleList(
            _transposed(*io, layer, before, after)
            for io, layer, (after, before) in zip(
                pairwise(channels), reversed(layers), reversed(list(pairwise(sizes))), strict=True
            )
        )

    def forward(self, hidden: Tensor, values: Tensor, part: nn.Module) -> Tensor:
        """Return the errors [N] of predictions from `hidden` [N, F]."""
        assert isinstance(part, Picture | Cells)
        pixels, x = part.pixels(values), self.spread(hidden)
        for i, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if i else x)
        if self.bounded:
            loss = functional.binary_cross_entropy_with_logits(x, pixels.clamp(0, 1), reduction="none")
        else:
            loss = (x - pixels).square()
        return loss.flatten(1).mean(1)


def _convolved(size: int, layer: nn.Conv2d, axis: int) -> int:
    """Return the size of an axis behind a convolution."""
    padding = layer.padding[axis]
    assert isinstance(padding, int)
    return (size + 2 * padding - layer.kernel_size[axis]) // layer.stride[axis] + 1


def _transposed(
    inputs: int, outputs: int, layer: nn.Conv2d, before: Sequence[int], after: Sequence[int]
) -> nn.ConvTranspose2d:
    """Return a layer from `before` [H, W] to `after`, between which the convolution `layer` leads back."""
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    rest = [
        after[i] - (before[i] - 1) * stride[i] + 2 * int(padding[i]) - kernel[i] for i in range(len(before))
    ]
    options: dict[str, Any] = {"padding": padding, "output_padding": tuple(rest)}
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, **options)  # type: ignore[arg-type]

"""Encoder of observations: any plain observation space -> a vector of features.

`rmc_agents.spaces.reading` decides how each part of an observation is read. Here each reading is a module
that turns the part into a vector: embeddings of codes, convolutions of a picture, one-hot vectors of
integers. The vectors are concatenated and pass one linear layer with a ReLU.
Axes: `...` any leading axes (time, batch), N frames, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.agent.distinct import find_distinct_rows
from rmc_agents.agent.names import Names
from rmc_agents.agent.neighbours import Neighbours
from rmc_agents.agent.normalization import NormalizedPart, Total, of_this_process
from rmc_agents.agent.observation_table import EncodedObservations, ObservationTable, PartTerms, TermTable
from rmc_agents.agent.text_encoder import ReadByText, Words
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.environment import ObservationIds
from rmc_agents.spaces.reading import bounds, category_sizes, code_values, owners, read, scaling
from rmc_agents.tree import Tree

LARGE_VOCABULARY = 1024
"""Number of categories above which they are embedded instead of made one-hot."""


class Encoder(nn.Module):
    """Features of an observation: relu(W [vectors of its parts] + b).

    Args:
        space: space of one observation: Box, Discrete, MultiDiscrete, MultiBinary, or a flat Dict of them. An
            `AnnotatedBox` is read as it says, any other as `rmc_agents.spaces.read` decides.
        output_size: number of features.
        normalize: whether parts that are read as numbers are normalised by running statistics, which
            `update_statistics` changes.
        cell_size: numbers by which each cell of a grid of codes is embedded once more, in front of the
            features; 0 for none.
        cell_names: size of the name (`Names`) that follows each embedding; 0 for none. With names, embeddings
            start with orthogonal vectors of the codes.
        cell_neighbours: whether the sum of its neighbours' embeddings and names (`Neighbours`) follows those
            of each cell.

    Raises:
        ValueError: the space has no encoding; the message names it and an alternative.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        output_size: int,
        normalize: bool = False,
        cell_size: int = 0,
        cell_names: int = 0,
        cell_neighbours: bool = False,
    ) -> None:
        super().__init__()
        self.keys = list(space.spaces) if isinstance(space, spaces.Dict) else None
        parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
        self.spaces = parts
        made = [_make_part(part) for part in parts]
        if normalize:
            made = [_normalized(part, own) for part, own in zip(made, parts, strict=True)]
        self.parts = nn.ModuleList(made)
        # Only discrete observations repeat often enough for a search to pay off.
        self.deduplicate = all(isinstance(part, _Codes | Cells | _OneHot | Words) for part in self.parts)
        self.by_text = _read_by_text(self.parts)
        self.table: ObservationTable | None = None  # what ids of observations refer to
        self.terms: TermTable | None = None  # the same rows, if their vectors consist of recurring values
        self.linear = nn.Linear(sum(part.output_size for part in self.parts), output_size)  # type: ignore[misc]
        nn.init.orthogonal_(self.linear.weight, gain=math.sqrt(2))
        nn.init.zeros_(self.linear.bias)
        grids = {str(i): part for i, part in enumerate(self.parts) if cell_size and isinstance(part, _Codes)}
        own = {i: part.make_embedding(cell_size, orthogonal=cell_names > 0) for i, part in grids.items()}
        self.cells = nn.ModuleDict(own)
        named, surrounded = grids if cell_names else {}, grids if cell_neighbours else {}
        self.names = nn.ModuleDict({i: Names(part.sizes, cell_names) for i, part in named.items()})
        self.neighbours = nn.ModuleDict({i: Neighbours(*part.grid) for i, part in surrounded.items()})
        self.num_cells = sum(part.num_cells for part in grids.values())
        """Number of cells that are embedded in front of the features."""
        self.entity_size = (cell_size + cell_names) * (1 + cell_neighbours)
        """Numbers of each of them."""
        self.output_size = self.num_cells * self.entity_size + output_size

    def forward(self, obs: Tree) -> Tensor:
        """Encode observations [..., *space.shape], or ids [...] of them, as features [..., output_size]."""
        features = self.encode_distinct(obs)
        return features.gather() if isinstance(features, IndexedInputs) else features

    def encode_distinct(self, obs: Tree) -> Tensor | IndexedInputs:
        """Encode observations as `forward`, without copies of the features of equal observations."""
        if isinstance(obs, EncodedObservations):
            return obs.features
        if isinstance(obs, ObservationIds):
            return self._encode_ids(obs.ids)
        values: list[Tensor] = [obs[key] for key in self.keys] if self.keys is not None else [obs]
        if self.deduplicate:
            shapes = [space.shape or () for space in self.spaces]
            leading = values[0].shape[: values[0].ndim - len(shapes[0])]
            rows = [x.reshape(-1, *shape) for x, shape in zip(values, shapes, strict=True)]
            distinct = find_distinct_rows([x.reshape(x.shape[0], -1) for x in rows])
            if distinct is not None:
                features = self._encode([x.index_select(0, distinct.rows) for x in rows])
                return IndexedInputs(features, distinct.inverse.unflatten(0, leading))
        return self._encode(values)

    def update_statistics(self, obs: Tree, counted: Tensor, total: Total = of_this_process) -> None:
        """Add observations [..., *space.shape], or ids [...] of them, to the statistics of `normalize`.

        Args:
            obs: the observations.
            counted: [...] bool, which of them count.
            total: sums over all processes.
        """
        for part, value in zip(self.parts, self.parts_of(obs), strict=True):
            if isinstance(part, NormalizedPart):
                part.update(value, counted, total)

    def parts_of(self, obs: Tree) -> list[Tensor]:
        """Return the parts of N observations [..., *space.shape], or of ids [...] of them, each [N, ...]."""
        if isinstance(obs, ObservationIds):
            return self._require_table().look_up(obs.ids)
        values: list[Tensor] = [obs[key] for key in self.keys] if self.keys is not None else [obs]
        return [x.reshape(-1, *(space.shape or ())) for x, space in zip(values, self.spaces, strict=True)]

    def use_table(self, table: ObservationTable | None) -> None:
        """Let ids of observations refer to the rows of a table, or to nothing."""
        if table is self.table:
            return
        self.table = self.terms = None
        if table is None:
            return
        self.table = table
        on_cpu = all(part.device.type == "cpu" for part in table.parts)
        if on_cpu and not self.cells and all(isinstance(part, _Codes | _OneHot) for part in self.parts):
            terms = [part.terms(x) for part, x in zip(self.parts, table.parts, strict=True)]  # type: ignore[operator]
            self.terms = TermTable(terms, [part.output_size for part in self.parts])  # type: ignore[misc]

    def encode_table(self) -> Tensor:
        """Return the features [n, output_size] of all rows of the table."""
        assert self.table is not None
        rows = torch.arange(self.table.num_rows, device=self.linear.weight.device)
        features = None if self.terms is None else self.terms.encode(rows, self.linear, self.parts)
        return self.table.encode_all(self._encode) if features is None else features.rows

    def _encode_ids(self, ids: Tensor) -> Tensor | IndexedInputs:
        table = self._require_table()
        features = None if self.terms is None else self.terms.encode(ids, self.linear, self.parts)
        return table.encode(ids, self._encode) if features is None else features

    def _require_table(self) -> ObservationTable:
        if self.table is None:
            raise ValueError("ids of observations need a table: call agent.use_observation_table first")
        return self.table

    def _encode(self, values: list[Tensor]) -> Tensor:
        vectors = [part(value) for part, value in zip(self.parts, values, strict=True)]
        if self.by_text is not None:
            vectors = self.by_text(vectors)
        joined = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)
        features = torch.relu(self.linear(joined))
        if not self.cells:
            return features
        cells = [self._embed_cells(i, values[int(i)]) for i in self.cells]
        return torch.cat([*cells, features], dim=-1)

    def _embed_cells(self, i: str, image: Tensor) -> Tensor:
        """Return the cells of a grid as entities, [..., number of cells * entity_size]."""
        codes = self.parts[int(i)].one_hot(image).flatten(-3, -2)  # type: ignore[operator]
        own = self.cells[i](codes)
        if self.names:
            own = torch.cat([own, self.names[i](codes)], dim=-1)
        if self.neighbours:
            own = torch.cat([own, self.neighbours[i](own)], dim=-1)
        return own.flatten(-2)


def _make_part(space: spaces.Space[Any]) -> nn.Module:
    """Return the module that turns a value of `space` into a vector."""
    reading = read(space)
    if reading.kind == "categories":
        sizes = category_sizes(space)
        start = start_of(space)
        kind = _Embedded if sum(sizes) > LARGE_VOCABULARY else _OneHot
        return kind(sizes, space.shape or (), start)
    if reading.kind == "bits":
        return _Vector(space.shape or ())
    assert isinstance(space, spaces.Box)
    if reading.kind == "codes":
        return _Codes(space.shape, reading.sizes)
    if reading.kind == "picture":
        return Picture(space.shape, reading.layout, *bounds(space))
    if reading.kind == "cells":
        return Cells(space.shape, reading.layout)
    if reading.kind == "words":
        return Words(int(space.high.max()) + 1, space.shape[0])
    if reading.kind == "log":
        return _ScaledVector(
            space.shape, np.zeros(space.shape), np.ones(space.shape), np.full(space.shape, True)
        )
    shift, factor, large = scaling(space)
    if reading.kind == "raw" or not ((shift != 0) | (factor != 1) | large).any():
        return _Vector(space.shape)
    return _ScaledVector(space.shape, shift, factor, large)


def _normalized(part: nn.Module, space: spaces.Space[Any]) -> nn.Module:
    """Return a part with normalisation if it reads a `Box` as numbers, and any other part as it is."""
    return NormalizedPart(part) if isinstance(part, _Vector) and isinstance(space, spaces.Box) else part


def _read_by_text(parts: nn.ModuleList) -> ReadByText | None:
    """Return the layer that reads grids of codes as texts say; None without grids or without texts."""
    texts = {i: part.output_size for i, part in enumerate(parts) if isinstance(part, Words)}
    grids = {i: part.embedding.out_features for i, part in enumerate(parts) if isinstance(part, _Codes)}
    return ReadByText(texts, grids) if texts and grids else None


def start_of(space: spaces.Space[Any]) -> list[int]:
    """Return the smallest value of each integer of a space."""
    smallest = space.low if isinstance(space, spaces.Box) else space.start  # type: ignore[attr-defined]
    return [int(n) for n in np.asarray(smallest).reshape(-1)]


class _Codes(nn.Module):
    """Embeddings of the cells of a grid. The codes are categories, so they are not divided by 255.

    Args:
        shape: (H, W, C), or (H, W) for one channel.
        sizes: number of codes of each channel.
    """

    codes: Tensor
    """[sum(sizes)] the code that each one-hot entry stands for."""
    channel: Tensor
    """[sum(sizes)] the channel that each one-hot entry reads."""

    def __init__(self, shape: tuple[int, ...], sizes: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.has_channels = len(shape) == 3
        self.grid, self.num_cells, self.sizes = shape[:2], shape[0] * shape[1], sizes
        self.output_size = self.num_cells * width
        self.embedding = self.make_embedding(width)
        codes = torch.tensor(code_values(sizes))
        self.register_buffer("codes", codes.to(torch.uint8), persistent=False)
        self.register_buffer(
            "channel",
            torch.tensor(owners(sizes)),
            persistent=False,
        )

    def make_embedding(self, width: int, orthogonal: bool = False) -> nn.Linear:
        """Return an embedding of a cell's codes.

        Args:
            width: of the embedding.
            orthogonal: start with orthogonal vectors of the codes, or as nearly orthogonal ones as fit.
        """
        embedding = nn.Linear(sum(self.sizes), width, bias=False)
        nn.init.normal_(embedding.weight, std=len(self.sizes) ** -0.5)
        if orthogonal:
            gain = math.sqrt(max(width, sum(self.sizes)) / len(self.sizes))
            nn.init.orthogonal_(embedding.weight, gain=gain)
        return embedding

    def forward(self, image: Tensor) -> Tensor:
        # A product with one-hot codes, because its backward pass is a product too, not a scatter.
        return self.embedding(self.one_hot(image)).flatten(-3)

    def one_hot(self, image: Tensor) -> Tensor:
        """Return the codes of images [..., *shape] as vectors [..., H, W, sum(sizes)]."""
        return self._one_hot(image if self.has_channels else image.unsqueeze(-1))

    def _one_hot(self, cells: Tensor) -> Tensor:
        """Return the codes of cells [..., C] as vectors [..., sum(sizes)]."""
        return (cells.index_select(-1, self.channel) == self.codes).to(self.embedding.weight.dtype)

    def terms(self, image: Tensor) -> PartTerms:
        """Return the terms of images [n, *shape]: what is seen in each cell."""
        image = image if self.has_channels else image.unsqueeze(-1)
        kinds, kind = torch.unique(image.flatten(0, 2), dim=0, return_inverse=True)
        cell = torch.arange(image[0, ..., 0].numel())
        return PartTerms(
            rows=cell * len(kinds) + kind.view(len(image), -1),
            first=(cell * self.embedding.out_features).repeat_interleave(len(kinds)),
            kind=torch.arange(len(kinds)).repeat(len(cell)),
            codes=self._one_hot(kinds),
        )


class Picture(nn.Module):
    """Convolutions of pixels, with the frames of a stack as channels.

    From 36 x 36 pixels on, the three layers of Mnih et al. (2015); below, two smaller layers.

    Args:
        shape: of the picture.
        layout: its axes, such as "hwc"; see `rmc_agents.spaces.reading`.
        low: becomes 0.
        high: becomes 1.
    """

    def __init__(self, shape: tuple[int, ...], layout: str, low: float, high: float) -> None:
        super().__init__()
        self.layout, self.low, self.span = layout, low, high - low
        c, h, w = self.shape = _channels_first_shape(shape, layout)
        self.large = min(h, w) >= 36
        if self.large:
            layers = [nn.Conv2d(c, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)]
        else:
            layers = _small_convolutions(c)
        self.convolutions = _initialized(layers)
        with torch.no_grad():
            self.output_size = self.convolutions(torch.zeros(1, c, h, w)).numel()

    def forward(self, picture: Tensor) -> Tensor:
        vectors = self.convolutions(self.pixels(picture))
        return vectors.reshape(*picture.shape[: picture.ndim - len(self.layout)], -1)

    def pixels(self, picture: Tensor) -> Tensor:
        """Return the scaled pixels [N, C, H, W] of pictures."""
        pixels = _channels_first(picture, self.layout)
        if self.large:  # With the strides of [N, H, W, C] a gradient step is 1.5 times as fast on a CPU.
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        pixels = pixels.to(next(self.parameters()).dtype)
        return (pixels - self.low) / self.span if self.low else pixels / self.span


class Cells(nn.Module):
    """A small grid of bytes that may be pixels or codes: each cell is embedded as both.

    A cell's vector is a linear function of its brightness (value / 255) and of its category, for each
    channel: each value below 16 is a category, and so are 16 to 31, 32 to 47, and so on. Grids larger than
    15 x 15 then pass two convolutions.

    Args:
        shape: of the grid.
        layout: its axes, such as "hwc"; see `rmc_agents.spaces.reading`.
    """

    CATEGORIES = 16 + 15

    offset: Tensor
    """[C, 1, 1] first row of each channel in the table of categories."""

    def __init__(self, shape: tuple[int, ...], layout: str, width: int = 8) -> None:
        super().__init__()
        self.layout = layout
        c, h, w = self.shape = _channels_first_shape(shape, layout)
        self.large = max(h, w) > 15
        self.categories = nn.Embedding(self.CATEGORIES * c, width)
        nn.init.normal_(self.categories.weight, std=c**-0.5)
        self.brightness = nn.Linear(c, width, bias=False)
        nn.init.orthogonal_(self.brightness.weight, gain=math.sqrt(2))
        self.register_buffer(
            "offset", self.CATEGORIES * torch.tensor(code_values([c])).reshape(-1, 1, 1), persistent=False
        )
        self.convolutions = _initialized(_small_convolutions(width)) if self.large else nn.Flatten()
        with torch.no_grad():
            self.output_size = self.convolutions(torch.zeros(1, width, h, w)).numel()

    def forward(self, grid: Tensor) -> Tensor:
        values = _channels_first(grid, self.layout)  # [..., C, H, W]
        categories = _category(values) + self.offset
        pixels = values.to(self.brightness.weight.dtype).movedim(1, -1) / 255
        cells = self.categories(categories).sum(1) + self.brightness(pixels)  # [..., H, W, width]
        vectors = self.convolutions(cells.movedim(-1, 1))
        return vectors.reshape(*grid.shape[: grid.ndim - len(self.layout)], -1)

    def pixels(self, grid: Tensor) -> Tensor:
        """Return the brightness [N, C, H, W] of the cells of grids, from 0 to 1."""
        return _channels_first(grid, self.layout).to(self.brightness.weight.dtype) / 255

    def categories_of(self, grid: Tensor) -> Tensor:
        """Return the categories [N, H * W, C] of the cells of grids, below `CATEGORIES`."""
        return _category(_channels_first(grid, self.layout)).flatten(2).transpose(1, 2)


def _category(values: Tensor) -> Tensor:
    """Return the category of bytes: each below 16 is one of its own, the others by sixteens."""
    return torch.where(values < 16, values, values // 16 + 15).long()


class _Vector(nn.Module):
    """Numbers without any scaling, flattened."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.ndim = len(shape)
        self.output_size = math.prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.float().reshape(*x.shape[: x.ndim - self.ndim], self.output_size)


class _ScaledVector(_Vector):
    """Numbers on a scale of about 1: (x - shift) * factor or, where they are large, a logarithm.

    Args:
        shape: of the numbers.
        shift, factor, large: see `rmc_agents.spaces.reading.scaling`.
    """

    shift: Tensor
    factor: Tensor
    large: Tensor

    def __init__(self, shape: tuple[int, ...], shift: Any, factor: Any, large: Any) -> None:
        super().__init__(shape)
        # Saved with the weights, which mean nothing without them.
        self.register_buffer("shift", torch.tensor(np.asarray(shift), dtype=torch.float32).reshape(-1))
        self.register_buffer("factor", torch.tensor(np.asarray(factor), dtype=torch.float32).reshape(-1))
        self.register_buffer("large", torch.tensor(np.asarray(large), dtype=torch.bool).reshape(-1))

        self.register_load_state_dict_pre_hook(_fill_in_scaling)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        logarithm = x.sign() * x.abs().log1p() / 5
        return torch.where(self.large, logarithm, (x - self.shift) * self.factor)


def _fill_in_scaling(part: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Complete weights that were saved, and trained, when numbers were not scaled."""
    assert isinstance(part, _ScaledVector)
    if not any(prefix + name in state_dict for name in ("shift", "factor", "large")):
        state_dict[f"{prefix}shift"] = torch.zeros_like(part.shift)
        state_dict[f"{prefix}factor"] = torch.ones_like(part.factor)
        state_dict[f"{prefix}large"] = torch.zeros_like(part.large)


class _OneHot(nn.Module):
    """Concatenated one-hot vectors of integers.

    Args:
        sizes: number of values of each integer.
        shape: shape of the observation.
        start: the smallest value of each integer.
    """

    codes: Tensor
    """[sum(sizes)] the value that each one-hot entry stands for."""
    component: Tensor
    """[sum(sizes)] the integer that each one-hot entry reads."""

    def __init__(self, sizes: list[int], shape: tuple[int, ...], start: list[int]) -> None:
        super().__init__()
        self.ndim, self.output_size = len(shape), sum(sizes)
        codes = torch.tensor(code_values(sizes, start))
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer(
            "component",
            torch.tensor(owners(sizes)),
            persistent=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.reshape(*x.shape[: x.ndim - self.ndim], -1)
        return (numbers.index_select(-1, self.component) == self.codes).float()

    def terms(self, x: Tensor) -> PartTerms:
        """Return the terms of integers [n, *shape]: the value of each."""
        ones = self.forward(x).nonzero()[:, 1].view(len(x), -1)
        entries = torch.arange(self.output_size)
        return PartTerms(ones, entries, torch.full_like(entries, -1), None)


class _Embedded(nn.Module):
    """Concatenated embeddings of integers with too many values for one-hot vectors.

    Args: as `_OneHot`.
    """

    offset: Tensor
    """[n] row of each integer's smallest value in the table, minus that value."""

    def __init__(self, sizes: list[int], shape: tuple[int, ...], start: list[int], width: int = 32) -> None:
        super().__init__()
        self.ndim, self.output_size = len(shape), len(sizes) * width
        self.table = nn.Embedding(sum(sizes), width)
        rows = torch.cumsum(torch.tensor([0, *sizes[:-1]]), 0) - torch.tensor(start)
        self.register_buffer("offset", rows, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.reshape(*x.shape[: x.ndim - self.ndim], -1).long()
        return self.table(numbers + self.offset).flatten(-2)


def _small_convolutions(channels: int) -> list[nn.Conv2d]:
    return [nn.Conv2d(channels, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)]


def _initialized(layers: list[nn.Conv2d]) -> nn.Sequential:
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain=math.sqrt(2))
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())))


def _channels_first_shape(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """Return (C, H, W) of a picture, with frames counted as channels."""
    sizes = dict(zip(layout, shape, strict=True))
    return sizes.get("n", 1) * sizes.get("c", 1), sizes["h"], sizes["w"]


def _channels_first(picture: Tensor, layout: str) -> Tensor:
    """Return pictures [..., *shape] as [B, C, H, W]."""
    batch = picture.reshape(-1, *picture.shape[picture.ndim - len(layout) :])
    if layout == "hw":
        return batch.unsqueeze(1)
    if layout[-1] == "c":
        batch = batch.movedim(-1, -3)
    return batch.flatten(1, 2) if layout[0] == "n" else batch

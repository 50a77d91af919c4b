"""Features of observations that are given as rows of a table.

A finite environment shows n distinct observations, and gives the row of each instead of the observation. So
an encoder encodes each row at most once per batch.
Axes: n rows of the table, N observations of a batch, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.agent.distinct import MIN_ROWS
from rmc_agents.cores.base import IndexedInputs, gradient_of
from rmc_agents.cores.kernels import table_native
from rmc_agents.cores.kernels.call import in_place
from rmc_agents.cores.kernels.unchanged import are_plain, has_hooks
from rmc_agents.environment import ObservationIds
from rmc_agents.tree import Tree

BLOCK = 1024
"""Number of rows of a whole table that are encoded at once, which bounds the memory it takes."""


class EncodedObservations(NamedTuple):
    """Observations that an encoder has encoded already."""

    features: Tensor
    """[..., F]."""


class EncodedTable(NamedTuple):
    """The features of all rows of a table, for as long as the weights do not change."""

    features: Tensor | None
    """[n, F]; None if they were not computed."""

    def __call__(self, obs: Tree) -> Tree:
        """Turn `ObservationIds` into their features; return other observations as they are."""
        if self.features is None or not isinstance(obs, ObservationIds):
            return obs
        return EncodedObservations(IndexedInputs(self.features, obs.ids).gather())


class PartTerms(NamedTuple):
    """A part of the observations whose vector consists of values that recur in many rows.

    A term is the place of such a value in the vector, and what stands there.
    """

    rows: Tensor
    """[n, J] the terms of each row's vector."""
    first: Tensor
    """[Q] where the value of a term begins in the vector."""
    kind: Tensor
    """[Q] the value, as a row of `codes`; -1 for the number 1."""
    codes: Tensor | None
    """[K, C] the codes of a value; its numbers are their embedding."""


class ObservationTable(nn.Module):
    """All distinct observations of an environment. It moves with the agent, and is no part of its weights.

    Args:
        space: the space of one observation.
        table: the observations, [n, ...].

    Raises:
        ValueError: they are no observations of the space.
    """

    def __init__(self, space: spaces.Space[Any], table: Tree) -> None:
        super().__init__()
        members = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
        parts: dict[str, Tensor] = table if isinstance(table, dict) else {"": table}
        if parts.keys() != members.keys():
            raise ValueError(f"an observation table of the parts {list(parts)}, expected {list(members)}")
        self.num_rows = len(next(iter(parts.values())))
        if not self.num_rows:
            raise ValueError("an observation table without rows")
        for i, (key, member) in enumerate(members.items()):
            part, shape = parts[key], (self.num_rows, *(member.shape or ()))
            name = f"the observation table {key}".strip()
            if part.shape != shape:
                raise ValueError(f"{name} has the shape {list(part.shape)}, expected {list(shape)}")
            if not part.is_meta and not bool(part.isfinite().all()):
                raise ValueError(f"{name} holds numbers that are not finite")
            self.register_buffer(f"part{i}", part, persistent=False)
        self.num_parts = len(members)

    @property
    def parts(self) -> list[Tensor]:
        """The parts of the observations, [n, ...] each."""
        return [self.get_buffer(f"part{i}") for i in range(self.num_parts)]

    def look_up(self, ids: Tensor) -> list[Tensor]:
        """Return the parts of the observations with these ids [...], each [N, ...]."""
        return [part.index_select(0, ids.flatten()) for part in self.parts]

    def encode(self, ids: Tensor, encoder: Callable[[list[Tensor]], Tensor]) -> Tensor | IndexedInputs:
        """Return the features [..., F] of ids [...].

        On a CPU the rows that occur are encoded once each. Finding them would make a GPU wait for the host,
        and break a compiled graph: there all rows of a table are encoded, or all N of a smaller batch.

        Args:
            ids: rows of the table.
            encoder: computes features from the parts of observations.
        """
        if ids.device.type == "cpu" and ids.numel() >= MIN_ROWS and not torch.compiler.is_compiling():
            rows, ids = torch.unique(ids, return_inverse=True)
            return IndexedInputs(encoder(self.look_up(rows)), ids)
        if self.num_rows <= ids.numel():
            return IndexedInputs(encoder(self.parts), ids)
        return encoder(self.look_up(ids)).unflatten(0, ids.shape)

    def encode_all(self, encoder: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """Return the features [n, F] of all rows."""
        blocks = zip(*(part.split(BLOCK) for part in self.parts), strict=True)
        return torch.cat([encoder(list(parts)) for parts in blocks])


class TermTable(nn.Module):
    """The rows of a table as sums of terms, from which C computes their features on a CPU.

    Args:
        parts: the terms of each part of the observations.
        sizes: width of each part's vector.
    """

    rows: Tensor
    first: Tensor
    kind: Tensor

    def __init__(self, parts: Sequence[PartTerms], sizes: Sequence[int]) -> None:
        super().__init__()
        rows, first, kind = [], [], []
        terms = inputs = kinds = 0
        self.codes: list[str | None] = []
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            rows.append(part.rows + terms)
            first.append(part.first + inputs)
            kind.append(torch.where(part.kind < 0, -1, part.kind + kinds))
            self.codes.append(None if part.codes is None else f"codes{i}")
            if part.codes is not None:
                self.register_buffer(f"codes{i}", part.codes, persistent=False)
                kinds += len(part.codes)
            terms, inputs = terms + len(part.first), inputs + size
        used, numbered = torch.unique(torch.cat(rows, dim=1), return_inverse=True)
        for name, values in (
            ("rows", numbered),
            ("first", torch.cat(first)[used]),
            ("kind", torch.cat(kind)[used]),
        ):
            self.register_buffer(name, values.int(), persistent=False)

    def encode(self, ids: Tensor, linear: nn.Linear, parts: nn.ModuleList) -> IndexedInputs | None:
        """Return the features [..., F] of ids [...]; None if the library cannot compute them.

        Args:
            ids: rows of the table.
            linear: the layer that turns the parts' vectors into features.
            parts: the modules of the parts, of which those with codes have an `embedding`.
        """
        arguments = self._native_arguments(ids, linear, parts)
        return None if arguments is None else IndexedInputs(*table_native.features(*arguments))

    def prepare(
        self, ids: Tensor, linear: nn.Linear, parts: nn.ModuleList
    ) -> table_native.PreparedFeatures | None:
        """Return what computes the same for changing `ids`, with gradients; None as in `encode`."""
        arguments = self._native_arguments(ids, linear, parts)
        if arguments is None:
            return None
        _, terms, weight, bias, embeddings = arguments
        if not in_place((ids, *terms[:3], *terms.codes, weight, bias, *embeddings)):
            return None
        gradients = [gradient_of(x) for x in (weight, bias, *embeddings)]
        return table_native.PreparedFeatures(*arguments, gradients)

    def _native_arguments(
        self, ids: Tensor, linear: nn.Linear, parts: nn.ModuleList
    ) -> tuple[Tensor, table_native.Terms, Tensor, Tensor, list[Tensor]] | None:
        """Return the arguments of `table_native.features`, or None if the library cannot compute them."""
        if not table_native.possible(ids):
            return None
        coded = [(self.get_buffer(name), p) for name, p in zip(self.codes, parts, strict=True) if name]
        if has_hooks(*parts) or not are_plain(linear, *(part.embedding for _, part in coded)):
            return None
        terms = table_native.Terms(self.rows, self.first, self.kind, tuple(codes for codes, _ in coded))
        embeddings: list[Tensor] = [part.embedding.weight for _, part in coded]  # type: ignore[union-attr]
        if not table_native.usable(linear.weight, linear.bias, terms, embeddings):
            return None
        return ids, terms, linear.weight, linear.bias, embeddings

"""Features of the rows of a table in C: `c/table.c`, as one autograd node.

    features[i] = relu(W x[ids[i]] + b)

The inputs x of a row are constants, or few numbers that recur in many rows.
Axes: N ids, n rows of the table, M rows that occur, J terms of a row, Q terms, I inputs, F features, K kinds,
C codes.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from rmc_agents.cores.kernels.call import Prepared, addresses, agrees, eager, readable, run
from rmc_agents.cores.kernels.workspace import workspace

MULTIPLE = 16
"""F must be a multiple of this, the largest number of lanes of a vector."""


class Terms(NamedTuple):
    """The terms that W x is the sum of, for each row of a table."""

    rows: Tensor
    """[n, J] int32 the terms of a row."""
    first: Tensor
    """[Q] int32 the first input of a term."""
    kind: Tensor
    """[Q] int32 the values of its inputs, as one of the K kinds; -1 for one input of value 1."""
    codes: tuple[Tensor, ...]
    """[K_i, C_i] each: the codes of the kinds, whose embeddings are the values, K_0 kinds first."""


_SIZES = ("N", "n", "J", "Q", "I", "F", "K", "width", "M")
_ARGUMENTS = ("ids", "rows", "first", "kind", "weight", "bias", "kinds")
_RESULTS = ("features", "index", "inputs", "order", "number", "terms")
_BACKWARD = ("d_features", "passed", "d_inputs", "d_weight", "d_bias", "d_kinds")


class _Call(ctypes.Structure):
    """`struct table` of table.c: sizes, then addresses."""

    _fields_ = (
        *((name, ctypes.c_long) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in (*_ARGUMENTS, *_RESULTS, *_BACKWARD)),
    )


def possible(ids: Tensor) -> bool:
    """Return whether the library can read these ids, and operations run immediately."""
    return (
        (type(ids), ids.dtype, ids.device.type) == (Tensor, torch.int64, "cpu")
        and ids.numel() > 0
        and eager(ids.device)
    )


def usable(weight: Tensor, bias: Tensor, terms: Terms, embeddings: Sequence[Tensor]) -> bool:
    """Return whether the library can compute features from these weights; see `features`."""
    return readable((weight, bias, *terms.codes, *embeddings), ()) and len(weight) % MULTIPLE == 0 and works()


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its results match those of PyTorch."""
    return agrees(_matches_pytorch)


def _matches_pytorch() -> bool:
    """Compare features and gradients of a small table with those of PyTorch."""
    inputs, F = 5, 5 * MULTIPLE
    numbers = torch.arange(2000, dtype=torch.float32, device="cpu").mul(1.7).sin()  # leaves generators alone
    shaped = numbers[: F * inputs].view(F, inputs), numbers[:F], numbers[9:15].view(2, 3)
    leaves = weight, bias, embedding = [x.clone().requires_grad_() for x in shaped]
    # Inputs: one of value 1, then two times the two of a kind.
    terms = Terms(
        torch.tensor([[0, 1, 3], [0, 2, 4], [0, 1, 4], [0, 2, 3]], dtype=torch.int32, device="cpu"),
        torch.tensor([0, 1, 1, 3, 3], dtype=torch.int32, device="cpu"),
        torch.tensor([-1, 0, 1, 0, 1], dtype=torch.int32, device="cpu"),
        (numbers[20:26].view(2, 3),),
    )
    ids = torch.tensor([[2, 0, 2], [3, 2, 0]], device="cpu")
    kinds, one = linear(terms.codes[0], embedding), torch.ones(4, 1, device="cpu")
    x = torch.cat([one, kinds[[0, 1, 0, 1]], kinds[[0, 1, 1, 0]]], dim=1)
    expected = torch.relu(linear(x, weight, bias))[ids]
    rows, index = features(ids, terms, weight, bias, (embedding,))
    found = rows[index]
    upstream = numbers[: found.numel()].view(found.shape)
    gradients = (torch.autograd.grad(y, leaves, upstream) for y in (found, expected))
    pairs = [(found, expected), *zip(*gradients, strict=True)]
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)


def features(
    ids: Tensor, terms: Terms, weight: Tensor, bias: Tensor, embeddings: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the features [M, F] of the rows that occur in `ids` [...], and which is whose, [...] int32.

    Args:
        ids: int64, rows of the table.
        terms: what the rows consist of.
        weight, bias: [F, I] and [F].
        embeddings: [width, C] for each of `terms.codes`.

    Raises:
        IndexError: an id is not that of a row.
    """
    if torch.is_grad_enabled():
        return _Features.apply(ids, terms, weight, bias, *embeddings)
    return _forward(ids, terms, weight, bias, _kinds(terms, embeddings))[:2]


class PreparedFeatures:
    """Forward and backward passes for batches of the same number of ids, without autograd.

    Args:
        ids, terms, weight, bias, embeddings: as in `features`.
        gradients: of weight, bias and embeddings, which a backward pass overwrites.

    All tensors are contiguous, and stay in place.
    """

    def __init__(
        self,
        ids: Tensor,
        terms: Terms,
        weight: Tensor,
        bias: Tensor,
        embeddings: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        self.num_rows = len(terms.rows)
        self.rows, self.index, *kept = _make_results(ids, terms, weight)
        kinds = _kinds(terms, embeddings)
        d_kinds, lengths = torch.empty_like(kinds), [len(codes) for codes in terms.codes]
        self._embedded = (
            list(zip(terms.codes, embeddings, kinds.split(lengths), strict=True)) if lengths else []
        )
        parts = d_kinds.split(lengths) if lengths else ()
        self._d_embedded = list(zip(parts, terms.codes, gradients[2:], strict=True))
        self._most = len(self.rows)
        call, alive = _common_fields(self._most, ids, terms, weight, bias, kinds)
        products, passed, d_inputs = _products(terms, weight)
        call += addresses((self.rows, self.index, *kept, products), alive)
        call += addresses((None, passed, d_inputs, *gradients[:2], d_kinds), alive)
        self._call = _Call(*call)
        self._forward = Prepared("table_forward", self._call, alive)
        self._backward = Prepared("table_backward", self._call, alive)

    def forward(self) -> int:
        """Compute the features of the rows that occur, the first of `rows`; return how many they are.

        Raises:
            IndexError: an id is not that of a row.
        """
        for codes, embedding, kinds in self._embedded:
            torch.mm(codes, embedding.t(), out=kinds)
        self._call.M = self._most
        count = self._forward()
        if not count:
            raise _unknown_id(self.num_rows)
        self._call.M = count
        return count

    def backward(self, d_rows: Tensor) -> None:
        """Compute the gradients for contiguous ones of the features of the rows that occur."""
        self._call.d_features = d_rows.data_ptr()
        self._backward()
        for d, codes, gradient in self._d_embedded:
            torch.mm(d.t(), codes, out=gradient)


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, ids: Tensor, terms: Terms, weight: Tensor, bias: Tensor, *embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        kinds = _kinds(terms, embeddings)
        result, index, *ctx.kept = _forward(ids, terms, weight, bias, kinds)
        ctx.terms = terms
        ctx.save_for_backward(ids, weight, bias, kinds, result)
        ctx.mark_non_differentiable(index)
        return result, index

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_features: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        ids, *weights, result = ctx.saved_tensors
        terms, (inputs, order) = ctx.terms, ctx.kept
        call, alive = _common_fields(len(result), ids, terms, *weights)
        products, *passed = _products(terms, weights[0])
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in weights]
        results = result, None, inputs, order, None, products
        call += addresses((*results, d_features, *passed, *gradients), alive)
        run("table_backward", _Call(*call))
        *gradients, d_kinds = gradients
        if terms.codes:
            parts = d_kinds.split([len(codes) for codes in terms.codes])
            gradients += [d.t() @ codes for d, codes in zip(parts, terms.codes, strict=True)]
        return None, None, *gradients


def _kinds(terms: Terms, embeddings: Sequence[Tensor]) -> Tensor:
    """Return the values [K, width] of the inputs of terms, from their codes."""
    values = [linear(codes, weight) for codes, weight in zip(terms.codes, embeddings, strict=True)]
    return torch.cat(values) if values else torch.zeros(1, 1, dtype=torch.float32, device="cpu")


def _forward(ids: Tensor, terms: Terms, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features and index, and for the backward pass the transposed weights and the rows that occur."""
    result, index, inputs, order, number = _make_results(ids, terms, weights[0])
    call, alive = _common_fields(len(result), ids, terms, *weights)
    products = workspace(len(terms.first) * len(weights[0]))
    call += addresses((result, index, inputs, order, number, products), alive)
    count = run("table_forward", _Call(*call))
    if not count:
        raise _unknown_id(len(terms.rows))
    return result[:count], index, inputs, order


def _make_results(ids: Tensor, terms: Terms, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return memory for features, index, inputs, order and number; see `struct table`."""
    rows, F = len(terms.rows), len(weight)
    most = min(rows, ids.numel())
    index = torch.empty(ids.shape, dtype=torch.int32, device="cpu")
    order, number = torch.empty(most + rows, dtype=torch.int32, device="cpu").split([most, rows])
    return weight.new_empty(most, F), index, workspace(weight.numel()), order, number


def _products(terms: Terms, weight: Tensor) -> tuple[Tensor, ...]:
    """Return memory for terms, passed and d_inputs."""
    F = len(weight)
    lengths = [len(terms.first) * F, F, weight.numel()]
    return workspace(sum(lengths)).split(lengths)


def _unknown_id(rows: int) -> IndexError:
    return IndexError(f"an id lies outside of 0 to {rows - 1}, the rows of the table")


def _common_fields(
    most: int, ids: Tensor, terms: Terms, weight: Tensor, bias: Tensor, kinds: Tensor
) -> tuple[list[Any], list[Any]]:
    """Return the first fields of `_Call`, and the objects that must outlive the call."""
    alive: list[Any] = []
    call: list[Any] = [
        ids.numel(),
        *terms.rows.shape,
        len(terms.first),
        weight.shape[1],
        len(weight),
        *kinds.shape,
        most,
    ]
    return call + addresses((ids, *terms[:3], weight, bias, kinds), alive), alive

"""Steps and sequences of an RMC that are prepared once and then run in C, without autograd.

Axes: T time, B batch, N slots, D slot size, G gate units, n rows of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rmc_agents.cores.base import gradient_of
from rmc_agents.cores.kernels import rmc_native
from rmc_agents.tree import map_tree

LAYER_NORM_EPS = 1e-5
"""Of outputs that are normalised."""
GATES = "input_gates", "input_gates_bias", "gates", "gates_bias"
"""Fields of `rmc_native.Parameters`."""


class PreparedSteps:
    """Steps of an RMC in C; see `cores.base.PreparedSteps`.

    Args:
        steps: write and return the memory.
        output: memory [B, N, D] -> output [B, N * D].
    """

    def __init__(self, steps: rmc_native.PreparedSteps, output: Callable[[Tensor], Tensor]) -> None:
        self._steps, self._output = steps, output

    def step(self, t: int) -> Tensor:
        return self._output(self._steps.step(t))


class CoupledGates:
    """Coupled gates as the C code reads them: with the weights of an input gate, which are their negatives.

    Args:
        forget: weights [G, D] and bias [G] of the layer that reads the input, and of the one that reads the
            memory; they have gradients.
        p: holds the weights of both gates, [2G, D] and [2G].
    """

    def __init__(self, forget: list[Tensor], p: rmc_native.Parameters) -> None:
        self._forget = forget
        self.both = {name: getattr(p, name).detach() for name in GATES}
        self.gradients = map_tree(torch.empty_like, self.both)

    def read(self) -> None:
        """Copy the present weights."""
        for forget, both in zip(self._forget, self.both.values(), strict=True):
            torch.cat([-forget.detach(), forget.detach()], out=both)

    def write_gradients(self) -> None:
        """Overwrite the gradients of the weights by what was written to `gradients`."""
        for forget, gradient in zip(self._forget, self.gradients.values(), strict=True):
            d_input, d_forget = gradient.split(len(forget))
            torch.sub(d_forget, d_input, out=gradient_of(forget))


class Normalization:
    """Layer norm of outputs without autograd.

    Args:
        gain: [N * D] learned, with a gradient; None for none.
    """

    def __init__(self, gain: Tensor | None) -> None:
        self._gain = gain
        self._saved: list[Tensor] = []

    def forward(self, outputs: Tensor) -> Tensor:
        gain = None if self._gain is None else self._gain.detach()
        normalized, *statistics = torch.native_layer_norm(
            outputs, outputs.shape[-1:], gain, None, LAYER_NORM_EPS
        )
        self._saved = [outputs, *statistics]
        return normalized

    def backward(self, d_normalized: Tensor) -> Tensor:
        """Return the gradient of the outputs of the last forward pass; overwrite that of the gain."""
        outputs, *statistics = self._saved
        gain = None if self._gain is None else self._gain.detach()
        d_outputs, d_gain, _ = torch.ops.aten.native_layer_norm_backward(
            d_normalized.view_as(outputs),
            outputs,
            outputs.shape[-1:],
            *statistics,
            gain,
            None,
            [True, gain is not None, False],
        )
        if self._gain is not None:
            gradient_of(self._gain).copy_(d_gain)
        return d_outputs


class PreparedUnroll:
    """Sequences of an RMC in C, and the normalisation of their outputs; see `cores.base.PreparedUnroll`.

    Args:
        inputs: [n, I].
        context, p, num_heads: as in `rmc_native.PreparedSequences`.
        coupled: gates whose weights `p` holds, if they are coupled.
        normalization: of the outputs, if they are normalised.
    """

    def __init__(
        self,
        inputs: Tensor,
        context: rmc_native.Context,
        p: rmc_native.Parameters,
        num_heads: int,
        coupled: CoupledGates | None,
        normalization: Normalization | None,
    ) -> None:
        self._coupled, self._normalization = coupled, normalization
        if coupled is None:
            gradients = map_tree(gradient_of, p)
        else:
            rest = p._replace(**dict.fromkeys(GATES))
            gradients = map_tree(gradient_of, rest)._replace(**coupled.gradients)
        self._sequences = rmc_native.PreparedSequences(inputs, context, p, gradients, num_heads)
        self._memories = self._sequences.outputs.flatten(2)

    def forward(self, num_inputs: int) -> Tensor:
        if self._coupled is not None:
            self._coupled.read()
        self._sequences.forward(num_inputs)
        return self._memories if self._normalization is None else self._normalization.forward(self._memories)

    def backward(self, d_outputs: Tensor) -> Tensor:
        if self._normalization is not None:
            d_outputs = self._normalization.backward(d_outputs)
        d_inputs = self._sequences.backward(d_outputs)
        if self._coupled is not None:
            self._coupled.write_gradients()
        return d_inputs

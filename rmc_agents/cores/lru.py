"""Linear recurrent unit: a diagonal complex recurrence, so that whole sequences are one scan.

Axes: T time, B batch, I input size, N state size, H output size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from rmc_agents.cores.base import HoistedCore, IndexedInputs, require_positive
from rmc_agents.cores.kernels import diagonal_native as native
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.unchanged import replaces
from rmc_agents.cores.scan import linear_scan

CHUNK = 8192
"""Inputs computed at once on a CPU: larger tensors do not fit into the caches, nor does malloc reuse them."""


class LRUState(NamedTuple):
    real: Tensor
    """[B, N] real part of the state."""
    imaginary: Tensor
    """[B, N] its imaginary part."""


class LRU(HoistedCore):
    """Linear recurrent unit (Orvieto et al. 2023): inputs [B, I], state x [B, N] -> output [B, H].

        lambda = exp(-exp(nu) + i exp(theta)),  gamma = sqrt(1 - |lambda|^2)
        x' = lambda x + gamma (B u)                 complex, B [N, I]
        y = gelu(Re(C x') + D u),  output = y * sigmoid(W y + b)

    The first lines are the paper's layer, the last the nonlinearity and the gate of its block, without norm
    and residual connection: an agent's encoder and its `skip` are in their place. At first the lambda are
    uniform in the ring between `min_radius` and `max_radius`; they always stay inside the unit circle, so
    that the state is bounded. A unit of radius r keeps a memory for about 1 / (1 - r) steps.

    `unroll` computes the states by `linear_scan`, on a CPU in C. Cost per step and batch row:
    O(N (I + H) + H^2).

    Args:
        input_size: I.
        hidden_size: H.
        state_size: N.
        min_radius: smallest initial |lambda|.
        max_radius: largest initial |lambda|.
        max_phase: largest initial phase of lambda, in radians. Small phases suit long sequences.

    Raises:
        ValueError: a size is not a positive integer, or not 0 <= min_radius < max_radius < 1, or `max_phase`
            is not between 0 and 2 pi.
    """

    capturable = True

    def __init__(
        self,
        input_size: int,
        *,
        hidden_size: int = 128,
        state_size: int = 128,
        min_radius: float = 0.9,
        max_radius: float = 0.999,
        max_phase: float = 0.314,
    ) -> None:
        super().__init__(input_size)
        require_positive(hidden_size=hidden_size, state_size=state_size)
        if not 0 <= min_radius < max_radius < 1:
            raise ValueError(f"expected 0 <= min_radius < max_radius < 1, got {min_radius} and {max_radius}")
        if not 0 < max_phase <= 2 * math.pi:
            raise ValueError(f"max_phase must be above 0 and at most 2 pi, got {max_phase}")
        self.hidden_size, self.state_size = hidden_size, state_size
        radius = (torch.rand(state_size) * (max_radius**2 - min_radius**2) + min_radius**2).sqrt()
        self.nu = nn.Parameter((-radius.log()).log())
        self.theta = nn.Parameter((max_phase * torch.rand(state_size)).clamp(min=1e-6).log())
        self.input_proj = nn.Linear(input_size, 2 * state_size, bias=False)  # real and imaginary part of B
        self.output_proj = nn.Linear(2 * state_size, hidden_size)  # C, whose imaginary part has the sign -
        self.direct_proj = nn.Linear(input_size, hidden_size, bias=False)  # D
        self.gate = nn.Linear(hidden_size, hidden_size)

    @property
    def output_size(self) -> int:
        return self.hidden_size

    def initial_state(self, batch_size: int) -> LRUState:
        zeros = self._anchor.new_zeros(batch_size, self.state_size)
        return LRUState(zeros, zeros)

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        real, imaginary = self.input_proj(inputs).chunk(2, dim=-1)
        gamma = self._gamma()
        return gamma * real, gamma * imaginary, self.direct_proj(inputs)

    def recur(self, projected: tuple[Tensor, ...], state: LRUState) -> tuple[Tensor, LRUState]:
        real, imaginary, direct = projected
        a, b = self._factors()
        new = LRUState(
            a * state.real - b * state.imaginary + real, a * state.imaginary + b * state.real + imaginary
        )
        return self._output(torch.cat(new, dim=-1), direct), new

    def _gamma(self) -> Tensor:
        return (1 - (-2 * self.nu.exp()).exp()).sqrt()

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return the real and imaginary part of lambda, [N] each."""
        radius, phase = (-self.nu.exp()).exp(), self.theta.exp()
        return radius * phase.cos(), radius * phase.sin()

    def _output(self, x: Tensor, direct: Tensor) -> Tensor:
        """Return the output for states [..., 2N], real parts first, and D u."""
        y = gelu(self.output_proj(x) + direct)
        return y * torch.sigmoid(self.gate(y))

    def unroll(self, inputs: Tensor, state: LRUState, starts: Tensor) -> tuple[Tensor, LRUState]:
        if not self._has_scan(inputs):
            return super().unroll(inputs, state, starts)
        return self._scan_chunks(lambda x: (self.input_proj(x), self.direct_proj(x)), inputs, state, starts)

    def unroll_indexed(
        self, inputs: IndexedInputs, state: LRUState, starts: Tensor
    ) -> tuple[Tensor, LRUState]:
        if not self._has_scan(inputs.rows) or replaces(self, LRU, "unroll"):
            return super().unroll_indexed(inputs, state, starts)
        projected = self.input_proj(inputs.rows), self.direct_proj(inputs.rows)

        def gather(ids: Tensor) -> tuple[Tensor, ...]:
            return tuple(IndexedInputs(rows, ids).gather() for rows in projected)

        return self._scan_chunks(gather, inputs.ids, state, starts)

    def _has_scan(self, inputs: Tensor) -> bool:
        """Return whether a scan computes what the core defines."""
        return (
            eager(inputs.device)
            and inputs.dtype in (torch.float32, torch.float64)
            and not replaces(self, LRU, "initial_state", "project", "recur")
        )

    def _scan_chunks(
        self, project: Callable[[Tensor], tuple[Tensor, ...]], inputs: Tensor, state: LRUState, starts: Tensor
    ) -> tuple[Tensor, LRUState]:
        """Compute a sequence, on a CPU in chunks of steps.

        Args:
            project: inputs [T, B, ...] -> B u [T, B, 2N], real parts first, and D u [T, B, H].
            inputs, state, starts: of the sequence.
        """
        steps = len(inputs)
        if inputs.device.type == "cpu":
            steps = max(1, CHUNK // max(1, inputs.shape[1]))
        outputs = []
        for chunk, flags in zip(inputs.split(steps), starts.split(steps), strict=True):
            u, direct = project(chunk)
            x = self._scan(u, state, flags)
            outputs.append(self._output(x, direct))
            state = LRUState(*(part.contiguous() for part in x[-1].chunk(2, dim=-1)))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state

    def _scan(self, u: Tensor, state: LRUState, starts: Tensor) -> Tensor:
        """Return all states [T, B, 2N] for B u [T, B, 2N], real parts first."""
        real, imaginary, gamma = *self._factors(), self._gamma()
        arguments = native.Arguments(u, *state, torch.stack([real, imaginary, gamma]), starts)
        if native.usable(arguments):
            return native.native_sequence(arguments)
        factors = torch.complex(real, imaginary).expand(*starts.shape, -1)
        factors = factors.masked_fill(starts.unsqueeze(-1), 0.0)
        added = torch.complex(*(gamma * part for part in u.chunk(2, dim=-1)))
        x = linear_scan(factors, added, torch.complex(*state))
        return torch.cat([x.real, x.imag], dim=-1)

"""A delta memory that binds, under an RMC that relates.

Axes: T time, B batch, I input size; N slots and D slot size of the RMC; A heads, K key size and V value size
of the delta memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmc_agents.cores.base import MemoryCore, SlotTrace
from rmc_agents.cores.gated_delta import GatedDelta, GatedDeltaState
from rmc_agents.cores.rmc import RMC, RMCState


class DeltaRMCState(NamedTuple):
    memory: Tensor
    """[B, N, D] slots of the RMC."""
    associations: Tensor
    """[B, A, K, V] what each head of the delta memory has stored."""


class DeltaRMC(MemoryCore):
    """Delta memory and RMC: inputs [B, I] -> output [B, N * D + A * V].

    An RMC relates what its slots hold, but does not bind a value to a key; a gated delta rule binds, but does
    not relate what it has bound. Here the RMC reads what the delta memory has found for the present input:

        r, S' = gated_delta(x, S)           store the value of x for its key, and look up its query
        m, M' = rmc([x; r], M)              slots attend to each other, to x and to what was found
        output = [m; r]

    so that a relation can be computed between what is seen and what was bound, and a bound value reaches the
    reader at once. The equations of both parts are in `GatedDelta` and `RMC`. The RMC's gates are coupled and
    span a range of time scales, which carries memories through episodes longer than those of training.

    Cost per step and batch row: that of both parts. The delta memory runs in parallel over time.

    Args:
        input_size: I.
        num_slots, num_heads, head_size, key_size, num_blocks, mlp_layers: sizes of the RMC.
        forget_bias, forget_bias_end, coupled_gates, normalize_output, output_gain: as in `RMC`.
        delta_heads: A.
        delta_key_size: K.
        delta_value_size: V.
        delta_forget_bias: bias of the delta memory's decay gate.

    Raises:
        ValueError: as `RMC` and `GatedDelta`.
    """

    capturable = True

    def __init__(
        self,
        input_size: int,
        *,
        num_slots: int = 4,
        num_heads: int = 4,
        head_size: int = 16,
        key_size: int | None = None,
        num_blocks: int = 1,
        mlp_layers: int = 2,
        forget_bias: float = 1.0,
        forget_bias_end: float | None = 5.0,
        coupled_gates: bool = True,
        normalize_output: bool = True,
        output_gain: float | None = None,
        delta_heads: int = 4,
        delta_key_size: int = 16,
        delta_value_size: int = 16,
        delta_forget_bias: float = 4.0,
    ) -> None:
        super().__init__(input_size)
        self.delta = GatedDelta(
            input_size,
            num_heads=delta_heads,
            key_size=delta_key_size,
            value_size=delta_value_size,
            forget_bias=delta_forget_bias,
        )
        self.rmc = RMC(
            input_size + self.delta.output_size,
            num_slots=num_slots,
            num_heads=num_heads,
            head_size=head_size,
            key_size=key_size,
            num_blocks=num_blocks,
            mlp_layers=mlp_layers,
            forget_bias=forget_bias,
            forget_bias_end=forget_bias_end,
            coupled_gates=coupled_gates,
            normalize_output=normalize_output,
            output_gain=output_gain,
        )

    @property
    def output_size(self) -> int:
        return self.rmc.output_size + self.delta.output_size

    @property
    def num_slots(self) -> int:
        return self.rmc.num_slots

    def initial_state(self, batch_size: int) -> DeltaRMCState:
        memory, associations = self.rmc.initial_state(batch_size), self.delta.initial_state(batch_size)
        return DeltaRMCState(memory.memory, associations.memory)

    def step(self, inputs: Tensor, state: DeltaRMCState) -> tuple[Tensor, DeltaRMCState]:
        outputs, state, _ = self._run(self.delta.step, self.rmc.step, inputs, state)
        return outputs, state

    def unroll(self, inputs: Tensor, state: DeltaRMCState, starts: Tensor) -> tuple[Tensor, DeltaRMCState]:
        outputs, state, _ = self._run(self.delta.unroll, self.rmc.unroll, inputs, state, starts)
        return outputs, state

    def trace(self, inputs: Tensor, state: DeltaRMCState) -> tuple[Tensor, DeltaRMCState, SlotTrace]:
        """Compute a step, and the attention and gates of the RMC; see `TracedCore`."""
        outputs, state, (trace,) = self._run(self.delta.step, self.rmc.trace, inputs, state)
        return outputs, state, trace

    def _run(
        self,
        bind: Callable[..., Any],
        relate: Callable[..., Any],
        inputs: Tensor,
        state: DeltaRMCState,
        *starts: Tensor,
    ) -> tuple[Tensor, DeltaRMCState, list[Any]]:
        """Return outputs, the next state, and what else the RMC returned.

        Args:
            bind, relate: compute a step or a sequence of the delta memory and of the RMC.
            inputs, state, starts: theirs; a step has no `starts`.
        """
        found, associations = bind(inputs, GatedDeltaState(state.associations), *starts)
        related, slots, *rest = relate(torch.cat([inputs, found], -1), RMCState(state.memory), *starts)
        state = DeltaRMCState(slots.memory, associations.memory)
        return torch.cat([related, found], -1), state, rest

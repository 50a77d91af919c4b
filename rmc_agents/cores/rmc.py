"""The Relational Memory Core: memory slots that attend to each other and to the input at every step.

Source: Santoro et al. 2018, "Relational recurrent neural networks" (arXiv 1806.01822), in the form of the
authors' own implementation (Sonnet), which differs from the paper's text in places, noted below.

Axes: T time, B batch, I input size, N slots, R rows (the slots, then the input: N + 1), A heads, K key size,
V head size, D = A * V slot size, F = A * (2K + V) features of a row's queries, keys and values, G gate units
(D or 1).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from rmc_agents.cores.base import (
    HoistedCore,
    IndexedInputs,
    SlotTrace,
    require_choice,
    require_number,
    require_positive,
)
from rmc_agents.cores.kernels import rmc_native, rmc_triton
from rmc_agents.cores.kernels.call import eager, in_place
from rmc_agents.cores.kernels.rmc_torch import Weights, rmc_sequence
from rmc_agents.cores.kernels.unchanged import are_plain, replaces
from rmc_agents.cores.rmc_prepared import (
    LAYER_NORM_EPS,
    CoupledGates,
    Normalization,
    PreparedSteps,
    PreparedUnroll,
)

GateStyle = Literal["unit", "memory", "none"]
SlotAttention = Literal["all", "own", "none"]


class RMCState(NamedTuple):
    memory: Tensor
    """[B, N, D]."""


class RMC(HoistedCore):
    """Relational Memory Core (Santoro et al. 2018): inputs [B, I] -> output [B, N * D], memory [B, N, D].

    The rows X = [M; x] of the memory and the projected input pass through `num_blocks` blocks of

        X <- LN(X + attention(X)),  X <- LN(X + MLP(X)),  attention = softmax(q k^T / sqrt(K)) v  (A heads)

    The resulting slot rows M~ are gated into the memory:

        i = sigmoid(W_i x + U_i tanh(M) + input_bias),  f = sigmoid(W_f x + U_f tanh(M) + forget_bias)
        M' = i tanh(M~) + f M,   output = flatten(M')

    With `coupled_gates`, i = 1 - f: each unit is a running mean of what is written, and stays within [-1, 1].
    At first a unit keeps what is written for about 1 + exp(forget bias) steps.

    Cost per step and batch row: O(N^2 D + N D^2) for each block (attention; projections, MLP and gates), with
    K and V of similar size. The number of parameters does not depend on N.

    All slots share all parameters, so slots differ only because the initial memory, an identity matrix, makes
    them differ. A reset must restore that identity: the slots of a zeroed memory stay equal forever.

    Args:
        input_size: I.
        num_slots: N.
        num_heads: A.
        head_size: V; a slot has D = A * V units, the output N * D.
        key_size: K; V if None.
        num_blocks: attention blocks per step. They share the MLP; each has its own projection and norms.
        mlp_layers: linear layers of the MLP, with a ReLU between layers and none after the last.
        gate_style: "unit" gates each unit, "memory" each slot as a whole, "none" overwrites the memory.
        input_bias: added to the input gate before the sigmoid.
        forget_bias: added to the forget gate before the sigmoid; 1 keeps most of the memory at first.
        forget_bias_end: if given, the units of each head have forget biases from `forget_bias` to this in
            equal steps, so that each slot has short-lived and long-lived units (as the chrono initialisation
            of Tallec & Ollivier 2018, without chance). With a `head_size` of 1 all have `forget_bias`.
        coupled_gates: use 1 - f as the input gate, which then has no weights, and no `input_bias`. A free
            input gate lets the memory grow with the length of an episode, so that agents get lost in episodes
            longer than those of training (docs/results/memory-mazes.md).
        slot_attention: slots that a slot attends to, besides the input: "all" (as in the paper), its "own" or
            "none". "own" and "none" are ablations of the attention between slots.
        normalize_output: normalise each output to mean 0 and standard deviation 1; the memory is not changed.
            If forget gates learn to stay open, the memory grows with the length of an episode, and without
            this the layers that read it receive larger values in long episodes than any they were trained on.
        output_gain: if given, multiply each normalised output by a gain that is learned and starts at this
            value. Without it an output is about 20 times as large as a feature of an agent's encoder, and
            drowns it: with 0.03, reactions that need no memory are learned about as fast as without a memory.

    Raises:
        ValueError: a size is not a positive integer, or `gate_style` or `slot_attention` has another value.
    """

    capturable = True
    _fresh: Tensor
    _gate_bias: Tensor
    _attention_mask: Tensor | None
    output_gain: Tensor | None

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
        gate_style: GateStyle = "unit",
        input_bias: float = 0.0,
        forget_bias: float = 1.0,
        forget_bias_end: float | None = None,
        coupled_gates: bool = False,
        slot_attention: SlotAttention = "all",
        normalize_output: bool = False,
        output_gain: float | None = None,
    ) -> None:
        super().__init__(input_size)
        key_size = head_size if key_size is None else key_size
        require_positive(
            num_slots=num_slots,
            num_heads=num_heads,
            head_size=head_size,
            key_size=key_size,
            num_blocks=num_blocks,
            mlp_layers=mlp_layers,
        )
        require_choice("gate_style", gate_style, get_args(GateStyle))
        require_choice("slot_attention", slot_attention, get_args(SlotAttention))
        require_number(forget_bias_end=forget_bias_end, output_gain=output_gain)
        if coupled_gates and (gate_style == "none" or input_bias):
            raise ValueError(
                'coupled_gates=True needs gate_style "unit" or "memory" and input_bias=0, got '
                f"gate_style={gate_style!r} and input_bias={input_bias}"
            )
        if forget_bias_end is not None and gate_style != "unit":
            raise ValueError(f'forget_bias_end needs gate_style="unit", got {gate_style!r}')
        if output_gain is not None and not normalize_output:
            raise ValueError("output_gain needs normalize_output=True")
        self.num_slots, self.num_heads = num_slots, num_heads
        self.head_size, self.key_size = head_size, key_size
        self.slot_size = slot_size = num_heads * head_size
        self.gate_style: GateStyle = gate_style
        self.coupled_gates = coupled_gates
        self.normalize_output = normalize_output

        qkv_size = num_heads * (2 * key_size + head_size)
        self.input_proj = nn.Linear(input_size, slot_size)
        self.qkv = nn.ModuleList(nn.Linear(slot_size, qkv_size) for _ in range(num_blocks))
        # One norm over all queries, keys and values of a row jointly.
        self.qkv_norm = nn.ModuleList(nn.LayerNorm(qkv_size) for _ in range(num_blocks))
        self.attention_norm = nn.ModuleList(nn.LayerNorm(slot_size) for _ in range(num_blocks))
        self.mlp = nn.ModuleList(nn.Linear(slot_size, slot_size) for _ in range(mlp_layers))
        self.mlp_norm = nn.ModuleList(nn.LayerNorm(slot_size) for _ in range(num_blocks))
        if gate_style != "none":
            units = slot_size if gate_style == "unit" else 1  # G
            gates = units if coupled_gates else 2 * units  # in the order input, forget
            self.input_gates = nn.Linear(slot_size, gates)
            self.memory_gates = nn.Linear(slot_size, gates)
            last = forget_bias if forget_bias_end is None else forget_bias_end
            steps = [unit / max(1, head_size - 1) for unit in range(head_size)] * num_heads
            forget = [forget_bias + (last - forget_bias) * step for step in steps[:units]]
            inputs = [-bias if coupled_gates else input_bias for bias in forget]
            bias = torch.tensor([float(x) for x in (*inputs, *forget)])
            self.register_buffer("_gate_bias", bias, persistent=False)
        gains = (
            None if output_gain is None else nn.Parameter(torch.full((self.output_size,), float(output_gain)))
        )
        self.register_parameter("output_gain", gains)
        self.register_buffer("_fresh", torch.eye(num_slots, slot_size), persistent=False)
        self.register_buffer("_attention_mask", _attention_mask(num_slots, slot_attention), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _initialise(module)

    @property
    def output_size(self) -> int:
        return self.num_slots * self.slot_size

    def initial_state(self, batch_size: int) -> RMCState:
        """Return the identity matrix, with columns of zeros appended or columns cut to fit the slot size."""
        return RMCState(self._fresh.repeat(batch_size, 1, 1))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the input's row x [..., D], its first q, k, v [..., F], and its gate terms [..., 2G]."""
        x = self.input_proj(inputs)
        if self.gate_style == "none":
            return x, self.qkv[0](x)
        if self._gates_differ():
            return x, self.qkv[0](x), self._both(self.input_gates(x), -1) + self._gate_bias
        weight, bias, _, memory_bias = self._gate_weights()
        return x, self.qkv[0](x), linear(x, weight, bias + memory_bias + self._gate_bias)

    def recur(self, projected: tuple[Tensor, ...], state: RMCState) -> tuple[Tensor, RMCState]:
        """Complete a step as defined above. With one block, `step` and `unroll` use faster code instead."""
        state, _ = self._advance(projected, state.memory)
        return self._output(state.memory), state

    def step(self, inputs: Tensor, state: RMCState) -> tuple[Tensor, RMCState]:
        if not self._has_fused_sequence(inputs):
            return super().step(inputs, state)
        outputs, state = self._fused_sequence(inputs.unsqueeze(0), state, None)
        return outputs[0], state

    def unroll(self, inputs: Tensor, state: RMCState, starts: Tensor) -> tuple[Tensor, RMCState]:
        if not self._has_fused_sequence(inputs):
            return super().unroll(inputs, state, starts)
        return self._fused_sequence(inputs, state, starts)

    def unroll_indexed(
        self, inputs: IndexedInputs, state: RMCState, starts: Tensor
    ) -> tuple[Tensor, RMCState]:
        if replaces(self, RMC, "unroll") or not self._has_fused_sequence(inputs.rows):
            return super().unroll_indexed(inputs, state, starts)
        return self._fused_sequence(inputs.rows, state, starts, inputs.ids)

    def prepare_unroll(self, inputs: IndexedInputs, state: RMCState, starts: Tensor) -> PreparedUnroll | None:
        if replaces(self, RMC, "unroll") or not self._has_fused_sequence(inputs.rows):
            return None
        context, p = self._native_arguments(state, starts, inputs.ids)
        tensors = [inputs.rows, *context, *p[:-1], *p.mlp]
        if not rmc_native.usable(inputs.rows, context, p, self.num_heads) or not in_place(tensors):
            return None
        coupled = None
        if self.coupled_gates:
            forget = [*_affine(self.input_gates), *_affine(self.memory_gates)]
            coupled = CoupledGates(forget, p)
            p = p._replace(**coupled.both)
        normalize = Normalization(self.output_gain) if self.normalize_output else None
        return PreparedUnroll(inputs.rows, context, p, self.num_heads, coupled, normalize)

    def prepare_steps(self, inputs: Tensor, states: RMCState, starts: Tensor) -> PreparedSteps | None:
        if replaces(self, RMC, "unroll") or not self._has_fused_sequence(inputs):
            return None
        inputs = inputs.unsqueeze(0)
        context, p = self._native_arguments(RMCState(states.memory[0]), starts[:1], None)
        tensors = [inputs, *context, *p[:-1], *p.mlp, states.memory, starts]
        if not rmc_native.usable(inputs, context, p, self.num_heads) or not in_place(tensors):
            return None
        steps = rmc_native.PreparedSteps(inputs, context, p, self.num_heads, states.memory, starts)
        return PreparedSteps(steps, self._output)

    def trace(self, inputs: Tensor, state: RMCState) -> tuple[Tensor, RMCState, SlotTrace]:
        """Compute a step and the attention and gates inside it; see `TracedCore`."""
        state, trace = self._advance(self.project(inputs), state.memory)
        return self._output(state.memory), state, SlotTrace(torch.stack(trace[0], 1), trace[1], trace[2])

    def _output(self, memory: Tensor) -> Tensor:
        """[..., N, D] -> [..., N * D]."""
        output = memory.flatten(-2)
        if not self.normalize_output:
            return output
        return layer_norm(output, output.shape[-1:], self.output_gain, eps=LAYER_NORM_EPS)

    def _advance(
        self, projected: tuple[Tensor, ...], memory: Tensor
    ) -> tuple[RMCState, tuple[list[Tensor], Tensor, Tensor]]:
        """Return the next state, and the attention weights [B, A, N, R] of each block and both gates."""
        x, x_qkv = projected[0].unsqueeze(1), projected[1].unsqueeze(1)  # [B, 1, *]
        rows = memory
        weights = []
        for block, qkv in enumerate(self.qkv):
            if block > 0:
                x_qkv = qkv(x)
            qkv_rows = self.qkv_norm[block](torch.cat([qkv(rows), x_qkv], dim=1))  # [B, R, F]
            last = block == len(self.qkv) - 1
            if not last:  # the input's row is not used after the last block
                rows = torch.cat([rows, x], dim=1)
            attended, w = self._attend(qkv_rows, num_queries=rows.shape[1])
            weights.append(w[:, :, : self.num_slots])
            rows = self.attention_norm[block](rows + attended)
            rows = self.mlp_norm[block](rows + self._mlp(rows))
            if not last:
                rows, x = rows[:, : self.num_slots], rows[:, self.num_slots :]

        if self.gate_style == "none":
            i, f = torch.ones_like(rows[..., :1]), torch.zeros_like(rows[..., :1])
            return RMCState(rows), (weights, i, f)
        content = torch.tanh(memory)
        called = self._gates_differ()
        terms = self.memory_gates(content) if called else linear(content, self.memory_gates.weight)
        gates = projected[2].unsqueeze(1) + self._both(terms, -1)
        i, f = torch.sigmoid(gates).chunk(2, dim=-1)  # [B, N, D or 1]
        return RMCState(i * torch.tanh(rows) + f * memory), (weights, i, f)

    def _attend(self, qkv: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
        """softmax(q k^T / sqrt(K)) v of the first Q rows: [B, R, F] -> [B, Q, D] and weights [B, A, Q, R]."""
        heads = qkv.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, A, R, 2K+V]
        q, k, v = heads.split([self.key_size, self.key_size, self.head_size], dim=-1)
        logits = q[:, :, :num_queries] @ k.transpose(-1, -2) * self.key_size**-0.5
        if self._attention_mask is not None:
            logits = logits.masked_fill(self._attention_mask[:num_queries], -torch.inf)
        weights = torch.softmax(logits, dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2), weights

    def _mlp(self, rows: Tensor) -> Tensor:
        for depth, layer in enumerate(self.mlp):
            rows = layer(torch.relu(rows) if depth > 0 else rows)
        return rows

    def _both(self, forget: Tensor, axis: int) -> Tensor:
        """Extend coupled gates to input and forget gates: sigmoid(-z) = 1 - sigmoid(z)."""
        return torch.cat([-forget, forget], axis) if self.coupled_gates else forget

    def _gate_weights(self) -> tuple[Tensor, ...]:
        """Return weights [2G, D] and biases [2G] of input gates, then of memory gates."""
        weights = *_affine(self.input_gates), *_affine(self.memory_gates)
        return tuple(self._both(weight, 0) for weight in weights)

    def _gates_differ(self) -> bool:
        """Return whether the layers of the gates have to be called, since they have hooks, for example.

        Otherwise their biases are added up once for all slots.
        """
        return not are_plain(self.input_gates, self.memory_gates)

    def _has_fused_sequence(self, inputs: Tensor) -> bool:
        """Return whether `_fused_sequence` can replace the loop of `recur`: one block, nothing changed."""
        return (
            len(self.qkv) == 1
            and eager(inputs.device)
            and are_plain(*self._layers())
            and not replaces(self, RMC, "initial_state", "project", "recur")
        )

    def _layers(self) -> list[Any]:
        """Return all layers with weights."""
        layers: list[Any] = []
        for module in self._modules.values():
            layers += module._modules.values() if type(module) is nn.ModuleList else (module,)
        return layers

    def _fused_sequence(
        self, inputs: Tensor, state: RMCState, starts: Tensor | None, ids: Tensor | None = None
    ) -> tuple[Tensor, RMCState]:
        """Run the loop over `recur` as one autograd node: in C or Triton where supported, else in PyTorch."""
        context, p = self._native_arguments(state, starts, ids)
        if rmc_native.usable(inputs, context, p, self.num_heads):
            memories, last = rmc_native.native_sequence(inputs, context, p, self.num_heads)
            return self._output(memories), RMCState(last)

        inputs = inputs if ids is None else IndexedInputs(inputs, ids).gather()
        _, x_qkv, *x_gates = self.project(inputs)  # x itself is not used after the only block
        weights, mask = Weights(*p[2:10], gates=p.gates, mlp=p.mlp), context.mask
        triton = rmc_triton.unusable(x_qkv, state.memory, weights, self.num_heads, mask) is None
        run = rmc_triton.triton_sequence if triton else rmc_sequence
        memories, last = run(
            x_qkv, x_gates[0] if x_gates else None, *context[:3], weights, self.num_heads, mask
        )
        return self._output(memories), RMCState(last)

    def _native_arguments(
        self, state: RMCState, starts: Tensor | None, ids: Tensor | None
    ) -> tuple[rmc_native.Context, rmc_native.Parameters]:
        """Return what a sequence in C reads besides the inputs."""
        gated = self.gate_style != "none"
        qkv, norms = _affine(self.qkv[0]), (self.qkv_norm[0], self.attention_norm[0], self.mlp_norm[0])
        shared = *qkv, *(parameter for norm in norms for parameter in _affine(norm))
        mlp = tuple(parameter for layer in self.mlp for parameter in _affine(layer))
        gates = self._gate_weights() if gated else (None,) * 4
        parameters = rmc_native.Parameters(*_affine(self.input_proj), *shared, *gates, mlp=mlp)
        fresh = None if starts is None else self._fresh
        mask = None if self._attention_mask is None else self._attention_mask[: self.num_slots]
        bias = self._gate_bias if gated else None
        return rmc_native.Context(state.memory, fresh, starts, bias, mask, ids), parameters


def _attention_mask(num_slots: int, slot_attention: SlotAttention) -> Tensor | None:
    """[R, R] true where a row (first axis) may not attend to another; None for no mask.

    The input's row attends only to itself: otherwise it would pass information between slots in later blocks.
    """
    if slot_attention == "all":
        return None
    mask = torch.ones(num_slots + 1, num_slots + 1, dtype=torch.bool)
    mask[:, -1] = False
    return mask.fill_diagonal_(False) if slot_attention == "own" else mask


def _affine(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias


def _initialise(linear: nn.Linear) -> None:
    """Initialise as Sonnet: a normal of deviation 1/sqrt(fan_in) cut at two deviations, and zero biases."""
    std = linear.in_features**-0.5
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(linear.bias)

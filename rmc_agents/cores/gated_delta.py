"""Gated delta rule: a matrix memory that is written by content.

Axes: T time, L steps of a chunk, B batch, I input size, A heads, K key size, V value size, H = A * V output
size, G gate size (V or 0).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize, silu

from rmc_agents.cores.base import HoistedCore, require_choice, require_positive
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.unchanged import replaces

Write = Literal["replace", "add"]
CHUNK = 32
"""Steps computed at once: their products with each other cost O(L^2), the loop over chunks O(T / L)."""
ADDED_SCALE = 0.1
"""Of what is read from a memory that adds up: sums of tens of values become as large as other features."""


class GatedDeltaState(NamedTuple):
    memory: Tensor
    """[B, A, K, V] what each head has stored: the sum of keys times values."""


class _Projected(NamedTuple):
    """What a step needs of its input; in front of the last axes [..., A]."""

    query: Tensor
    """[..., A, K] of length 1."""
    key: Tensor
    """[..., A, K] of length 1."""
    value: Tensor
    """[..., A, V]."""
    log_decay: Tensor
    """[..., A] logarithm of the share of the memory that is kept."""
    write: Tensor
    """[..., A] share of a value that is written."""
    gate: Tensor
    """[..., A, G] of the output."""


class GatedDelta(HoistedCore):
    """Gated DeltaNet (Yang et al. 2024), the memory alone: a linear memory with decay and the delta rule.

    A step reads inputs [B, I]. Each head projects them to a query q, a key k and a value v, and computes

        q, k = normalize(silu(W x)),  v = W x,  a = sigmoid(w x + forget_bias),  b = sigmoid(w x)
        S = a S                                 decay
        S' = S + k (b (v - S^T k))^T            write: what is stored for k becomes v, as far as b says
        output = layer_norm(S'^T q) * silu(W x)     [B, A, V], flattened to [B, H]

    A write replaces what was stored for its key, and leaves what was stored for orthogonal keys. The short
    convolutions and the output projection of the paper's block are left out: an agent's encoder and heads are
    in their place.

    With `write="add"`, what is written for a key adds up instead, as in linear attention (Katharopoulos et
    al. 2020) with a decay,

        S' = S + k (b v)^T,  output = S'^T q / 10

    and the output is neither normalised nor gated, since its size says how often the key was written: such a
    memory counts.

    `unroll` computes chunks of L steps at once (their writes are the solution of a triangular system), which
    gives the values and gradients of the loop over `step`. Cost per step and batch row: O(I H + A K V), and
    O(A L (K + V)) more in `unroll`.

    Args:
        input_size: I.
        num_heads: A.
        key_size: K.
        value_size: V.
        forget_bias: bias of the decay gate; 4 keeps 98 % of the memory per step at first.
        write: "replace" what is stored for a key (the delta rule), or "add" to it.

    Raises:
        ValueError: a size is not a positive integer, or `write` has another value.
    """

    capturable = True

    def __init__(
        self,
        input_size: int,
        *,
        num_heads: int = 4,
        key_size: int = 16,
        value_size: int = 16,
        forget_bias: float = 4.0,
        write: Write = "replace",
    ) -> None:
        super().__init__(input_size)
        require_positive(num_heads=num_heads, key_size=key_size, value_size=value_size)
        require_choice("write", write, get_args(Write))
        self.adds = write == "add"
        self.num_heads, self.key_size, self.value_size = num_heads, key_size, value_size
        A, K, V = num_heads, key_size, value_size
        self.gate_size = 0 if self.adds else V
        self.sizes = (A * K, A * K, A * V, A, A, A * self.gate_size)
        self.input_proj = nn.Linear(input_size, sum(self.sizes))
        self.output_norm = None if self.adds else nn.LayerNorm(value_size)
        with torch.no_grad():
            self.input_proj.bias.zero_()
            self.input_proj.bias[2 * A * K + A * V :][:A] = forget_bias

    @property
    def output_size(self) -> int:
        return self.num_heads * self.value_size

    def initial_state(self, batch_size: int) -> GatedDeltaState:
        size = batch_size, self.num_heads, self.key_size, self.value_size
        return GatedDeltaState(self._anchor.new_zeros(size))

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        query, key, value, decay, write, gate = self.input_proj(inputs).split(self.sizes, dim=-1)
        query, key = (
            normalize(silu(x).unflatten(-1, (self.num_heads, self.key_size)), dim=-1) for x in (query, key)
        )
        value = value.unflatten(-1, (self.num_heads, self.value_size))
        gate = silu(gate).unflatten(-1, (self.num_heads, self.gate_size))
        return _Projected(query, key, value, logsigmoid(decay), torch.sigmoid(write), gate)

    def recur(self, projected: tuple[Tensor, ...], state: GatedDeltaState) -> tuple[Tensor, GatedDeltaState]:
        query, key, value, log_decay, write, gate = projected
        memory = state.memory * log_decay.exp()[..., None, None]
        if not self.adds:
            value = value - (key.unsqueeze(-2) @ memory).squeeze(-2)  # [B, A, V] what was stored
        change = write.unsqueeze(-1) * value
        memory = memory + key.unsqueeze(-1) * change.unsqueeze(-2)
        read = (query.unsqueeze(-2) @ memory).squeeze(-2)
        return self._output(read, gate), GatedDeltaState(memory)

    def _output(self, read: Tensor, gate: Tensor) -> Tensor:
        """Return the output [..., H] from what was read [..., A, V]."""
        output = ADDED_SCALE * read if self.output_norm is None else self.output_norm(read) * gate
        return output.flatten(-2)

    def unroll(
        self, inputs: Tensor, state: GatedDeltaState, starts: Tensor
    ) -> tuple[Tensor, GatedDeltaState]:
        if not eager(inputs.device) or replaces(self, GatedDelta, "initial_state", "recur"):
            return super().unroll(inputs, state, starts)
        projected = self.project(inputs)
        memory, reads = state.memory, []
        for first in range(0, len(inputs), CHUNK):
            chunk = _Projected._make(x[first : first + CHUNK] for x in projected)
            read, memory = _chunk(chunk, memory, starts[first : first + CHUNK], self.adds)
            reads.append(read)
        return self._output(torch.cat(reads), projected[-1]), GatedDeltaState(memory)


def _chunk(projected: _Projected, memory: Tensor, starts: Tensor, adds: bool) -> tuple[Tensor, Tensor]:
    """Compute L steps at once.

    With D[t, s] the share of the memory of step s that is left at step t, and u_s what step s writes,

        S_t = D[t, 0] S_0 + sum over s <= t of D[t, s] k_s u_s^T
        u_t = b_t (v_t - D[t, 0] S_0^T k_t - sum over s < t of D[t, s] (k_s . k_t) u_s)

    so that the u are the solution of a system of L equations; if values add up, u_t = b_t v_t. Where an
    episode starts between s and t, D[t, s] is 0.

    Args:
        projected: of the L steps, [L, B, A, ...].
        memory: [B, A, K, V] before them.
        starts: [L, B] bool.
        adds: values add up, and replace nothing.

    Returns:
        what was read [L, B, A, V], and the memory after the last step.
    """
    query, key, value = (x.permute(1, 2, 0, 3) for x in projected[:3])  # [B, A, L, *]
    write = projected.write.permute(1, 2, 0).unsqueeze(-1)  # [B, A, L, 1]
    episode = starts.t().cumsum(1)  # [B, L], 0 before the first start
    length = len(starts)
    before = torch.ones(length, length, dtype=torch.bool, device=starts.device).tril()
    same = ((episode.unsqueeze(2) == episode.unsqueeze(1)) & before).unsqueeze(1)  # [B, 1, t, s]
    # A product, not a cumulative sum over episodes, of whose gradient rounding would leave something.
    decay = projected.log_decay.permute(1, 2, 0).unsqueeze(-1)  # [B, A, L, 1]
    total = same.to(decay.dtype) @ decay  # since the start of the episode, or of the chunk
    share = (total - total.transpose(-1, -2)).masked_fill(~same, -torch.inf).exp()  # [B, A, t, s]
    first = total.exp().masked_fill((episode > 0).view(-1, 1, length, 1), 0.0)  # [B, A, L, 1]
    memory = torch.where((episode[:, 0] > 0).view(-1, 1, 1, 1), 0, memory)  # 0 * inf is not 0
    if adds:
        changes = write * value
    else:
        weights = (write * share * (key @ key.transpose(-1, -2))).tril(-1)
        wanted = write * (value - first * (key @ memory))
        system = weights + torch.eye(length, dtype=weights.dtype, device=weights.device)
        changes = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    read = first * (query @ memory) + (share * (query @ key.transpose(-1, -2))) @ changes
    left = share[..., -1, :].unsqueeze(-1)  # [B, A, L, 1]
    memory = first[..., -1:, :] * memory + (left * key).transpose(-1, -2) @ changes
    return read.permute(2, 0, 1, 3), memory

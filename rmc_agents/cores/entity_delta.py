"""A delta memory that all entities in view write to at once, beside a GRU.

Axes: T time, B batch, I input size, J entities, E entity size, H controller size, A reads, K key size,
V value size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rmc_agents.cores.base import MemoryCore, require_number, require_positive, reset_rows
from rmc_agents.cores.gated import GRU, GRUState


class EntityDeltaState(NamedTuple):
    h: Tensor
    """[B, H] of the controller."""
    memory: Tensor
    """[B, K, V] the sum of keys times values."""


class _Writes(NamedTuple):
    """What the entities of a step write; in front of the last axes [..., J]."""

    keys: Tensor
    """[..., J, K] of length 1."""
    values: Tensor
    """[..., J, V]."""
    shares: Tensor
    """[..., J, 1] of each value that is written."""


class EntityDelta(MemoryCore):
    """A GRU and a delta memory of entities: inputs [B, I] -> output
    [B, H + A * V + K * V].

    The first J * E inputs are entities e_1 to e_J, such as the cells of a view; the rest is x. Without
    entities, the whole input is both x and the only entity. All entities share their weights, but each has a
    place p_j of its own. What is seen is bound to where it is seen, as the controller's output h says where
    the agent is:

        h = GRU(x, h)
        k_j = normalize(W e_j),  v_j = W e_j + p_j + W h,  s_j = sigmoid(w e_j)
        b_j = s_j / max(1, sum_i s_i |k_i . k_j|)
        S' = d S + sum_j b_j k_j (v_j - d S^T k_j)^T    all write at once; d = sigmoid(forget bias)
        r_a = S'^T normalize(W_a [x; h])                A reads
        output = [h; r_1; ...; r_A; S'], S' flattened

    It is the delta rule of `GatedDelta` for many writes in a step. All of them happen at once, so the shares
    s_j of entities with similar keys are reduced to b_j, with which the eigenvalues of
    I - sum_j b_j k_j k_j^T lie in [0, 1]: together they overwrite what is stored at most once.

    A recurrent layer must learn to store places separately for each kind of thing; here the entities share
    their keys and values, which bind from the start (docs/results/worlds.md).

    Cost per step and batch row, with X the size of x: O((X + H) (H + A K) + H V + J E (K + V) + J^2 K +
    (J + A) K V). All but the GRU's recurrence, O(H^2), and the writes, O(J K V), runs in parallel over time.

    Args:
        input_size: I.
        hidden_size: H.
        key_size: K.
        value_size: V.
        num_reads: A.
        num_entities: J; 0 for one entity, the whole input. An agent sets it to the number of cells that it
            feeds to the core (`AgentConfig.cell_size`).
        entity_size: E.
        forget_bias: the initial bias of the decay, which is learned; 6 keeps .9975 per step.

    Raises:
        ValueError: a size is not a positive integer, or the entities leave nothing of the input.
    """

    capturable = True
    reads_entities = True

    def __init__(
        self,
        input_size: int,
        *,
        hidden_size: int = 128,
        key_size: int = 32,
        value_size: int = 16,
        num_reads: int = 4,
        num_entities: int = 0,
        entity_size: int = 0,
        forget_bias: float = 6.0,
    ) -> None:
        super().__init__(input_size)
        require_positive(
            hidden_size=hidden_size, key_size=key_size, value_size=value_size, num_reads=num_reads
        )
        require_number(forget_bias=forget_bias)
        if num_entities or entity_size:
            if not (num_entities and entity_size):
                raise ValueError("num_entities and entity_size must be given together")
            require_positive(num_entities=num_entities, entity_size=entity_size)
            if num_entities * entity_size >= input_size:
                raise ValueError(
                    f"num_entities={num_entities} of entity_size={entity_size} leave nothing of an input of "
                    f"{input_size} numbers"
                )
        self.entities_size = num_entities * entity_size
        self.num_entities, self.entity_size = max(num_entities, 1), entity_size or input_size
        self.key_size, self.value_size, self.num_reads = key_size, value_size, num_reads
        self.controller = GRU(input_size - self.entities_size, hidden_size=hidden_size)
        self.key = nn.Linear(self.entity_size, key_size, bias=False)
        self.value = nn.Linear(self.entity_size, value_size)
        self.place = nn.Parameter(0.3 * torch.randn(self.num_entities, value_size))
        self.position = nn.Linear(hidden_size, value_size, bias=False)
        self.share = nn.Linear(self.entity_size, 1)
        self.query = nn.Linear(input_size - self.entities_size + hidden_size, num_reads * key_size)
        self.forget_bias = nn.Parameter(torch.tensor(float(forget_bias)))
        nn.init.zeros_(self.share.bias)

    @property
    def output_size(self) -> int:
        return self.controller.output_size + (self.num_reads + self.key_size) * self.value_size

    def initial_state(self, batch_size: int) -> EntityDeltaState:
        memory = self.place.new_zeros(batch_size, self.key_size, self.value_size)
        return EntityDeltaState(self.controller.initial_state(batch_size).h, memory)

    def step(self, inputs: Tensor, state: EntityDeltaState) -> tuple[Tensor, EntityDeltaState]:
        entities, x = self._split(inputs)
        h, after = self.controller.step(x, GRUState(state.h))
        memory = _write(state.memory, torch.sigmoid(self.forget_bias), self._writes(entities, h))
        return self._read(x, h, memory), EntityDeltaState(after.h, memory)

    def unroll(
        self, inputs: Tensor, state: EntityDeltaState, starts: Tensor
    ) -> tuple[Tensor, EntityDeltaState]:
        entities, x = self._split(inputs)
        h, after = self.controller.unroll(x, GRUState(state.h), starts)
        writes, decay = self._writes(entities, h), torch.sigmoid(self.forget_bias)
        memory, memories = state.memory, []
        fresh = torch.zeros_like(memory)
        for start, *parts in zip(starts.unbind(0), *(part.unbind(0) for part in writes), strict=True):
            memory = _write(reset_rows(memory, fresh, start), decay, _Writes(*parts))
            memories.append(memory)
        return self._read(x, h, torch.stack(memories)), EntityDeltaState(after.h, memory)

    def _split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entities [..., J, E], and the rest of the input."""
        if not self.entities_size:
            return inputs.unsqueeze(-2), inputs
        entities, x = inputs.split([self.entities_size, self.input_size - self.entities_size], dim=-1)
        return entities.unflatten(-1, (self.num_entities, self.entity_size)), x

    def _writes(self, entities: Tensor, h: Tensor) -> _Writes:
        """Return what entities [..., J, E] write beside an output of the controller [..., H]."""
        keys = normalize(self.key(entities), dim=-1)
        values = self.value(entities) + self.place + self.position(h).unsqueeze(-2)
        shares = torch.sigmoid(self.share(entities))
        similar = (keys @ keys.transpose(-1, -2)).abs()
        return _Writes(keys, values, shares / (similar @ shares).clamp(min=1))

    def _read(self, x: Tensor, h: Tensor, memory: Tensor) -> Tensor:
        """Return the output for a memory [..., K, V] after the writes."""
        queries = self.query(torch.cat([x, h], -1)).unflatten(-1, (self.num_reads, self.key_size))
        found = normalize(queries, dim=-1) @ memory
        return torch.cat([h, found.flatten(-2), memory.flatten(-2)], -1)


def _write(memory: Tensor, decay: Tensor, writes: _Writes) -> Tensor:
    """Return the memory [B, K, V] after its decay and the writes of a step."""
    keys, values, shares = writes
    memory = decay * memory
    return memory + keys.transpose(1, 2) @ (shares * (values - keys @ memory))

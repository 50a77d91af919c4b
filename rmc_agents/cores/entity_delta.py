"""A delta memory that all entities in view write to at once, beside a GRU.

Axes: T time, B batch, I input size, J entities, E entity size, H controller size, A reads, N chained reads,
K key size, V value size, M numbers of what is stored: V, or V + K with chained reads, O size of the odometer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rmc_agents.cores.base import MemoryCore, require_number, require_positive, reset_rows
from rmc_agents.cores.gated import GRU, GRUState
from rmc_agents.options import MAX_SIZE


class EntityDeltaState(NamedTuple):
    h: Tensor
    """[B, H] of the controller."""
    memory: Tensor
    """[B, K, M] the sum of keys times values."""
    odometer: Tensor
    """[B, O] the sum of the moves."""


class _Writes(NamedTuple):
    """What the entities of a step write; in front of the last axes [..., J]."""

    keys: Tensor
    """[..., J, K] of length 1."""
    values: Tensor
    """[..., J, M]."""
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

    Entities may have names (`AgentConfig.cell_names`), n_j, the last numbers of each: then k_j = n_j. Learned
    keys tend to become alike for things that are alike, as long as only one of them is looked for.

    With `num_hops`, the last C numbers c_j of each entity are its context: what lies around it
    (`AgentConfig.cell_neighbours`), and the last of them the names around it, m_j. An entity's value ends
    with a link, made of these names. So N reads can follow one another from thing to thing, each with the
    link that the read before found:

        k_j = n_j,  v_j = [W [e_j; n_j; c_j] + p_j + W h; W m_j]
        q_1 = W [x; h],  [f_i; l_i] = S'^T normalize(q_i),  q_{i+1} = l_i + W f_i + b
        g_i = sigmoid((W [f_i; l_i]) . (W [x; h]) / sqrt(32) - 2)       what of the chain is looked for now
        output = [h; r_1; ...; r_A; f_1; l_1; ...; f_N; l_N; sum_i g_i [f_i; l_i]; g_1; ...; g_N]

    With `odometer_size`, the place of the agent need not be kept by the GRU, which learns it slowly and loses
    it: o adds up the moves of an episode, and stands beside h in all of the equations above. The moves are
    read from a, the last D inputs, such as the previous action; the gate learns which of them were blocked:

        o = o + sigmoid(W [x; h] + b) * W a         b = 2 at first; o = 0 before an episode

    Cost per step and batch row, with X the size of x: O((X + H) (H + A K) + H V + J E (K + V) + J^2 K +
    (J + A) K V). All but the GRU's recurrence, O(H^2), the writes, O(J K V), and the sum of the moves, O(O),
    runs in parallel over time.

    Args:
        input_size: I.
        hidden_size: H.
        key_size: K; that of the names, if there are some.
        value_size: V.
        num_reads: A.
        num_hops: N; 0 for no chained reads. With them, the output does not hold S'.
        odometer_size: O; 0 for none.
        num_entities: J; 0 for one entity, the whole input. An agent sets it to the number of cells that it
            feeds to the core (`AgentConfig.cell_size`).
        entity_size: E, name and context included.
        context_size: C; an agent with `cell_neighbours` sets it.
        name_size: size of n_j; an agent with `cell_names` sets it.
        extra_size: D; an agent sets it to the number of inputs besides its observation (its previous action
            and reward, say). 0: moves are read from the whole of x.
        forget_bias: the initial bias of the decay, which is learned; 6 keeps .9975 per step.

    Raises:
        ValueError: a size is not a positive integer, the entities leave nothing of the input, names are no
            keys of `key_size`, or chained reads have no names around to follow.
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
        num_hops: int = 0,
        odometer_size: int = 0,
        num_entities: int = 0,
        entity_size: int = 0,
        context_size: int = 0,
        name_size: int = 0,
        extra_size: int = 0,
        forget_bias: float = 6.0,
    ) -> None:
        super().__init__(input_size)
        require_positive(
            hidden_size=hidden_size, key_size=key_size, value_size=value_size, num_reads=num_reads
        )
        require_number(forget_bias=forget_bias)
        optional = {"num_hops": num_hops, "odometer_size": odometer_size, "context_size": context_size}
        for name, size in (optional | {"name_size": name_size, "extra_size": extra_size}).items():
            if type(size) is not int or not 0 <= size <= MAX_SIZE:
                raise ValueError(f"{name} must be a whole number from 0 to {MAX_SIZE}, got {size!r}")
        if num_entities or entity_size:
            if not (num_entities and entity_size):
                raise ValueError("num_entities and entity_size must be given together")
            require_positive(num_entities=num_entities, entity_size=entity_size)
            if num_entities * entity_size >= input_size:
                raise ValueError(
                    f"num_entities={num_entities} of entity_size={entity_size} leave nothing of an input of "
                    f"{input_size} numbers"
                )
        own_size = (entity_size or input_size) - context_size
        if own_size < 1:
            raise ValueError(
                f"context_size={context_size} leaves nothing of entities of entity_size={entity_size}"
            )
        if name_size and (name_size != key_size or name_size > own_size):
            raise ValueError(
                f"names are the keys: name_size={name_size} must equal key_size={key_size}, and is part of "
                f"the {own_size} numbers of an entity"
            )
        if num_hops and not 0 < name_size <= context_size:
            raise ValueError(
                f"num_hops={num_hops} follows the names of neighbouring cells: build the agent with "
                "cell_names and cell_neighbours, or give num_entities, entity_size, name_size and "
                "context_size"
            )
        self.entities_size = num_entities * entity_size
        x_size = input_size - self.entities_size
        if extra_size > x_size:
            raise ValueError(f"extra_size={extra_size}: there are {x_size} inputs besides the entities")
        self.num_entities, self.entity_size = max(num_entities, 1), entity_size or input_size
        self.own_size, self.name_size = own_size, name_size
        self.key_size, self.value_size = key_size, value_size
        self.num_reads, self.num_hops = num_reads, num_hops
        self.stored_size = value_size + key_size * bool(num_hops)
        """M."""
        self.controller = GRU(x_size, hidden_size=hidden_size)
        self.odometer_size = odometer_size
        self.odometer = None
        if odometer_size:
            self.odometer = _Odometer(x_size + hidden_size, extra_size or x_size, odometer_size)
        known_size = hidden_size + odometer_size
        self.key = None if name_size else nn.Linear(self.own_size, key_size, bias=False)
        self.value = nn.Linear(self.entity_size, value_size)
        self.place = nn.Parameter(0.3 * torch.randn(self.num_entities, value_size))
        self.position = nn.Linear(known_size, value_size, bias=False)
        self.share = nn.Linear(self.entity_size, 1)
        self.query = nn.Linear(x_size + known_size, num_reads * key_size)
        self.chain = _Chain(x_size + known_size, key_size, value_size, num_hops) if num_hops else None
        self.forget_bias = nn.Parameter(torch.tensor(float(forget_bias)))
        nn.init.zeros_(self.share.bias)

    @property
    def output_size(self) -> int:
        found = self.num_reads * self.stored_size
        more = self.key_size * self.stored_size if self.chain is None else self.chain.output_size
        return self.position.in_features + found + more

    def initial_state(self, batch_size: int) -> EntityDeltaState:
        memory = self.place.new_zeros(batch_size, self.key_size, self.stored_size)
        h = self.controller.initial_state(batch_size).h
        return EntityDeltaState(h, memory, h.new_zeros(batch_size, self.odometer_size))

    def step(self, inputs: Tensor, state: EntityDeltaState) -> tuple[Tensor, EntityDeltaState]:
        entities, x = self._split(inputs)
        h, after = self.controller.step(x, GRUState(state.h))
        odometer = state.odometer
        if self.odometer is not None:
            odometer = odometer + self.odometer(x, h)
            h = torch.cat([h, odometer], dim=-1)
        memory = _write(state.memory, torch.sigmoid(self.forget_bias), self._writes(entities, h))
        return self._read(x, h, memory), EntityDeltaState(after.h, memory, odometer)

    def unroll(
        self, inputs: Tensor, state: EntityDeltaState, starts: Tensor
    ) -> tuple[Tensor, EntityDeltaState]:
        entities, x = self._split(inputs)
        h, after = self.controller.unroll(x, GRUState(state.h), starts)
        odometer = state.odometer
        if self.odometer is not None:
            readings = _add_up(self.odometer(x, h), odometer, starts)
            h, odometer = torch.cat([h, readings], dim=-1), readings[-1]
        writes, decay = self._writes(entities, h), torch.sigmoid(self.forget_bias)
        memory, memories = state.memory, []
        fresh = torch.zeros_like(memory)
        for start, *parts in zip(starts.unbind(0), *(part.unbind(0) for part in writes), strict=True):
            memory = _write(reset_rows(memory, fresh, start), decay, _Writes(*parts))
            memories.append(memory)
        return self._read(x, h, torch.stack(memories)), EntityDeltaState(after.h, memory, odometer)

    def _split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entities [..., J, E], and the rest of the input."""
        if not self.entities_size:
            return inputs.unsqueeze(-2), inputs
        entities, x = inputs.split([self.entities_size, self.input_size - self.entities_size], dim=-1)
        return entities.unflatten(-1, (self.num_entities, self.entity_size)), x

    def _writes(self, entities: Tensor, h: Tensor) -> _Writes:
        """Return what entities [..., J, E] write beside what the controller knows [..., H + O]."""
        own = entities[..., : self.own_size]
        keys = own[..., self.own_size - self.name_size :] if self.key is None else self.key(own)
        keys = normalize(keys, dim=-1)
        values = self.value(entities) + self.place + self.position(h).unsqueeze(-2)
        if self.chain is not None:
            values = torch.cat([values, self.chain.link(entities[..., -self.name_size :])], dim=-1)
        shares = torch.sigmoid(self.share(entities))
        similar = (keys @ keys.transpose(-1, -2)).abs()
        return _Writes(keys, values, shares / (similar @ shares).clamp(min=1))

    def _read(self, x: Tensor, h: Tensor, memory: Tensor) -> Tensor:
        """Return the output for a memory [..., K, M] after the writes."""
        asking = torch.cat([x, h], -1)
        queries = self.query(asking).unflatten(-1, (self.num_reads, self.key_size))
        found = normalize(queries, dim=-1) @ memory
        more = memory.flatten(-2) if self.chain is None else self.chain(asking, memory)
        return torch.cat([h, found.flatten(-2), more], -1)


class _Odometer(nn.Module):
    """The moves of each step, as numbers that can be added up.

    Args:
        reading_size: size of [x; h], which tell whether a move was made.
        moves_size: D, the inputs at the end of x that tell which one.
        size: O.
    """

    def __init__(self, reading_size: int, moves_size: int, size: int) -> None:
        super().__init__()
        self.moves_size, self.size = moves_size, size
        self.gate = nn.Linear(reading_size, size)
        self.moves = nn.Linear(moves_size, size, bias=False)
        nn.init.constant_(self.gate.bias, 2.0)  # most moves are made

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the moves [..., O] of inputs [..., X] and outputs of the controller [..., H]."""
        gate = torch.sigmoid(self.gate(torch.cat([x, h], dim=-1)))
        return gate * self.moves(x[..., x.shape[-1] - self.moves_size :])


def _add_up(moves: Tensor, before: Tensor, starts: Tensor) -> Tensor:
    """Return the sums [T, B, O] of moves [T, B, O], which begin anew in each episode.

    Args:
        moves: at each step.
        before: [B, O] the sums before the first step.
        starts: [T, B] bool, where an episode starts.
    """
    sums, fresh = [], torch.zeros_like(before)
    for move, start in zip(moves.unbind(0), starts.unbind(0), strict=True):
        before = reset_rows(before, fresh, start) + move
        sums.append(before)
    return torch.stack(sums)


class _Chain(nn.Module):
    """Chained reads, each of which follows the link that the one before found.

    Args:
        asking_size: Q, what the first query is made from.
        key_size: K; also the size of a link.
        value_size: V, in front of the link.
        num_hops: N.
    """

    MATCH_SIZE = 32

    def __init__(self, asking_size: int, key_size: int, value_size: int, num_hops: int) -> None:
        super().__init__()
        self.value_size, self.num_hops = value_size, num_hops
        self.stored_size = value_size + key_size
        self.link = nn.Linear(key_size, key_size, bias=False)
        self.first = nn.Linear(asking_size, key_size)
        self.follow = nn.Linear(value_size, key_size)
        self.wanted = nn.Linear(asking_size, self.MATCH_SIZE)
        self.offered = nn.Linear(self.stored_size, self.MATCH_SIZE)
        self.output_size = (num_hops + 1) * self.stored_size + num_hops
        nn.init.eye_(self.link.weight)  # what is named alike, at first
        nn.init.zeros_(self.follow.weight)

    def forward(self, asking: Tensor, memory: Tensor) -> Tensor:
        """Return what is found [..., (N + 1) M + N] in a memory [..., K, M], asked for by [..., Q]."""
        query, found = self.first(asking), []
        for _ in range(self.num_hops):
            one = (normalize(query, dim=-1).unsqueeze(-2) @ memory).squeeze(-2)
            found.append(one)
            query = one[..., self.value_size :] + self.follow(one[..., : self.value_size])
        chain = torch.stack(found, dim=-2)  # [..., N, M]
        scores = (self.offered(chain) @ self.wanted(asking).unsqueeze(-1)).squeeze(-1)
        matches = torch.sigmoid(scores / self.MATCH_SIZE**0.5 - 2)
        best = (matches.unsqueeze(-1) * chain).sum(-2)
        return torch.cat([chain.flatten(-2), best, matches], dim=-1)


def _write(memory: Tensor, decay: Tensor, writes: _Writes) -> Tensor:
    """Return the memory [B, K, M] after its decay and the writes of a step."""
    keys, values, shares = writes
    memory = decay * memory
    return memory + keys.transpose(1, 2) @ (shares * (values - keys @ memory))

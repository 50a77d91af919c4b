"""The delta memory of entities in plain NumPy, one entity after the other, for one batch row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmc_agents.cores import EntityDelta
from tests.support.oracles.classical import gru_step, sigmoid

Array = NDArray[np.float64]


def step(
    core: EntityDelta, inputs: Array, h: Array, memory: Array, odometer: Array
) -> tuple[Array, Array, Array, Array]:
    """Compute a step for one row.

    Args:
        core: the core.
        inputs: [I].
        h: [H].
        memory: [K, M].
        odometer: [O].

    Returns:
        output, next h, next memory, next odometer.
    """
    p = {name: value.detach().numpy() for name, value in core.named_parameters()}
    J, E = core.num_entities, core.entity_size
    entities, x = inputs[: J * E].reshape(J, E), inputs[J * E :]
    if len(inputs) == E:  # the whole input is the entity
        x = inputs

    controller = {name.removeprefix("controller."): value for name, value in p.items()}
    h, _ = gru_step(controller, x, (h,))
    after = h
    if core.odometer is not None:
        moves = x[len(x) - core.odometer.moves_size :]
        gate = sigmoid(p["odometer.gate.weight"] @ np.concatenate([x, h]) + p["odometer.gate.bias"])
        odometer = odometer + gate * (p["odometer.moves.weight"] @ moves)
        h = np.concatenate([h, odometer])

    keys, values, shares = [], [], []
    own, named = core.own_size, core.name_size
    for entity, place in zip(entities, p["place"], strict=True):
        keys.append(normalized(entity[own - named : own] if named else p["key.weight"] @ entity[:own]))
        value = p["value.weight"] @ entity + p["value.bias"] + place + p["position.weight"] @ h
        link = p["chain.link.weight"] @ entity[E - named :] if core.num_hops else []
        values.append(np.concatenate([value, link]))
        shares.append(sigmoid(p["share.weight"] @ entity + p["share.bias"])[0])
    old = sigmoid(p["forget_bias"]) * memory
    memory = old.copy()
    for key, value, share in zip(keys, values, shares, strict=True):
        crowd = sum(b * abs(float(k @ key)) for k, b in zip(keys, shares, strict=True))
        memory += share / max(1.0, crowd) * np.outer(key, value - old.T @ key)

    asking = np.concatenate([x, h])
    queries = (p["query.weight"] @ asking + p["query.bias"]).reshape(core.num_reads, -1)
    found = [memory.T @ normalized(query) for query in queries]
    if not core.num_hops:
        return np.concatenate([h, *found, memory.ravel()]), after, memory, odometer

    query, chain, matches = p["chain.first.weight"] @ asking + p["chain.first.bias"], [], []
    wanted = p["chain.wanted.weight"] @ asking + p["chain.wanted.bias"]
    for _ in range(core.num_hops):
        read = memory.T @ normalized(query)
        offered = p["chain.offered.weight"] @ read + p["chain.offered.bias"]
        chain.append(read)
        matches.append(sigmoid(offered @ wanted / 32**0.5 - 2))
        value, link = np.split(read, [core.value_size])
        query = link + p["chain.follow.weight"] @ value + p["chain.follow.bias"]
    best = sum(match * read for match, read in zip(matches, chain, strict=True))
    return np.concatenate([h, *found, *chain, best, matches]), after, memory, odometer


def normalized(x: Array) -> Array:
    """Return a vector of the same direction and length 1."""
    return x / np.linalg.norm(x)

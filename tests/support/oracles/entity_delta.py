"""The delta memory of entities in plain NumPy, one entity after the other, for one batch row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmc_agents.cores import EntityDelta
from tests.support.oracles.classical import gru_step, sigmoid

Array = NDArray[np.float64]


def step(core: EntityDelta, inputs: Array, h: Array, memory: Array) -> tuple[Array, Array, Array]:
    """Compute a step for one row: inputs [I], h [H], memory [K, V] -> output, next h, next memory."""
    p = {name: value.detach().numpy() for name, value in core.named_parameters()}
    J, E = core.num_entities, core.entity_size
    entities, x = inputs[: J * E].reshape(J, E), inputs[J * E :]
    if len(inputs) == E:  # the whole input is the entity
        x = inputs

    controller = {name.removeprefix("controller."): value for name, value in p.items()}
    h, _ = gru_step(controller, x, (h,))

    keys, values, shares = [], [], []
    for entity, place in zip(entities, p["place"], strict=True):
        key = p["key.weight"] @ entity
        keys.append(key / np.linalg.norm(key))
        values.append(p["value.weight"] @ entity + p["value.bias"] + place + p["position.weight"] @ h)
        shares.append(sigmoid(p["share.weight"] @ entity + p["share.bias"])[0])
    old = sigmoid(p["forget_bias"]) * memory
    memory = old.copy()
    for key, value, share in zip(keys, values, shares, strict=True):
        crowd = sum(b * abs(float(k @ key)) for k, b in zip(keys, shares, strict=True))
        memory += share / max(1.0, crowd) * np.outer(key, value - old.T @ key)

    found = []
    for query in (p["query.weight"] @ np.concatenate([x, h]) + p["query.bias"]).reshape(core.num_reads, -1):
        found.append(memory.T @ (query / np.linalg.norm(query)))
    return np.concatenate([h, *found, memory.ravel()]), h, memory

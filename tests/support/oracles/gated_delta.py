"""The gated delta rule in plain NumPy, from the paper's equations, for one batch row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmc_agents.cores import GatedDelta
from tests.support.oracles.classical import sigmoid

Array = NDArray[np.float64]


def step(core: GatedDelta, x: Array, memory: Array) -> tuple[Array, Array]:
    """Compute a step for one row: x [I], memory [A, K, V] -> output [A, V], next memory."""
    weight, bias = (p.detach().numpy() for p in (core.input_proj.weight, core.input_proj.bias))
    A, K, V = core.num_heads, core.key_size, core.value_size
    q, k, v, a, b, gate = np.split(weight @ x + bias, np.cumsum([A * K, A * K, A * V, A, A]))
    q, k = ((z * sigmoid(z)).reshape(A, K) for z in (q, k))
    v = v.reshape(A, V)
    memory, outputs = memory.copy(), []
    for h in range(A):
        query, key = q[h] / np.linalg.norm(q[h]), k[h] / np.linalg.norm(k[h])
        memory[h] *= sigmoid(a[h])
        if core.output_norm is None:
            memory[h] += np.outer(key, sigmoid(b[h]) * v[h])
            outputs.append(memory[h].T @ query / 10)
            continue
        memory[h] += np.outer(key, sigmoid(b[h]) * (v[h] - memory[h].T @ key))
        read = memory[h].T @ query
        normal = (read - read.mean()) / np.sqrt(read.var() + core.output_norm.eps)
        scale, shift = (p.detach().numpy() for p in core.output_norm.parameters())
        outputs.append((normal * scale + shift) * (gate * sigmoid(gate)).reshape(A, V)[h])
    return np.concatenate(outputs), memory

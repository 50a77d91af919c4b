"""The Differentiable Neural Computer in plain NumPy, for one batch row, with loops over rows and heads.

Source: Graves et al. 2016, Methods. `p` maps the parameters' names in the module to values.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tests.support.oracles.classical import sigmoid

Array = NDArray[np.float64]
EPS = 1e-6


def dnc_step(
    p: Mapping[str, Array], x: Array, state: tuple[Array, ...], clip: float
) -> tuple[Array, tuple[Array, ...]]:
    """Compute a step: x [I] and the nine fields of a state -> output [H], next state."""
    h, c, memory, usage, written, precedence, link, read_before, reads = state
    n, w = memory.shape
    r = len(reads)
    size = len(h)

    gates = p["input_proj.weight"] @ x + p["input_proj.bias"]
    gates = gates + p["recurrent_proj.weight"] @ np.concatenate([h, reads.ravel()])
    i, f, g, o = (gates[k * size : (k + 1) * size] for k in range(4))
    c = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -clip, clip)
    h = np.clip(sigmoid(o) * np.tanh(c), -clip, clip)

    rest = list(p["interface.weight"] @ h + p["interface.bias"])

    def take(count: int) -> Array:
        taken = np.array(rest[:count])
        del rest[:count]
        return taken

    write_key, write_vector, erase = take(w), take(w), sigmoid(take(w))
    read_keys = take(r * w).reshape(r, w)
    write_strength, allocation_gate, write_gate = (
        1 + softplus(take(1)[0]),
        sigmoid(take(1)[0]),
        sigmoid(take(1)[0]),
    )
    read_strengths, free_gates = 1 + softplus(take(r)), sigmoid(take(r))
    modes = take(3 * r).reshape(r, 3)
    assert not rest

    retention = np.ones(n)
    for head in range(r):
        retention *= 1 - free_gates[head] * read_before[head]
    usage = (usage + written - usage * written) * retention

    scaled = EPS + (1 - EPS) * usage
    allocation, product = np.zeros(n), 1.0
    for row in np.argsort(scaled, kind="stable"):
        allocation[row] = (1 - scaled[row]) * product
        product *= scaled[row]

    content = by_content(memory, write_key, write_strength)
    written = write_gate * (allocation_gate * allocation + (1 - allocation_gate) * content)
    memory = memory * (1 - np.outer(written, erase)) + np.outer(written, write_vector)

    new_link = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            if a != b:
                new_link[a, b] = (1 - written[a] - written[b]) * link[a, b] + written[a] * precedence[b]
    precedence = (1 - written.sum()) * precedence + written

    read_now = np.zeros((r, n))
    for head in range(r):
        backward, by_key, forward = softmax(modes[head])
        content = by_content(memory, read_keys[head], read_strengths[head])
        read_now[head] = (
            backward * new_link.T @ read_before[head]
            + by_key * content
            + forward * new_link @ read_before[head]
        )
    reads = read_now @ memory
    output = p["output_proj.weight"] @ np.concatenate([h, reads.ravel()]) + p["output_proj.bias"]
    return output, (h, c, memory, usage, written, precedence, new_link, read_now, reads)


def by_content(memory: Array, key: Array, strength: float) -> Array:
    """Softmax over rows of strength * cosine similarity."""
    similarity = [row @ key / np.sqrt((row @ row + EPS) * (key @ key + EPS)) for row in memory]
    return softmax(strength * np.array(similarity))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))

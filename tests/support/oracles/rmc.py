"""The Relational Memory Core in plain NumPy, from the equations, for one batch row.

Source: Santoro et al. 2018 and the authors' implementation: identity as initial memory, one norm over all
queries, keys and values of a row, norms after the residual sums, no ReLU after the MLP, gates computed from
tanh of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tests.support.oracles.classical import sigmoid

Array = NDArray[np.float64]


def fresh_memory(num_slots: int, slot_size: int) -> Array:
    """Return the identity, with columns of zeros appended or columns cut."""
    memory = np.zeros((num_slots, slot_size))
    for slot in range(min(num_slots, slot_size)):
        memory[slot, slot] = 1.0
    return memory


def rmc_step(
    p: Mapping[str, Array],
    x: Array,
    memory: Array,
    *,
    num_heads: int,
    head_size: int,
    key_size: int,
    num_blocks: int,
    mlp_layers: int,
    gate_style: str,
    input_bias: float,
    forget_bias: float,
    forget_bias_end: float | None = None,
    coupled_gates: bool = False,
    slot_attention: str = "all",
) -> Array:
    """Compute a step: x [I], memory [N, D] -> next memory [N, D]; `p` maps names in the module to values."""
    num_slots = len(memory)
    x = affine(p, "input_proj", x)
    rows = [*memory, x]
    for block in range(num_blocks):
        qkv = [layer_norm(p, f"qkv_norm.{block}", affine(p, f"qkv.{block}", row)) for row in rows]
        rows = [
            layer_norm(
                p,
                f"attention_norm.{block}",
                row + attend(qkv[r], visible_rows(qkv, r, slot_attention), num_heads, key_size, head_size),
            )
            for r, row in enumerate(rows)
        ]
        rows = [layer_norm(p, f"mlp_norm.{block}", row + mlp(p, row, mlp_layers)) for row in rows]

    next_memory = np.zeros_like(memory)
    for slot in range(num_slots):
        if gate_style == "none":
            next_memory[slot] = rows[slot]
            continue
        gates = affine(p, "input_gates", x) + affine(p, "memory_gates", np.tanh(memory[slot]))
        half = 0 if coupled_gates else len(gates) // 2
        f = sigmoid(gates[half:] + forget_biases(forget_bias, forget_bias_end, num_heads, head_size))
        i = 1 - f if coupled_gates else sigmoid(gates[:half] + input_bias)
        next_memory[slot] = i * np.tanh(rows[slot]) + f * memory[slot]
    return next_memory


def forget_biases(first: float, last: float | None, num_heads: int, head_size: int) -> float | Array:
    """Return the bias of all units, or of each unit of a slot."""
    if last is None:
        return first
    biases = [first + (last - first) * unit / max(1, head_size - 1) for unit in range(head_size)]
    return np.array(biases * num_heads)


def visible_rows(rows: list[Array], r: int, slot_attention: str) -> list[Array]:
    """Return the rows that row `r` may attend to; the input is the last row."""
    if slot_attention == "all":
        return rows
    if slot_attention == "own" and r < len(rows) - 1:
        return [rows[r], rows[-1]]
    return [rows[-1]]


def attend(own: Array, rows: list[Array], num_heads: int, key_size: int, head_size: int) -> Array:
    """Return the attention output of one row; a row holds query, key and value of each head in turn."""
    heads = []
    for head in range(num_heads):
        start = head * (2 * key_size + head_size)
        q = own[start : start + key_size]
        scores = [q @ row[start + key_size : start + 2 * key_size] / np.sqrt(key_size) for row in rows]
        weights = np.exp(scores - np.max(scores))
        weights /= weights.sum()
        value = np.zeros(head_size)
        for weight, row in zip(weights, rows, strict=True):
            value += weight * row[start + 2 * key_size : start + 2 * key_size + head_size]
        heads.append(value)
    return np.concatenate(heads)


def mlp(p: Mapping[str, Array], row: Array, num_layers: int) -> Array:
    """Apply linear layers with a ReLU between them."""
    for layer in range(num_layers):
        row = affine(p, f"mlp.{layer}", row)
        if layer < num_layers - 1:
            row = np.maximum(row, 0.0)
    return row


def affine(p: Mapping[str, Array], name: str, x: Array) -> Array:
    """W x + b."""
    return p[f"{name}.weight"] @ x + p[f"{name}.bias"]


def layer_norm(p: Mapping[str, Array], name: str, x: Array) -> Array:
    """Normalise to zero mean and unit variance over the row, then scale and shift."""
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

"""The Relational Memory Core in plain NumPy, one batch row at a time, from the equations.

Source: Santoro et al. 2018 and its authors' implementation: identity memory, one norm over all of a row's
queries, keys and values, norms after the residuals, no ReLU behind the MLP, gates from tanh of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def fresh_memory(num_slots: int, slot_size: int) -> Array:
    """The identity, padded with zero columns or cut."""
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
    slot_attention: str = "all",
) -> Array:
    """x [inputs], memory [N, D] -> next memory [N, D]; `p` holds parameters by their name in the module."""
    num_slots = len(memory)
    x = affine(p, "input_proj", x)
    rows = [*memory, x]
    for block in range(num_blocks):
        qkv = [layer_norm(p, f"qkv_norm.{block}", affine(p, f"qkv.{block}", row)) for row in rows]
        rows = [
            layer_norm(
                p,
                f"attention_norm.{block}",
                row + attend(qkv[r], seen(qkv, r, slot_attention), num_heads, key_size, head_size),
            )
            for r, row in enumerate(rows)
        ]
        rows = [layer_norm(p, f"mlp_norm.{block}", row + mlp(p, row, mlp_layers)) for row in rows]

    following = np.zeros_like(memory)
    for slot in range(num_slots):
        if gate_style == "none":
            following[slot] = rows[slot]
            continue
        gates = affine(p, "input_gates", x) + affine(p, "memory_gates", np.tanh(memory[slot]))
        half = len(gates) // 2
        i, f = sigmoid(gates[:half] + input_bias), sigmoid(gates[half:] + forget_bias)
        following[slot] = i * np.tanh(rows[slot]) + f * memory[slot]
    return following


def seen(rows: list[Array], r: int, slot_attention: str) -> list[Array]:
    """What row `r` may read; the input is the last row."""
    if slot_attention == "all":
        return rows
    if slot_attention == "own" and r < len(rows) - 1:
        return [rows[r], rows[-1]]
    return [rows[-1]]


def attend(own: Array, everybody: list[Array], num_heads: int, key_size: int, head_size: int) -> Array:
    """What one row reads of all rows; a row holds, head by head, a query, a key and a value."""
    heads = []
    for head in range(num_heads):
        start = head * (2 * key_size + head_size)
        q = own[start : start + key_size]
        scores = [q @ row[start + key_size : start + 2 * key_size] / np.sqrt(key_size) for row in everybody]
        weights = np.exp(scores - np.max(scores))
        weights /= weights.sum()
        value = np.zeros(head_size)
        for weight, row in zip(weights, everybody, strict=True):
            value += weight * row[start + 2 * key_size : start + 2 * key_size + head_size]
        heads.append(value)
    return np.concatenate(heads)


def mlp(p: Mapping[str, Array], row: Array, num_layers: int) -> Array:
    """Linear layers with a ReLU between them."""
    for layer in range(num_layers):
        row = affine(p, f"mlp.{layer}", row)
        if layer < num_layers - 1:
            row = np.maximum(row, 0.0)
    return row


def affine(p: Mapping[str, Array], name: str, x: Array) -> Array:
    """W x + b."""
    return p[f"{name}.weight"] @ x + p[f"{name}.bias"]


def layer_norm(p: Mapping[str, Array], name: str, x: Array) -> Array:
    """Zero mean and unit variance over the row, then scaled and shifted."""
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))

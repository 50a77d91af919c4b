"""Elman RNN, LSTM, GRU and the memoryless core in plain NumPy, from the equations, for one batch row.

`p` maps the parameters' names in the module to values: `input_proj`, `hidden_proj` (gates stacked), `linear`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
States = tuple[Array, ...]


def rnn_step(p: Mapping[str, Array], x: Array, state: States) -> tuple[Array, States]:
    """h' = tanh(W x + U h + b)."""
    (h,) = state
    h = np.tanh(p["input_proj.weight"] @ x + p["hidden_proj.weight"] @ h + p["input_proj.bias"])
    return h, (h,)


def lstm_step(p: Mapping[str, Array], x: Array, state: States) -> tuple[Array, States]:
    """c' = f c + i g, h' = o tanh(c')."""
    h, c = state
    size = len(h)

    def gate(number: int) -> Array:
        rows = slice(number * size, (number + 1) * size)
        return (
            p["input_proj.weight"][rows] @ x + p["hidden_proj.weight"][rows] @ h + p["input_proj.bias"][rows]
        )

    i, f, g, o = sigmoid(gate(0)), sigmoid(gate(1)), np.tanh(gate(2)), sigmoid(gate(3))
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, (h, c)


def gru_step(p: Mapping[str, Array], x: Array, state: States) -> tuple[Array, States]:
    """n = tanh(W x + b + r (U h + b')), h' = (1 - z) n + z h."""
    (h,) = state
    size = len(h)

    def parts(number: int) -> tuple[Array, Array]:
        rows = slice(number * size, (number + 1) * size)
        of_x = p["input_proj.weight"][rows] @ x + p["input_proj.bias"][rows]
        of_h = p["hidden_proj.weight"][rows] @ h + p["hidden_proj.bias"][rows]
        return of_x, of_h

    r, z = sigmoid(sum(parts(0))), sigmoid(sum(parts(1)))
    of_x, of_h = parts(2)
    n = np.tanh(of_x + r * of_h)
    h = (1 - z) * n + z * h
    return h, (h,)


def feedforward_step(p: Mapping[str, Array], x: Array, state: States) -> tuple[Array, States]:
    """relu(W x + b)."""
    return np.maximum(p["linear.weight"] @ x + p["linear.bias"], 0.0), state


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))

# type: ignore  # Triton's language: constants are types, conditions on them are resolved at compile time
"""The Triton kernels of an LSTM and a GRU: one program computes all time steps of its batch rows.

The state of `BLOCK` batch rows stays on the chip between time steps. The backward kernel walks back in time
and recomputes the gates of each step. It stores the outputs that entered the hidden matrix and the gradients
of the rows that left it, from which one product over all time steps computes the gradient of the matrix.

Axes: T time, B batch, H hidden size, W = H times the number of gates (LSTM: i, f, g, o; GRU: r, z, n).
"""

from __future__ import annotations

import triton
import triton.language as tl

from rmc_agents.cores.kernels.triton_ops import matrix, restarted, tanh, transposed


@triton.jit
def _product(h, hidden, hidden_bias, gate: tl.constexpr, d, H: tl.constexpr, PRECISION: tl.constexpr):
    """Product of h [BLOCK, H] with the hidden matrix of a gate, and its bias if there is one."""
    product = tl.dot(h, transposed(hidden, gate * H + d, d, H), input_precision=PRECISION)
    if hidden_bias is not None:
        product += tl.load(hidden_bias + gate * H + d)[None, :]
    return product


@triton.jit
def _lstm_gates(h, x, hidden, live, d, H: tl.constexpr, PRECISION: tl.constexpr):
    """Gates i, f, g, o of a step whose input rows are at `x`."""
    i = tl.sigmoid(_product(h, hidden, None, 0, d, H, PRECISION) + tl.load(x, mask=live, other=0.0))
    f = tl.sigmoid(_product(h, hidden, None, 1, d, H, PRECISION) + tl.load(x + H, mask=live, other=0.0))
    g = tanh(_product(h, hidden, None, 2, d, H, PRECISION) + tl.load(x + 2 * H, mask=live, other=0.0))
    o = tl.sigmoid(_product(h, hidden, None, 3, d, H, PRECISION) + tl.load(x + 3 * H, mask=live, other=0.0))
    return i, f, g, o


@triton.jit
def _gru_gates(h, x, hidden, hidden_bias, live, d, H: tl.constexpr, PRECISION: tl.constexpr):
    """Gates r, z, n of a step whose input rows are at `x`, and the part of n that r multiplies."""
    h_r = _product(h, hidden, hidden_bias, 0, d, H, PRECISION)
    h_z = _product(h, hidden, hidden_bias, 1, d, H, PRECISION)
    h_n = _product(h, hidden, hidden_bias, 2, d, H, PRECISION)
    r = tl.sigmoid(h_r + tl.load(x, mask=live, other=0.0))
    z = tl.sigmoid(h_z + tl.load(x + H, mask=live, other=0.0))
    return r, z, tanh(tl.load(x + 2 * H, mask=live, other=0.0) + r * h_n), h_n


@triton.jit(do_not_specialize=["B", "T"])
def gated_forward(
    x,  # [T, B, W] the inputs' part of the gates, with their bias
    h_0,  # [B, H]
    c_0,  # [B, H] for an LSTM, None for a GRU
    starts,  # [T, B] uint8, or None
    hidden,  # [W, H]
    hidden_bias,  # [W] for a GRU, None for an LSTM
    outputs,  # result: [T, B, H]
    cells,  # result: [T, B, H] for an LSTM
    last_h,  # result: [B, H]
    last_c,  # result: [B, H] for an LSTM
    B,
    T,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    W: tl.constexpr = (3 if c_0 is None else 4) * H
    env, d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, H)
    live = (env < B)[:, None]
    tile = env[:, None] * H + d[None, :]
    h = tl.load(h_0 + tile, mask=live, other=0.0)
    if c_0 is not None:
        c = tl.load(c_0 + tile, mask=live, other=0.0)
    for t in tl.range(0, T, disable_licm=True):
        before = tl.cast(B, tl.int64) * t
        x_at = x + before * W + env[:, None] * W + d[None, :]
        if starts is not None:
            new = restarted(starts, t, env, B)
            h = tl.where(new, 0.0, h)
        if c_0 is not None:
            if starts is not None:
                c = tl.where(new, 0.0, c)
            i, f, g, o = _lstm_gates(h, x_at, hidden, live, d, H, PRECISION)
            c = f * c + i * g
            h = o * tanh(c)
            tl.store(cells + before * H + tile, c, mask=live)
        else:
            _, z, n, _ = _gru_gates(h, x_at, hidden, hidden_bias, live, d, H, PRECISION)
            h = n + z * (h - n)
        tl.store(outputs + before * H + tile, h, mask=live)
    tl.store(last_h + tile, h, mask=live)
    if c_0 is not None:
        tl.store(last_c + tile, c, mask=live)


@triton.jit(do_not_specialize=["B", "T"])
def gated_backward(
    x,  # the arguments of `gated_forward`, its outputs and cells
    h_0,
    c_0,
    starts,
    hidden,
    hidden_bias,
    outputs,
    cells,
    d_outputs,  # [T, B, H]
    d_last_h,  # [B, H]
    d_last_c,  # [B, H] for an LSTM
    d_x,  # result: [T, B, W]
    d_h,  # result: [B, H]
    d_c,  # result: [B, H] for an LSTM
    entered,  # result: [T, B, H] outputs that entered the hidden matrix
    left,  # result: [T, B, W] gradients of the rows that left it, for a GRU; for an LSTM they equal d_x
    B,
    T,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    W: tl.constexpr = (3 if c_0 is None else 4) * H
    env, d = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, H)
    live = (env < B)[:, None]
    tile = env[:, None] * H + d[None, :]
    dh = tl.load(d_last_h + tile, mask=live, other=0.0)
    if c_0 is not None:
        dc = tl.load(d_last_c + tile, mask=live, other=0.0)
    for back in tl.range(0, T, disable_licm=True):
        t = T - 1 - back
        before = tl.cast(B, tl.int64) * t
        wide = before * W + env[:, None] * W + d[None, :]
        dh += tl.load(d_outputs + before * H + tile, mask=live, other=0.0)
        previous = tl.cast(B, tl.int64) * (t - 1) * H + tile
        if t > 0:
            h = tl.load(outputs + previous, mask=live, other=0.0)
        else:
            h = tl.load(h_0 + tile, mask=live, other=0.0)
        if starts is not None:
            new = restarted(starts, t, env, B)
            h = tl.where(new, 0.0, h)
        tl.store(entered + before * H + tile, h, mask=live)
        if c_0 is not None:
            if t > 0:
                c = tl.load(cells + previous, mask=live, other=0.0)
            else:
                c = tl.load(c_0 + tile, mask=live, other=0.0)
            if starts is not None:
                c = tl.where(new, 0.0, c)
            i, f, g, o = _lstm_gates(h, x + wide, hidden, live, d, H, PRECISION)
            content = tanh(f * c + i * g)
            d_o = dh * content * o * (1.0 - o)
            dc += dh * o * (1.0 - content * content)
            d_i, d_f, d_g = dc * g * i * (1.0 - i), dc * c * f * (1.0 - f), dc * i * (1.0 - g * g)
            tl.store(d_x + wide, d_i, mask=live)
            tl.store(d_x + wide + H, d_f, mask=live)
            tl.store(d_x + wide + 2 * H, d_g, mask=live)
            tl.store(d_x + wide + 3 * H, d_o, mask=live)
            dh = tl.dot(d_i, matrix(hidden, d, d, H), input_precision=PRECISION)
            dh += tl.dot(d_f, matrix(hidden, H + d, d, H), input_precision=PRECISION)
            dh += tl.dot(d_g, matrix(hidden, 2 * H + d, d, H), input_precision=PRECISION)
            dh += tl.dot(d_o, matrix(hidden, 3 * H + d, d, H), input_precision=PRECISION)
            dc *= f
            if starts is not None:
                dc = tl.where(new, 0.0, dc)
        else:
            r, z, n, h_n = _gru_gates(h, x + wide, hidden, hidden_bias, live, d, H, PRECISION)
            d_n = dh * (1.0 - z) * (1.0 - n * n)
            d_z = dh * (h - n) * z * (1.0 - z)
            d_r = d_n * h_n * r * (1.0 - r)
            tl.store(d_x + wide, d_r, mask=live)
            tl.store(d_x + wide + H, d_z, mask=live)
            tl.store(d_x + wide + 2 * H, d_n, mask=live)
            d_n *= r
            tl.store(left + wide, d_r, mask=live)
            tl.store(left + wide + H, d_z, mask=live)
            tl.store(left + wide + 2 * H, d_n, mask=live)
            dh *= z
            dh += tl.dot(d_r, matrix(hidden, d, d, H), input_precision=PRECISION)
            dh += tl.dot(d_z, matrix(hidden, H + d, d, H), input_precision=PRECISION)
            dh += tl.dot(d_n, matrix(hidden, 2 * H + d, d, H), input_precision=PRECISION)
        if starts is not None:
            dh = tl.where(new, 0.0, dh)
    tl.store(d_h + tile, dh, mask=live)
    if c_0 is not None:
        tl.store(d_c + tile, dc, mask=live)

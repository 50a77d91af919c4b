# type: ignore  # Triton's language: constants are types, conditions on them are resolved at compile time
"""The Triton kernels of a one-block RMC: one program computes all time steps of its batch rows.

A program holds the slots of `BLOCK` batch rows as one tile [P, D], which stays on the chip between time
steps. Batch rows beyond B and slots beyond N are computed too, but never stored; their gradients are zero.

The backward kernel walks back in time and recomputes each step from the memory before it. It stores the rows
that enter each weight matrix and the gradients of the rows that leave it, from which one matrix product over
all time steps computes each weight gradient. It sums the gradients of the norms per program.

Matrices are [out, in], as in `nn.Linear`. The F features of a row are ordered by head, then q, k, v.

Axes: T time, B batch, N slots, Np slots rounded up to a power of two, P = Np * BLOCK rows (slot by slot),
A heads, K key size, V head size, D = A * V slot size, F = A * (2K + V) features of queries, keys and values.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rmc_agents.cores.kernels.rmc_triton_ops import (
    affine,
    attend,
    attend_backward,
    fresh_rows,
    gate_values,
    indices,
    input_row,
    normalised,
    normalised_backward,
    normalised_qkv,
    qkv_matrices,
    row_sum,
)
from rmc_agents.cores.kernels.triton_ops import matrix, restarted, tanh, transposed


@triton.jit(do_not_specialize=["B", "T"])
def rmc_forward(
    x_qkv,  # [T, B, F] queries (not read), keys and values of the inputs, after their norm
    x_gates,  # [T, B, 2D] gate terms of the inputs with all biases, or None
    memory,  # [B, N, D]
    fresh,  # [N, D], or None
    starts,  # [T, B] uint8, or None
    mask,  # [N, N + 1] uint8, or None
    qkv,
    qkv_bias,
    qkv_norm,
    qkv_norm_bias,
    attention_norm,
    attention_norm_bias,
    mlp_norm,
    mlp_norm_bias,
    gates,  # [2D, D], or None
    mlp_0,
    mlp_0_bias,
    mlp_1,  # None with one layer
    mlp_1_bias,
    memories,  # result: [T, B, N, D]
    last,  # result: [B, N, D]
    B,
    T,
    N: tl.constexpr,
    NP: tl.constexpr,
    A: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
    HOIST: tl.constexpr,
):
    D: tl.constexpr = A * V
    F: tl.constexpr = A * (2 * K + V)
    slot, env, live, d, q_at, v_at = indices(tl.program_id(0), B, N, NP, A, K, V, BLOCK)
    tile = env[:, None] * (N * D) + slot[:, None] * D + d[None, :]
    step = tl.cast(B, tl.int64) * (N * D)
    m = tl.load(memory + tile, mask=live, other=0.0)
    if HOIST:
        w_q, w_k, w_v = qkv_matrices(qkv, q_at, v_at, d, K, D)
        w_0 = transposed(mlp_0, d, d, D)
        if mlp_1 is not None:
            w_1 = transposed(mlp_1, d, d, D)
        if gates is not None:
            w_i, w_f = transposed(gates, d, d, D), transposed(gates, D + d, d, D)
    for t in tl.range(0, T, disable_licm=True):
        if starts is not None:
            m = tl.where(restarted(starts, t, env, B), fresh_rows(fresh, slot, d, N, D), m)
        if not HOIST:
            w_q, w_k, w_v = qkv_matrices(qkv, q_at, v_at, d, K, D)
            w_0 = transposed(mlp_0, d, d, D)
        q, k, v, _ = normalised_qkv(m, w_q, w_k, w_v, qkv_bias, q_at, v_at, K, F, PRECISION)
        q = affine(q, qkv_norm, qkv_norm_bias, q_at)
        k = affine(k, qkv_norm, qkv_norm_bias, q_at + K)
        v = affine(v, qkv_norm, qkv_norm_bias, v_at)
        x_k, x_v = input_row(x_qkv, t, B, q_at, v_at, A, K, V, F, BLOCK)
        q, k = tl.reshape(q, (NP, BLOCK, A, K)), tl.reshape(k, (NP, BLOCK, A, K))
        v = tl.reshape(v, (NP, BLOCK, A, V))
        read, _ = attend(q, k, v, x_k, x_v, mask, N, NP, SCALE)
        x, _ = normalised(m + tl.reshape(read, (NP * BLOCK, D)), D)
        x = affine(x, attention_norm, attention_norm_bias, d)
        y = tl.dot(x, w_0, input_precision=PRECISION) + tl.load(mlp_0_bias + d)[None, :]
        if mlp_1 is not None:
            if not HOIST:
                w_1 = transposed(mlp_1, d, d, D)
            y = tl.dot(tl.maximum(y, 0.0), w_1, input_precision=PRECISION) + tl.load(mlp_1_bias + d)[None, :]
        y, _ = normalised(x + y, D)
        y = affine(y, mlp_norm, mlp_norm_bias, d)
        if gates is not None:
            if not HOIST:
                w_i, w_f = transposed(gates, d, d, D), transposed(gates, D + d, d, D)
            i, f = gate_values(tanh(m), w_i, w_f, x_gates, t, env, d, B, D, PRECISION)
            m = i * tanh(y) + f * m
        else:
            m = y
        tl.store(memories + t * step + tile, m, mask=live)
    tl.store(last + tile, m, mask=live)


@triton.jit(do_not_specialize=["B", "T"])
def rmc_backward(
    x_qkv,  # the arguments of `rmc_forward`, and its memories
    x_gates,
    memory,
    fresh,
    starts,
    mask,
    qkv,
    qkv_bias,
    qkv_norm,
    qkv_norm_bias,
    attention_norm,
    attention_norm_bias,
    mlp_norm,
    mlp_norm_bias,
    gates,
    mlp_0,
    mlp_0_bias,
    mlp_1,
    mlp_1_bias,
    memories,
    d_memories,  # [T, B, N, D]
    d_last,  # [B, N, D]
    d_x_qkv,  # result: [T, B, F], zero where the queries are
    d_x_gates,  # result: [T, B, 2D], or None
    d_memory,  # result: [B, N, D]
    entered,  # result: [T, B, N, *] rows that entered the matrices: m, x, h (two layers), tanh(m) (gates)
    left,  # result: [T, B, N, *] gradients of the rows that left them: F, D for each layer, 2D (gates)
    d_norms,  # result: [programs, 2F + 4D] gradients of weight and bias of the norms of qkv, attention, MLP
    B,
    T,
    N: tl.constexpr,
    NP: tl.constexpr,
    A: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    D: tl.constexpr = A * V
    F: tl.constexpr = A * (2 * K + V)
    LAYERS: tl.constexpr = 1 if mlp_1 is None else 2
    ENTERED: tl.constexpr = (1 + LAYERS + (0 if gates is None else 1)) * D
    LEFT: tl.constexpr = F + (LAYERS + (0 if gates is None else 2)) * D
    slot, env, live, d, q_at, v_at = indices(tl.program_id(0), B, N, NP, A, K, V, BLOCK)
    row = env[:, None] * N + slot[:, None]
    tile = row * D + d[None, :]
    step = tl.cast(B, tl.int64) * N
    x_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    x_live = x_row < B

    dg_q, db_q = tl.zeros((A * K,), tl.float32), tl.zeros((A * K,), tl.float32)
    dg_k, db_k = tl.zeros((A * K,), tl.float32), tl.zeros((A * K,), tl.float32)
    dg_v, db_v = tl.zeros((D,), tl.float32), tl.zeros((D,), tl.float32)
    dg_x, db_x = tl.zeros((D,), tl.float32), tl.zeros((D,), tl.float32)
    dg_y, db_y = tl.zeros((D,), tl.float32), tl.zeros((D,), tl.float32)
    dm = tl.load(d_last + tile, mask=live, other=0.0)
    # With loop-invariant code motion both orientations of every matrix would be kept in shared memory.
    for back in tl.range(0, T, disable_licm=True):
        t = T - 1 - back
        dm += tl.load(d_memories + t * step * D + tile, mask=live, other=0.0)
        if t > 0:
            m = tl.load(memories + (t - 1) * step * D + tile, mask=live, other=0.0)
        else:
            m = tl.load(memory + tile, mask=live, other=0.0)
        if starts is not None:
            new = restarted(starts, t, env, B)
            m = tl.where(new, fresh_rows(fresh, slot, d, N, D), m)
        entered_at = entered + t * step * ENTERED + row * ENTERED + d[None, :]
        left_at = left + t * step * LEFT + row * LEFT
        x_step = tl.cast(B, tl.int64) * t

        # The step again.
        w_q, w_k, w_v = qkv_matrices(qkv, q_at, v_at, d, K, D)
        w_0 = transposed(mlp_0, d, d, D)
        q_hat, k_hat, v_hat, rstd_qkv = normalised_qkv(
            m, w_q, w_k, w_v, qkv_bias, q_at, v_at, K, F, PRECISION
        )
        q = tl.reshape(affine(q_hat, qkv_norm, qkv_norm_bias, q_at), (NP, BLOCK, A, K))
        k = tl.reshape(affine(k_hat, qkv_norm, qkv_norm_bias, q_at + K), (NP, BLOCK, A, K))
        v = tl.reshape(affine(v_hat, qkv_norm, qkv_norm_bias, v_at), (NP, BLOCK, A, V))
        x_k, x_v = input_row(x_qkv, t, B, q_at, v_at, A, K, V, F, BLOCK)
        read, log_total = attend(q, k, v, x_k, x_v, mask, N, NP, SCALE)
        x_hat, rstd_x = normalised(m + tl.reshape(read, (NP * BLOCK, D)), D)
        x = affine(x_hat, attention_norm, attention_norm_bias, d)
        tl.store(entered_at, m, mask=live)
        tl.store(entered_at + D, x, mask=live)
        y = tl.dot(x, w_0, input_precision=PRECISION) + tl.load(mlp_0_bias + d)[None, :]
        if mlp_1 is not None:
            h = tl.maximum(y, 0.0)
            tl.store(entered_at + 2 * D, h, mask=live)
            y = tl.dot(h, transposed(mlp_1, d, d, D), input_precision=PRECISION)
            y += tl.load(mlp_1_bias + d)[None, :]
        y_hat, rstd_y = normalised(x + y, D)

        # The gates; dm becomes the gradient of the memory before the step, dy that of the new rows.
        if gates is not None:
            content = tanh(affine(y_hat, mlp_norm, mlp_norm_bias, d))
            tanh_m = tanh(m)
            tl.store(entered_at + (1 + LAYERS) * D, tanh_m, mask=live)
            w_i, w_f = transposed(gates, d, d, D), transposed(gates, D + d, d, D)
            i, f = gate_values(tanh_m, w_i, w_f, x_gates, t, env, d, B, D, PRECISION)
            di, df = dm * content * i * (1.0 - i), dm * m * f * (1.0 - f)
            gates_at = left_at + F + LAYERS * D + d[None, :]
            tl.store(gates_at, di, mask=live)
            tl.store(gates_at + D, df, mask=live)
            d_x_gates_at = d_x_gates + (x_step + x_row) * (2 * D) + d[None, :]
            tl.store(d_x_gates_at, tl.sum(tl.reshape(di, (NP, BLOCK, D)), 0), mask=x_live)
            tl.store(d_x_gates_at + D, tl.sum(tl.reshape(df, (NP, BLOCK, D)), 0), mask=x_live)
            d_tanh = tl.dot(di, matrix(gates, d, d, D), input_precision=PRECISION)
            d_tanh += tl.dot(df, matrix(gates, D + d, d, D), input_precision=PRECISION)
            dy = dm * i * (1.0 - content * content)
            dm = dm * f + d_tanh * (1.0 - tanh_m * tanh_m)
        else:
            dy = dm
            dm = tl.zeros_like(dm)

        # The MLP and its norm.
        dg_y += tl.sum(dy * y_hat, 0)
        db_y += tl.sum(dy, 0)
        dy = normalised_backward(dy * tl.load(mlp_norm + d)[None, :], y_hat, rstd_y, D)
        dh = dy
        tl.store(left_at + F + (LAYERS - 1) * D + d[None, :], dh, mask=live)
        if mlp_1 is not None:
            dh = tl.where(h > 0, tl.dot(dh, matrix(mlp_1, d, d, D), input_precision=PRECISION), 0.0)
            tl.store(left_at + F + d[None, :], dh, mask=live)
        dx = dy + tl.dot(dh, matrix(mlp_0, d, d, D), input_precision=PRECISION)
        dg_x += tl.sum(dx * x_hat, 0)
        db_x += tl.sum(dx, 0)
        dx = normalised_backward(dx * tl.load(attention_norm + d)[None, :], x_hat, rstd_x, D)
        dm += dx

        # Attention.
        d_read = tl.reshape(dx, (NP, BLOCK, A, V))
        dq, dk, dv, d_x_k, d_x_v = attend_backward(
            q, k, v, x_k, x_v, d_read, read, log_total, mask, N, NP, SCALE
        )
        d_x_at = d_x_qkv + (x_step + x_row) * F
        tl.store(d_x_at + q_at[None, :] + K, tl.reshape(d_x_k, (BLOCK, A * K)), mask=x_live)
        tl.store(d_x_at + v_at[None, :], tl.reshape(d_x_v, (BLOCK, D)), mask=x_live)

        # Queries, keys and values and their joint norm.
        dq, dk = tl.reshape(dq, (NP * BLOCK, A * K)), tl.reshape(dk, (NP * BLOCK, A * K))
        dv = tl.reshape(dv, (NP * BLOCK, D))
        dg_q += tl.sum(dq * q_hat, 0)
        dg_k += tl.sum(dk * k_hat, 0)
        dg_v += tl.sum(dv * v_hat, 0)
        db_q += tl.sum(dq, 0)
        db_k += tl.sum(dk, 0)
        db_v += tl.sum(dv, 0)
        dq *= tl.load(qkv_norm + q_at)[None, :]
        dk *= tl.load(qkv_norm + q_at + K)[None, :]
        dv *= tl.load(qkv_norm + v_at)[None, :]
        mean = (row_sum(dq) + row_sum(dk) + row_sum(dv)) / F
        slope = (row_sum(dq * q_hat) + row_sum(dk * k_hat) + row_sum(dv * v_hat)) / F
        dq = rstd_qkv * (dq - mean - q_hat * slope)
        dk = rstd_qkv * (dk - mean - k_hat * slope)
        dv = rstd_qkv * (dv - mean - v_hat * slope)
        tl.store(left_at + q_at[None, :], dq, mask=live)
        tl.store(left_at + q_at[None, :] + K, dk, mask=live)
        tl.store(left_at + v_at[None, :], dv, mask=live)
        dm += tl.dot(dq, matrix(qkv, q_at, d, D), input_precision=PRECISION)
        dm += tl.dot(dk, matrix(qkv, q_at + K, d, D), input_precision=PRECISION)
        dm += tl.dot(dv, matrix(qkv, v_at, d, D), input_precision=PRECISION)
        if starts is not None:
            dm = tl.where(new, 0.0, dm)
    tl.store(d_memory + tile, dm, mask=live)
    norms = d_norms + tl.program_id(0) * (2 * F + 4 * D)
    tl.store(norms + q_at, dg_q)
    tl.store(norms + q_at + K, dg_k)
    tl.store(norms + v_at, dg_v)
    tl.store(norms + F + q_at, db_q)
    tl.store(norms + F + q_at + K, db_k)
    tl.store(norms + F + v_at, db_v)
    tl.store(norms + 2 * F + d, dg_x)
    tl.store(norms + 2 * F + D + d, db_x)
    tl.store(norms + 2 * F + 2 * D + d, dg_y)
    tl.store(norms + 2 * F + 3 * D + d, db_y)

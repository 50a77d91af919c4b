# type: ignore  # see rmc_triton_kernels.py
"""Parts of a step that both Triton kernels of the RMC use; `rmc_triton_kernels.py` defines the axes."""

from __future__ import annotations

import triton
import triton.language as tl

from rmc_agents.cores.kernels.rmc_torch import EPS
from rmc_agents.cores.kernels.triton_ops import transposed

_EPS = tl.constexpr(EPS)


@triton.jit
def indices(
    program,
    B,
    N: tl.constexpr,
    NP: tl.constexpr,
    A: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Slot and batch row of each row [P], whether it exists [P, 1], and positions of features.

    The positions are those of a slot's units [D], of the queries [A * K] and of the values [D] among the F
    features; the keys are K places after the queries.
    """
    rows = tl.arange(0, NP * BLOCK)
    slot, env = rows // BLOCK, program * BLOCK + rows % BLOCK
    live = ((env < B) & (slot < N))[:, None]
    d, keys = tl.arange(0, A * V), tl.arange(0, A * K)
    q_at = keys // K * (2 * K + V) + keys % K
    v_at = d // V * (2 * K + V) + 2 * K + d % V
    return slot, env, live, d, q_at, v_at


@triton.jit
def qkv_matrices(qkv, q_at, v_at, d, K: tl.constexpr, D: tl.constexpr):
    """Load the matrices of queries, keys and values: tiles [in, out]."""
    return transposed(qkv, q_at, d, D), transposed(qkv, q_at + K, d, D), transposed(qkv, v_at, d, D)


@triton.jit
def fresh_rows(fresh, slot, d, N: tl.constexpr, D: tl.constexpr):
    """Load the memory at the start of an episode: [P, D]."""
    return tl.load(fresh + slot[:, None] * D + d[None, :], mask=(slot < N)[:, None], other=0.0)


@triton.jit
def input_row(
    x_qkv,
    t,
    B,
    q_at,
    v_at,
    A: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Load keys [1, BLOCK, A, K] and values [1, BLOCK, A, V] of the inputs at time t."""
    env = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    at = x_qkv + (tl.cast(B, tl.int64) * t + env) * F
    k = tl.load(at + q_at[None, :] + K, mask=env < B, other=0.0)
    v = tl.load(at + v_at[None, :], mask=env < B, other=0.0)
    return tl.reshape(k, (1, BLOCK, A, K)), tl.reshape(v, (1, BLOCK, A, V))


@triton.jit
def row_sum(x):
    """[P, *] -> [P, 1]."""
    return tl.sum(x, 1, keep_dims=True)


@triton.jit
def affine(x, weight, bias, at):
    """x * weight + bias, for the features at some positions."""
    return x * tl.load(weight + at)[None, :] + tl.load(bias + at)[None, :]


@triton.jit
def normalised(x, D: tl.constexpr):
    """Rows of mean 0 and variance 1, [P, D], and the factor of each row, [P, 1]."""
    x -= row_sum(x) / D
    rstd = tl.rsqrt(row_sum(x * x) / D + _EPS)
    return x * rstd, rstd


@triton.jit
def normalised_backward(d, x_hat, rstd, D: tl.constexpr):
    """Gradient of the rows before `normalised`, from that of its result."""
    return rstd * (d - row_sum(d) / D - x_hat * (row_sum(d * x_hat) / D))


@triton.jit
def normalised_qkv(
    m, w_q, w_k, w_v, bias, q_at, v_at, K: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr
):
    """Project the slots [P, D] to queries, keys and values and normalise them jointly, as `normalised`."""
    q = tl.dot(m, w_q, input_precision=PRECISION) + tl.load(bias + q_at)[None, :]
    k = tl.dot(m, w_k, input_precision=PRECISION) + tl.load(bias + q_at + K)[None, :]
    v = tl.dot(m, w_v, input_precision=PRECISION) + tl.load(bias + v_at)[None, :]
    mean = (row_sum(q) + row_sum(k) + row_sum(v)) / F
    q -= mean
    k -= mean
    v -= mean
    rstd = tl.rsqrt((row_sum(q * q) + row_sum(k * k) + row_sum(v * v)) / F + _EPS)
    return q * rstd, k * rstd, v * rstd, rstd


@triton.jit
def gate_values(tanh_m, w_i, w_f, x_gates, t, env, d, B, D: tl.constexpr, PRECISION: tl.constexpr):
    """Input and forget gates [P, D]."""
    at = x_gates + (tl.cast(B, tl.int64) * t + env[:, None]) * (2 * D) + d[None, :]
    live = (env < B)[:, None]
    i = tl.dot(tanh_m, w_i, input_precision=PRECISION) + tl.load(at, mask=live, other=0.0)
    f = tl.dot(tanh_m, w_f, input_precision=PRECISION) + tl.load(at + D, mask=live, other=0.0)
    return tl.sigmoid(i), tl.sigmoid(f)


@triton.jit
def slot_row(x, r, NP: tl.constexpr):
    """Row r of x [Np, ...] with four axes: [1, ...]."""
    return tl.sum(tl.where(tl.arange(0, NP)[:, None, None, None] == r, x, 0.0), 0, keep_dims=True)


@triton.jit
def logits(q, k, mask, r, N: tl.constexpr, NP: tl.constexpr, SCALE: tl.constexpr):
    """Logits of all slots for row r, whose keys are k [1, BLOCK, A, K]: [Np, BLOCK, A]."""
    found = tl.sum(q * k, 3) * SCALE
    if mask is not None:
        slot = tl.arange(0, NP)
        hidden = tl.load(mask + slot * (N + 1) + r, mask=slot < N, other=0)
        found = tl.where((hidden != 0)[:, None, None], float("-inf"), found)
    return found


@triton.jit
def attend(q, k, v, x_k, x_v, mask, N: tl.constexpr, NP: tl.constexpr, SCALE: tl.constexpr):
    """softmax(q k^T / sqrt(K)) v, with a running softmax that begins with the input's row, never masked.

    Returns what is read [Np, BLOCK, A, V] and the logarithm of the sum of the exponentials [Np, BLOCK, A].
    """
    top = logits(q, x_k, None, N, N, NP, SCALE)
    total = tl.full(top.shape, 1.0, tl.float32)
    read = tl.broadcast_to(x_v, v.shape)
    for r in tl.static_range(N):
        logit = logits(q, slot_row(k, r, NP), mask, r, N, NP, SCALE)
        new_top = tl.maximum(top, logit)
        kept, added = tl.exp(top - new_top), tl.exp(logit - new_top)
        total = total * kept + added
        read = read * kept[:, :, :, None] + slot_row(v, r, NP) * added[:, :, :, None]
        top = new_top
    return read / total[:, :, :, None], top + tl.log(total)


@triton.jit
def attend_backward(
    q,
    k,
    v,
    x_k,
    x_v,
    d_read,
    read,
    log_total,
    mask,
    N: tl.constexpr,
    NP: tl.constexpr,
    SCALE: tl.constexpr,
):
    """Gradients of q, k, v [Np, BLOCK, A, *], and of x_k, x_v without their first axis."""
    mean = tl.sum(d_read * read, 3)
    weight = tl.exp(logits(q, x_k, None, N, N, NP, SCALE) - log_total)[:, :, :, None]
    d_logit = weight * (tl.sum(d_read * x_v, 3) - mean)[:, :, :, None] * SCALE
    d_q = d_logit * x_k
    d_x_k, d_x_v = tl.sum(d_logit * q, 0), tl.sum(weight * d_read, 0)
    d_k, d_v = tl.zeros_like(k), tl.zeros_like(v)
    row = tl.arange(0, NP)[:, None, None, None]
    for r in tl.static_range(N):
        k_r = slot_row(k, r, NP)
        weight = tl.exp(logits(q, k_r, mask, r, N, NP, SCALE) - log_total)[:, :, :, None]
        d_logit = weight * (tl.sum(d_read * slot_row(v, r, NP), 3) - mean)[:, :, :, None] * SCALE
        d_q += d_logit * k_r
        d_k += tl.where(row == r, tl.sum(d_logit * q, 0, keep_dims=True), 0.0)
        d_v += tl.where(row == r, tl.sum(weight * d_read, 0, keep_dims=True), 0.0)
    return d_q, d_k, d_v, d_x_k, d_x_v

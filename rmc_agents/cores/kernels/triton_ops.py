# type: ignore  # see rmc_triton_kernels.py
"""Operations that the Triton kernels of all cores use."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def matrix(weight, outs, ins, D: tl.constexpr):
    """Load some rows of weight [*, D]: a tile [out, in], which multiplies gradients."""
    return tl.load(weight + outs[:, None] * D + ins[None, :])


@triton.jit
def transposed(weight, outs, ins, D: tl.constexpr):
    """Load some rows of weight [*, D]: a tile [in, out], which multiplies rows."""
    return tl.load(weight + outs[None, :] * D + ins[:, None])


@triton.jit
def restarted(starts, t, env, B):
    """Return whether an episode starts, for each row: [P, 1]."""
    return (tl.load(starts + tl.cast(B, tl.int64) * t + env, mask=env < B, other=0) != 0)[:, None]


@triton.jit
def tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0

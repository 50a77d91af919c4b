"""Report of the arithmetic that the cores use on the CPU of this machine."""

from __future__ import annotations

from rmc_agents.cores.kernels import (
    build,
    diagonal_native,
    gated_native,
    hadamard_native,
    heads_native,
    rmc_native,
)


def active_kernels() -> str:
    """Return the instruction set of the native kernels, such as "avx512" or "avx2", or "off (the reason)".

    The kernels are built if necessary, and their results compared with PyTorch's: kernels that fail are off.
    """
    rmc_native.works()
    gated_native.works()
    diagonal_native.works()
    hadamard_native.works()
    heads_native.works()
    return build.state()


def kernels_in_use() -> str | None:
    """Return what `active_kernels` returns, or None if no core has asked for kernels in this process."""
    return active_kernels() if build.asked() else None

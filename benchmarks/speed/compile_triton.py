"""Compile the Triton kernels of RMC, LSTM and GRU for a GPU and report their resources. Needs no GPU.

    python -m benchmarks.speed.compile_triton

Prints a line of JSON for each kernel, precision and tile size: registers per thread, bytes of spilled
registers per thread, bytes of shared memory per program (an H100 has 232,448) and seconds of compilation.
Needs the extra `gpu`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from rmc_agents.cores.kernels import gated_triton
from rmc_agents.cores.kernels.rmc_triton import unsupported
from rmc_agents.cores.kernels.rmc_triton_sequence import BACKWARD_ROWS, FORWARD_ROWS, Sizes, kernel_constants
from rmc_agents.cores.kernels.triton_common import OPTIONS


@dataclass(frozen=True)
class Config:
    """Cores and their sizes, and the GPU to compile for."""

    cores: tuple[Literal["rmc", "lstm", "gru"], ...] = ("rmc", "lstm", "gru")
    num_slots: int = 4
    num_heads: int = 4
    head_size: int = 16
    key_size: int | None = None
    """Equal to `head_size` if not given."""
    mlp_layers: int = 2
    gated: bool = True
    masked: bool = False
    hidden_size: int = 128
    """Of LSTM and GRU."""
    precisions: tuple[Literal["tf32", "tf32x3"], ...] = ("tf32", "tf32x3")
    capability: int = 90
    """Compute capability of the GPU: 90 is an H100 or H200, 80 an A100."""


def main(config: Config) -> None:
    key_size = config.head_size if config.key_size is None else config.key_size
    sizes = Sizes(
        config.num_slots,
        config.num_heads,
        key_size,
        config.head_size,
        config.mlp_layers,
        config.gated,
        config.masked,
    )
    reason = unsupported(sizes)
    if reason is not None:
        sys.exit(f"these sizes are not supported: {reason}")
    for core, precision in itertools.product(config.cores, config.precisions):
        for direction in ("forward", "backward"):
            rows = FORWARD_ROWS if direction == "forward" else BACKWARD_ROWS
            if core != "rmc":
                rows = gated_triton.ROWS if precision == "tf32" else gated_triton.ROWS[-1:]
            for count in rows:
                if core == "rmc":
                    found = compiled_rmc(direction, sizes, precision, count, config.capability)
                else:
                    found = compiled_gated(
                        core, direction, config.hidden_size, precision, count, config.capability
                    )
                print(json.dumps(found), flush=True)


def compiled_rmc(direction: str, sizes: Sizes, precision: str, rows: int, capability: int) -> dict[str, Any]:
    """Compile a kernel of the RMC and return its resources by name."""
    from rmc_agents.cores.kernels import rmc_triton_kernels

    constants = kernel_constants(sizes, precision)
    constants["BLOCK"] = rows // constants["NP"]
    constants["HOIST"] = precision == "tf32"
    absent = [] if sizes.masked else ["mask"]
    absent += [] if sizes.gated else ["x_gates", "gates", "d_x_gates"]
    absent += [] if sizes.mlp_layers == 2 else ["mlp_1", "mlp_1_bias"]
    kernel = getattr(rmc_triton_kernels, f"rmc_{direction}")
    used = _compiled(kernel, constants | dict.fromkeys(absent), capability)
    return {"core": "rmc", "kernel": direction, "precision": precision, "rows": rows, **used}


def compiled_gated(
    core: str, direction: str, size: int, precision: str, rows: int, capability: int
) -> dict[str, Any]:
    """Compile a kernel of an LSTM or a GRU and return its resources by name."""
    from rmc_agents.cores.kernels import gated_triton_kernels

    lstm_only, gru_only = ("c_0", "cells", "last_c", "d_last_c", "d_c"), ("hidden_bias", "left")
    constants = {"H": size, "BLOCK": rows, "PRECISION": precision}
    constants |= dict.fromkeys(gru_only if core == "lstm" else lstm_only)
    kernel = getattr(gated_triton_kernels, f"gated_{direction}")
    used = _compiled(kernel, constants, capability)
    return {"core": core, "kernel": direction, "precision": precision, "rows": rows, **used}


def _compiled(kernel: Any, constants: dict[str, Any], capability: int) -> dict[str, Any]:
    """Compile a kernel with constants for some arguments; the constant None is for an absent tensor."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {name: _type(name) for name in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
    aligned = [i for i, name in enumerate(kernel.arg_names) if types[name].startswith("*")]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    started = time.perf_counter()
    source = ASTSource(kernel, types, constants, attributes)
    result = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=OPTIONS)
    seconds = round(time.perf_counter() - started, 1)
    used = _registers(result.asm["cubin"])
    return used | {"shared_bytes": result.metadata.shared, "compile_seconds": seconds}


def _type(argument: str) -> str:
    if argument in ("B", "T"):
        return "i32"
    return "*u8" if argument in ("starts", "mask") else "*fp32"


def _registers(cubin: bytes) -> dict[str, Any]:
    """Return the registers per thread, and the bytes of its stack, which holds spilled registers."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        listing = subprocess.run(
            [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", listing))
    return {"registers": int(found["REG"]), "spilled_bytes": int(found["STACK"])}


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("unset TRITON_INTERPRET to compile")
    main(tyro.cli(Config, description=__doc__))

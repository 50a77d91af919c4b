"""The Triton kernels compile for a GPU, on a machine without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

CODE = """
import json
from benchmarks.speed.compile_triton import compiled_gated, compiled_rmc
from rmc_agents.cores.kernels.rmc_triton_sequence import Sizes

print(json.dumps([
    compiled_rmc("forward", Sizes(3, 2, 16, 8, 1, False, True), "tf32x3", 16, 80),
    compiled_rmc("backward", Sizes(2, 1, 16, 16, 2, True, True), "tf32", 16, 90),
    compiled_gated("lstm", "backward", 16, "tf32", 16, 90),
    compiled_gated("gru", "backward", 16, "tf32x3", 16, 80),
]))
"""


@pytest.mark.slow
def test_triton_kernels_compile_without_a_gpu() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", CODE]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found) == 4
    for kernel in found:
        assert 0 < kernel["registers"] <= 255
        assert kernel["shared_bytes"] <= 99 * 1024  # a program fits on small GPUs, too

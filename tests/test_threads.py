"""Threads of the tests: one for each worker and for each process that a test starts."""

from __future__ import annotations

import subprocess
import sys

import torch


def test_torch_has_one_thread_here_and_in_subprocesses() -> None:
    assert torch.get_num_threads() == 1
    code = "import torch; print(torch.get_num_threads())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"

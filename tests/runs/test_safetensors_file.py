"""Weights as safetensors files: exact, written atomically, and read in one message or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rmc_agents import UsageError
from rmc_agents.runs import safetensors_file
from rmc_agents.runs.safetensors_file import read_tensors, write_tensors


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    whole = torch.randn(4, 6)
    tensors = {
        "whole": whole,
        "view": whole[:, ::2],
        "shared": whole,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "double": torch.randn(2, dtype=torch.float64),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_tensors(tmp_path / "new" / "x.safetensors", tensors)
    found = read_tensors(tmp_path / "new" / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, x in tensors.items():
        assert found[name].dtype == x.dtype
        assert torch.equal(found[name], x)


def test_file_that_cannot_be_read_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="none cannot be read: No such file"):
        read_tensors(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot be read: not a regular file"):
        read_tensors(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe cannot be read: not a regular file"):
        read_tensors(tmp_path / "pipe")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="text is damaged or not a safetensors file"):
        read_tensors(tmp_path / "text")
    monkeypatch.setattr(safetensors_file, "MAX_BYTES", 4)
    with pytest.raises(UsageError, match="text is too large"):
        read_tensors(tmp_path / "text")


def test_header_that_declares_terabytes_is_refused(tmp_path: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UsageError, match="damaged"):
        read_tensors(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"\xff" * 8 + header)
    with pytest.raises(UsageError, match="damaged"):
        read_tensors(tmp_path / "x")

"""RMC in PyTorch: both ways of computing weight gradients."""

from __future__ import annotations

from typing import Any

import pytest

from rmc_agents.cores.kernels import rmc_torch
from tests.support.cores import assert_equal, sequence, tiny_core, values_and_gradients


@pytest.mark.parametrize(
    "options",
    [{}, {"gate_style": "memory", "mlp_layers": 3}, {"gate_style": "none", "mlp_layers": 1}],
    ids=str,
)
def test_gradients_at_once_equal_those_step_by_step(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = tiny_core("rmc", **options)
    seq = sequence(core)
    expected = values_and_gradients(core, core.unroll, seq)
    asked = []
    monkeypatch.setattr(rmc_torch, "gradients_at_once", lambda device: asked.append(device) or True)
    assert_equal(values_and_gradients(core, core.unroll, seq), expected, 1e-10)
    assert len(asked) == 1

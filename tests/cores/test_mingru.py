"""minGRU: the paper's equations in NumPy, and how long units remember at first."""

from __future__ import annotations

import numpy as np
import torch

from rmc_agents.cores import MinGRU
from tests.support.cores import tiny_core


def test_step_computes_the_equations() -> None:
    core = tiny_core("mingru")
    assert isinstance(core, MinGRU)
    weight, bias = (p.detach().numpy() for p in (core.input_proj.weight, core.input_proj.bias))
    state, h = core.initial_state(4), np.zeros((4, 5))
    for _ in range(3):
        x = torch.randn(4, 3, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
        update, candidate = np.split(x.numpy() @ weight.T + bias, 2, axis=1)
        z = 1 / (1 + np.exp(-update))
        g = np.where(candidate >= 0, candidate + 0.5, 1 / (1 + np.exp(-candidate)))
        h = (1 - z) * h + z * g
        np.testing.assert_allclose(output.numpy(), h, rtol=1e-12)
        assert torch.equal(output, state.h)


def test_units_remember_for_different_times_at_first() -> None:
    core = MinGRU(3, hidden_size=9, update_bias=-4.0)
    kept, _ = core.project(torch.zeros(1, 3))
    expected = torch.sigmoid(torch.linspace(4.0, 0.0, 9)).unsqueeze(0)
    torch.testing.assert_close(kept, expected)

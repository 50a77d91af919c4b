"""The linear recurrent unit: the paper's equations in NumPy, and its initial eigenvalues."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rmc_agents.cores import LRU
from tests.support.cores import tiny_core


def test_step_computes_the_equations() -> None:
    core = tiny_core("lru")
    assert isinstance(core, LRU)
    weights = {name: p.detach().numpy() for name, p in core.named_parameters()}
    N = core.state_size
    eigenvalues = np.exp(-np.exp(weights["nu"]) + 1j * np.exp(weights["theta"]))
    gamma = np.sqrt(1 - np.abs(eigenvalues) ** 2)
    B = weights["input_proj.weight"][:N] + 1j * weights["input_proj.weight"][N:]
    C = weights["output_proj.weight"][:, :N] - 1j * weights["output_proj.weight"][:, N:]
    state, x = core.initial_state(4), np.zeros((4, N), dtype=complex)
    for _ in range(4):
        u = torch.randn(4, 3, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(u, state)
        x = eigenvalues * x + gamma * (u.numpy() @ B.T)
        y = (x @ C.T).real + weights["output_proj.bias"] + u.numpy() @ weights["direct_proj.weight"].T
        y *= 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        gate = 1 / (1 + np.exp(-(y @ weights["gate.weight"].T + weights["gate.bias"])))
        np.testing.assert_allclose(output.numpy(), y * gate, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.real.numpy() + 1j * state.imaginary.numpy(), x, rtol=1e-9)


def test_initial_eigenvalues_lie_in_the_ring() -> None:
    core = LRU(3, state_size=4000, min_radius=0.6, max_radius=0.9, max_phase=1.0)
    real, imaginary = core._factors()
    radius, phase = torch.hypot(real, imaginary), torch.atan2(imaginary, real)
    assert 0.6 <= radius.min() < 0.61
    assert 0.89 < radius.max() <= 0.9
    assert 0 <= phase.min() < 0.01
    assert 0.99 < phase.max() <= 1.0
    # Uniform in area: the median radius halves the area of the ring.
    assert abs(radius.median() ** 2 - (0.36 + 0.81) / 2) < 0.02


def test_state_stays_bounded_for_ten_thousand_steps() -> None:
    core = LRU(2, state_size=16, hidden_size=8)
    inputs = torch.randn(10_000, 1, 2)
    with torch.no_grad():
        outputs, state = core.unroll(inputs, core.initial_state(1), torch.zeros(10_000, 1, dtype=torch.bool))
    assert outputs.isfinite().all()
    assert max(state.real.abs().max(), state.imaginary.abs().max()) < 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_radius": 0.9, "max_radius": 0.9}, "min_radius < max_radius"),
        ({"max_radius": 1.0}, "max_radius < 1"),
        ({"max_phase": 0.0}, "max_phase must be above 0"),
    ],
)
def test_eigenvalues_outside_the_unit_circle_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LRU(3, **options)  # type: ignore[arg-type]

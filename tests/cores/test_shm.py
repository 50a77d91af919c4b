"""Stable Hadamard Memory: the paper's equations in NumPy, and the rows of calibrations that steps use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rmc_agents.cores import SHM
from tests.support.cores import tiny_core


def tiny(**options: Any) -> SHM:
    core = tiny_core("shm", **options)
    assert isinstance(core, SHM)
    return core


@pytest.mark.parametrize("projection_size", [None, 2])
def test_steps_compute_the_equations(projection_size: int | None) -> None:
    core = tiny(num_rows=3, projection_size=projection_size)
    assert core.output_size == (projection_size or core.hidden_size)
    weights = {name: p.detach().numpy() for name, p in core.named_parameters()}
    H = core.hidden_size
    state, memory = core.initial_state(2), np.zeros((2, H, H))
    for t in range(5):
        x = torch.randn(2, 3, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
        for row, values in enumerate(x.numpy()):
            normal = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
            normal = normal * weights["input_norm.weight"] + weights["input_norm.bias"]
            q, k, v, v_c, eta = np.split(weights["input_proj.weight"] @ normal, H * np.arange(1, 5))
            q, k = (np.maximum(z, 0) / (np.maximum(z, 0).sum() + 1e-5) for z in (q, k))
            calibration = 1 + np.tanh(np.outer(weights["theta"][t % 3], v_c))
            memory[row] = memory[row] * calibration + np.outer(v, k) / (1 + np.exp(-eta))
            expected = memory[row] @ q
            if projection_size:
                expected = weights["output_proj.weight"] @ expected + weights["output_proj.bias"]
            np.testing.assert_allclose(output[row], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.memory.numpy(), memory, rtol=1e-9, atol=1e-12)


def test_row_is_the_number_of_the_step_in_its_episode() -> None:
    core = tiny(num_rows=4)
    starts = torch.zeros(6, 3, dtype=torch.bool)
    starts[2, 1] = starts[0, 2] = starts[5, 2] = True
    inputs = torch.randn(6, 3, 3, dtype=torch.float64)
    state = core.initial_state(3)._replace(row=torch.tensor([3.0, 3.0, 3.0], dtype=torch.float64))
    with torch.no_grad():
        last = core.unroll(inputs, state, starts)[1]
    assert last.row.tolist() == [1, 0, 1]
    assert last.row.dtype == torch.float64


@pytest.mark.parametrize("length", [1, 30])
def test_every_episode_uses_the_same_rows(length: int) -> None:
    """What a step computes depends on its episode alone: a replayed episode gives the same outputs."""
    core = tiny()
    episode = torch.randn(length, 2, 3, dtype=torch.float64)
    starts = torch.zeros(2 * length, 2, dtype=torch.bool)
    starts[0] = starts[length] = True
    with torch.no_grad():
        outputs = core.unroll(episode.repeat(2, 1, 1), core.initial_state(2), starts)[0]
    torch.testing.assert_close(outputs[:length], outputs[length:])


def test_calibrations_at_first_leave_the_memory_of_a_long_episode_bounded() -> None:
    core = SHM(8)
    inputs = torch.randn(2_000, 2, 8)
    state = core.initial_state(2)
    with torch.no_grad():
        for part in inputs.split(100):
            outputs, state = core.unroll(part, state, torch.zeros(100, 2, dtype=torch.bool))
            assert outputs.isfinite().all()
    assert state.memory.abs().max() < 1e3

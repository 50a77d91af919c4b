"""The diagonal recurrence in C: values and gradients of the scan in PyTorch, at any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_agents.cores import HoistedCore
from rmc_agents.cores.kernels import diagonal_native
from rmc_agents.cores.kernels.diagonal_native import Arguments, native_sequence, usable
from rmc_agents.cores.scan import linear_scan
from tests.support.cores import float32_core, needs_native, sequence, values_and_gradients

pytestmark = [needs_native, pytest.mark.usefixtures("instructions")]


def arguments(length: int, batch_size: int, units: int) -> Arguments:
    """Return a random sequence with resets, whose tensors require gradients."""
    T, B, N = length, batch_size, units
    inputs, real, imaginary, gamma = (
        torch.randn(shape, requires_grad=True) for shape in ((T, B, 2 * N), (B, N), (B, N), (N,))
    )
    radius, phase = torch.rand(N), 6 * torch.rand(N)
    constants = torch.stack([radius * phase.cos(), radius * phase.sin(), gamma.detach()]).requires_grad_()
    return Arguments(inputs, real, imaginary, constants, torch.rand(T, B) < 0.1)


def scanned(a: Arguments) -> torch.Tensor:
    """Compute the same in PyTorch."""
    real, imaginary, gamma = a.constants
    factors = torch.complex(real, imaginary).expand(*a.starts.shape, -1)
    factors = factors.masked_fill(a.starts.unsqueeze(-1), 0.0)
    x = linear_scan(
        factors, gamma * torch.complex(*a.inputs.chunk(2, -1)), torch.complex(a.real, a.imaginary)
    )
    return torch.cat([x.real, x.imag], -1)


def results(a: Arguments, compute: Any) -> list[torch.Tensor]:
    states = compute(a)
    return [states, *torch.autograd.grad(states.sin().sum(), a[:-1])]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(length=st.integers(1, 40), batch_size=st.integers(1, 20), units=st.sampled_from([1, 3, 8, 16, 17, 64]))
def test_results_equal_those_of_the_scan_at_any_size(length: int, batch_size: int, units: int) -> None:
    a = arguments(length, batch_size, units)
    assert usable(a)
    for found, expected in zip(results(a, native_sequence), results(a, scanned), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * (1 + expected.abs().max().item()))


def test_results_are_bitwise_equal_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagonal_native, "MULTIPLICATIONS_PER_THREAD", 0)
    a, found = arguments(30, 37, 20), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results(a, native_sequence))
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(others, found[0], strict=True))


def test_start_cuts_off_values_that_are_not_finite() -> None:
    a = arguments(6, 2, 3)
    a.starts[:] = False
    a.starts[3, 0] = True
    with torch.no_grad():
        a.real[0] = torch.nan
        states = native_sequence(a)
    assert states[:3, 0].isnan().any(-1).all()
    assert states[3:].isfinite().all()
    assert states[:, 1].isfinite().all()


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": torch.zeros(4, 3, 7)},
        {"inputs": torch.zeros(4, 3, 10, dtype=torch.float64)},
        {"real": torch.zeros(2, 5)},
        {"constants": torch.zeros(2, 5)},
        {"starts": torch.zeros(4, 3)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_types_and_shapes_are_left_to_pytorch(changed: dict[str, torch.Tensor]) -> None:
    a = arguments(4, 3, 5)
    assert usable(a)
    assert not usable(a._replace(**changed))


@pytest.mark.parametrize("batch_size", [3, 5000])
def test_core_computes_the_loop_over_its_steps(batch_size: int, native_calls: list[str]) -> None:
    """With 5,000 rows, one step at a time."""
    core = float32_core("lru")
    seq = sequence(core, 6, batch_size)
    found = values_and_gradients(core, core.unroll, seq)
    assert {"diagonal_forward", "diagonal_backward"} <= set(native_calls)
    expected = values_and_gradients(core, lambda *s: HoistedCore.unroll(core, *s), seq)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )

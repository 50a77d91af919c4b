"""The rescaled matrix memory in C: values and gradients of the loop in PyTorch, at any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_agents.cores.kernels import hadamard_native
from rmc_agents.cores.kernels.hadamard_native import Arguments, in_pytorch, native_sequence, usable
from tests.support.cores import assert_correct, float32_core, needs_native, sequence, values_and_gradients

pytestmark = [needs_native, pytest.mark.usefixtures("instructions")]


def arguments(length: int, batch_size: int, size: int) -> Arguments:
    """Return a random sequence with resets, whose tensors require gradients."""
    shapes = [(length, batch_size, size)] * 5 + [(batch_size, size, size)]
    tensors = [(0.5 * torch.randn(shape)).requires_grad_() for shape in shapes]
    return Arguments(*tensors, torch.rand(length, batch_size) < 0.1)


def results(a: Arguments, compute: Any) -> list[torch.Tensor]:
    reads, last = compute(a)
    return [reads, last, *torch.autograd.grad(reads.sin().sum() + last.cos().sum(), a[:-1])]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(length=st.integers(1, 12), batch_size=st.integers(1, 9), size=st.sampled_from([1, 3, 8, 16, 17, 32]))
def test_results_equal_those_of_the_loop_at_any_size(length: int, batch_size: int, size: int) -> None:
    a = arguments(length, batch_size, size)
    assert usable(a)
    exact = Arguments(*(x.detach().double().requires_grad_() for x in a[:-1]), a.starts)
    for found, expected in zip(results(a, native_sequence), results(exact, in_pytorch), strict=True):
        tolerance = 1e-5 * max(1.0, expected.abs().max().item())  # a dozen steps amplify rounding errors
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


def test_results_are_bitwise_equal_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hadamard_native, "MULTIPLICATIONS_PER_THREAD", 0)
    a, found = arguments(6, 11, 20), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results(a, native_sequence))
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(others, found[0], strict=True))


@pytest.mark.parametrize("part", [0, 1])
def test_gradients_of_each_result_match_the_loop(part: int) -> None:
    a = arguments(5, 3, 7)
    gradients = [
        torch.autograd.grad(compute(a)[part].sin().sum(), a[:-1], allow_unused=True, materialize_grads=True)
        for compute in (native_sequence, in_pytorch)
    ]
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_start_cuts_off_values_that_are_not_finite() -> None:
    a = arguments(6, 2, 3)
    a.starts[:] = False
    a.starts[3, 0] = True
    with torch.no_grad():
        a.memory[0] = torch.nan
        reads, last = native_sequence(a)
    assert reads[:3, 0].isnan().all()
    assert reads[3:].isfinite().all()
    assert last.isfinite().all()


@pytest.mark.parametrize(
    "changed",
    [
        {"query": torch.zeros(4, 3, 7)},
        {"theta": torch.zeros(4, 3, 5, dtype=torch.float64)},
        {"memory": torch.zeros(3, 5)},
        {"starts": torch.zeros(4, 3)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_types_and_shapes_are_left_to_pytorch(changed: dict[str, torch.Tensor]) -> None:
    a = arguments(4, 3, 5)
    assert usable(a)
    assert not usable(a._replace(**changed))


def test_core_runs_in_c(native_calls: list[str]) -> None:
    core = float32_core("shm")
    seq = sequence(core)
    found = values_and_gradients(core, core.unroll, seq)
    assert {"hadamard_forward", "hadamard_backward"} <= set(native_calls)
    assert_correct(core, seq, found)

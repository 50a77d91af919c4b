"""Linear scans: a loop in NumPy, gradients, and the scan that other devices use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rmc_agents.cores import scan
from rmc_agents.cores.scan import linear_scan

DTYPES = [torch.float64, torch.complex128]


def arguments(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors, some of them 0, additions and a first value, of 2 rows of 3."""
    a, b = (torch.randn(length, 2, 3, dtype=dtype) for _ in range(2))
    a = a.masked_fill(torch.rand(length, 2, 1) < 0.2, 0.0)
    return a.requires_grad_(), b.requires_grad_(), torch.randn(2, 3, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_scan_equals_a_loop(length: int, dtype: torch.dtype) -> None:
    a, b, first = arguments(length, dtype)
    y, factors, additions = (x.detach().numpy() for x in (first, a, b))
    found = linear_scan(a, b, first).detach().numpy()
    for t in range(length):
        y = factors[t] * y + additions[t]
        np.testing.assert_allclose(found[t], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_equal_finite_differences(dtype: torch.dtype) -> None:
    assert torch.autograd.gradcheck(linear_scan, arguments(5, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_scan_in_rounds_equals_the_scan_in_steps(length: int, dtype: torch.dtype) -> None:
    with torch.no_grad():
        a, b, first = arguments(length, dtype)
        torch.testing.assert_close(scan._in_rounds(a, b, first), scan._in_steps(a, b, first))


@pytest.mark.parametrize("computed", [scan._in_steps, scan._in_rounds])
def test_factor_of_zero_cuts_off_values_that_are_not_finite(computed: object) -> None:
    a, b = torch.ones(6, 1), torch.ones(6, 1)
    a[3], b[1] = 0.0, torch.inf
    with torch.no_grad():
        y = computed(a, b, torch.full((1,), torch.nan))  # type: ignore[operator]
    assert y[3:].flatten().tolist() == [1.0, 2.0, 3.0]

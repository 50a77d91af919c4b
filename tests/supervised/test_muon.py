"""Muon: the update of torch.optim.Muon in either precision, its cost, and its state in checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import _muon as reference

from rmc_agents.supervised.muon import COEFFICIENTS, EPS, ITERATIONS, Muon, Orthogonalization, orthogonalized

SHAPES = [(1, 1), (1, 7), (7, 1), (24, 8), (8, 24), (16, 16), (40, 128)]
PRECISIONS: list[Orthogonalization] = ["float32", "bfloat16"]


def matrices(scale: float = 1.0) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(scale * torch.randn(shape)) for shape in SHAPES]


def set_gradients(*groups: list[torch.nn.Parameter]) -> None:
    """Give corresponding parameters of all groups the same random gradient."""
    for parameters in zip(*groups, strict=True):
        gradient = torch.randn_like(parameters[0])
        for parameter in parameters:
            parameter.grad = gradient.clone()


@pytest.fixture
def torch_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch.optim.Muon orthogonalise in float32: its one conversion copies instead."""
    original = reference._zeropower_via_newtonschulz

    class Float32(torch.Tensor):
        def bfloat16(self, *_: Any, **__: Any) -> torch.Tensor:
            return self.as_subclass(torch.Tensor).clone()

    def converted(grad: torch.Tensor, *others: Any) -> torch.Tensor:
        return original(grad.as_subclass(Float32), *others)

    monkeypatch.setattr(reference, "_zeropower_via_newtonschulz", converted)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_steps_equal_those_of_torch(precision: Orthogonalization, request: pytest.FixtureRequest) -> None:
    if precision == "float32":
        request.getfixturevalue("torch_in_float32")
    own = matrices()
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in own]
    before = [p.detach().clone() for p in own]
    optimizer = Muon(own, 0.02, orthogonalization=precision)
    expected = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for step in range(4):
        for group in (*optimizer.param_groups, *expected.param_groups):
            group["lr"] = 0.02 / (1 + step)
        set_gradients(own, theirs)
        optimizer.step()
        expected.step()
    for a, b, start in zip(own, theirs, before, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, start)
    assert optimizer.state_dict()["state"].keys() == expected.state_dict()["state"].keys()
    for a, b in zip(
        optimizer.state_dict()["state"].values(), expected.state_dict()["state"].values(), strict=True
    ):
        assert a.keys() == b.keys() == {"momentum_buffer"}
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_constants_are_those_of_torch() -> None:
    group = torch.optim.Muon(matrices()).param_groups[0]
    assert group["ns_coefficients"] == COEFFICIENTS
    assert (group["ns_steps"], group["eps"], group["momentum"], group["nesterov"]) == (
        *(ITERATIONS, EPS),
        *(0.95, True),
    )


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16), (128, 40)], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonalized_matrix_has_singular_values_near_one(shape: tuple[int, int], scale: float) -> None:
    matrix = scale * torch.randn(shape)
    found = {p: orthogonalized(matrix, getattr(torch, p)).double() for p in PRECISIONS}
    u, singular, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    a, b, c = COEFFICIENTS
    x = singular / singular.norm()
    for _ in range(ITERATIONS):
        x = a * x + b * x**3 + c * x**5
    exact = u @ torch.diag(x) @ vh
    # The iteration multiplies errors in small singular values by up to a^5 = 485.
    assert (found["float32"] - exact).abs().max() < 485 * torch.finfo(torch.float32).eps
    assert (found["bfloat16"] - exact).norm() < 0.05 * exact.norm()
    values = torch.linalg.svdvals(found["float32"])
    assert values.max() < 1.25
    assert values[singular > 0.1 * singular.max()].min() > 0.6


def test_zero_gradient_only_decays_the_weights() -> None:
    (parameter,) = [torch.nn.Parameter(torch.ones(3, 2))]
    parameter.grad = torch.zeros(3, 2)
    Muon([parameter], 0.5, weight_decay=0.1).step()
    assert torch.equal(parameter.detach(), torch.full((3, 2), 1 - 0.5 * 0.1))


def test_parameters_without_a_gradient_do_not_change() -> None:
    first, second = matrices()[3:5]
    before = second.detach().clone()
    first.grad = torch.randn_like(first)
    optimizer = Muon([first, second], 0.1)
    optimizer.step()
    assert torch.equal(second.detach(), before)
    assert list(optimizer.state_dict()["state"]) == [0]


def test_closure_computes_the_gradients() -> None:
    parameter = torch.nn.Parameter(torch.eye(2))

    def closure() -> float:
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert Muon([parameter], 0.1).step(closure) == 2.0
    assert parameter.diagonal().max() < 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_are_not_changed(precision: Orthogonalization) -> None:
    parameters = matrices()
    set_gradients(parameters)
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    Muon(parameters, 0.1, orthogonalization=precision).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=True) if p.grad is not None)


def test_only_matrices_and_known_precisions_are_accepted() -> None:
    with pytest.raises(ValueError, match=r"shapes \[\(3,\)\]"):
        Muon([torch.nn.Parameter(torch.zeros(3))], 0.1)
    with pytest.raises(ValueError, match="'float16'"):
        Muon(matrices(), 0.1, orthogonalization="float16")  # type: ignore[arg-type]


def test_default_step_computes_in_float32_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step must not depend on fast bfloat16."""
    dtypes = set()
    addmm = torch.addmm

    def recorded(x: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        dtypes.add(x.dtype)
        return addmm(x, *others, **options)

    monkeypatch.setattr(torch, "addmm", recorded)
    parameters = matrices()
    set_gradients(parameters)
    Muon(parameters, 0.1).step()
    assert dtypes == {torch.float32}

"""Adam on flat parameters: steps of `torch.optim.Adam`, in C and in PyTorch, and skipped steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rmc_agents.cores.kernels import adam_native
from rmc_agents.rl.optimizer import FlatAdam
from tests.support.cores import needs_native
from tests.support.rounding import rounding_error

SHAPES = [(7, 5), (3,), (64, 33), ()]
NO_SKIP = torch.tensor(0.0)


@pytest.fixture(params=[pytest.param("C", marks=needs_native), "PyTorch"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each implementation."""
    if request.param == "PyTorch":
        monkeypatch.setattr(adam_native, "usable", lambda arguments: False)
    return request.param


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def flat_adam(given: list[nn.Parameter]) -> FlatAdam:
    return FlatAdam(given, eps=1e-5, max_grad_norm=0.5)


def fill_gradients(given: list[nn.Parameter], step: int, scale: float) -> None:
    """Set the gradients to numbers that depend on the step alone."""
    generator = torch.Generator().manual_seed(step)
    for p in given:
        gradient = scale * torch.randn(p.shape, generator=generator)
        p.grad = gradient if p.grad is None else p.grad.copy_(gradient)


def all_tensors(optimizer: FlatAdam) -> list[Tensor]:
    return [x.clone() for x in (*optimizer.tensors, optimizer.steps)]


def test_steps_are_those_of_torch_adam_after_clipping(implementation: str) -> None:
    own, others = parameters(), parameters()
    optimizer, reference = flat_adam(own), torch.optim.Adam(others, lr=0.0, eps=1e-5)
    for step, scale in enumerate([1.0, 1e-3, 1.0, 1e-4]):  # clipped and not clipped
        learning_rate = 0.01 / (step + 1)
        reference.param_groups[0]["lr"] = learning_rate
        fill_gradients(own, step, scale)
        fill_gradients(others, step, scale)
        expected = nn.utils.clip_grad_norm_(others, 0.5)
        reference.step()
        norm = optimizer.step(torch.tensor(learning_rate), NO_SKIP)
        torch.testing.assert_close(norm, expected, rtol=1e-5, atol=0.0)
        optimizer.zero_grad()
    assert optimizer.steps == 4
    for p, other in zip(own, others, strict=True):
        torch.testing.assert_close(p, other, atol=rounding_error(4), rtol=0.0)
        for name, moment in optimizer.state[p].items():
            torch.testing.assert_close(moment, reference.state[other][name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_gradient_that_is_not_finite_changes_nothing(implementation: str, bad: float) -> None:
    own = parameters()
    optimizer = flat_adam(own)
    fill_gradients(own, 0, 1.0)
    optimizer.step(torch.tensor(0.01), NO_SKIP)
    before = all_tensors(optimizer)
    assert own[2].grad is not None
    own[2].grad[63, 32] = bad
    assert not optimizer.step(torch.tensor(0.01), NO_SKIP).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(all_tensors(optimizer), before, strict=True))


def test_skipped_step_changes_nothing_and_returns_the_norm(implementation: str) -> None:
    own = parameters()
    optimizer = flat_adam(own)
    fill_gradients(own, 0, 1.0)
    before, expected = all_tensors(optimizer), optimizer.gradient.norm()
    norm = optimizer.step(torch.tensor(0.01), torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(all_tensors(optimizer), before, strict=True))
    torch.testing.assert_close(norm, expected, rtol=1e-5, atol=0.0)


def test_saved_moments_continue_a_run_bit_for_bit(implementation: str) -> None:
    results = []
    for interrupted in (False, True):
        own = parameters()
        optimizer = flat_adam(own)
        for step in range(4):
            if interrupted and step == 2:
                state = optimizer.state_dict()
                optimizer = flat_adam(own)
                optimizer.load_state_dict(state)
            fill_gradients(own, step, 1.0)
            optimizer.step(torch.tensor(0.01), NO_SKIP)
        results.append(all_tensors(optimizer))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@needs_native
@pytest.mark.parametrize("size", [1, 15, 16, 1023, 1024, 1025, 5000])
def test_compiled_step_is_correct_at_any_size(size: int) -> None:
    gradient = torch.arange(size) % 7 - 2.5
    tensors = torch.ones(size), torch.zeros(size), torch.zeros(size)
    learning_rate, skip, steps = torch.tensor(0.01), torch.tensor(0.0), torch.tensor(0.0)
    arguments = adam_native.Arguments(learning_rate, skip, gradient, *tensors, steps)
    assert adam_native.usable(arguments)
    norm = adam_native.PreparedAdam(arguments, eps=1e-8, max_grad_norm=torch.inf).step()
    torch.testing.assert_close(norm, gradient.double().norm().float(), rtol=1e-6, atol=0.0)
    # The first step of Adam is the learning rate times the gradient's sign.
    torch.testing.assert_close(tensors[0], 1 - 0.01 * gradient.sign(), rtol=0.0, atol=1e-5)
    assert not tensors[1].isnan().any()

"""The DNC: comparison with NumPy, properties of its addressing, and the cases that are prone to NaN."""

from __future__ import annotations

import pytest
import torch

from rmc_agents.cores import DNC
from rmc_agents.cores.dnc import allocation_weights, content_weights, read_weights, update_link, update_usage
from tests.support.cores import sequence, tiny_core
from tests.support.oracles.dnc import dnc_step


@pytest.mark.parametrize("options", [{}, {"num_rows": 7, "row_size": 2, "num_reads": 3}, {"clip": 0.3}])
def test_dnc_matches_numpy(options: dict[str, float]) -> None:
    core = tiny_core("dnc", **{"num_rows": 4, "row_size": 3, "num_reads": 2, **options})
    assert isinstance(core, DNC)
    seq = sequence(core, length=8, batch_size=3)
    outputs, last = core.unroll(*seq)
    parameters = {name: p.detach().numpy() for name, p in core.named_parameters()}
    fresh = [s[0].numpy() for s in core.initial_state(1)]
    for row in range(3):
        state = tuple(s[row].detach().numpy() for s in seq.state)
        for t in range(8):
            if seq.starts[t, row]:
                state = tuple(fresh)
            output, state = dnc_step(parameters, seq.inputs[t, row].detach().numpy(), state, core.clip)
            torch.testing.assert_close(outputs[t, row].detach(), torch.from_numpy(output))
        for actual, expected in zip(last, state, strict=True):
            torch.testing.assert_close(actual[row].detach(), torch.from_numpy(expected))


def weights(*shape: int) -> torch.Tensor:
    """Random weights over the last axis that sum to 0.8."""
    return (0.8 * torch.rand(*shape, dtype=torch.float64).softmax(-1)).requires_grad_()


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, requires_grad=True)


def test_addressing_gradients_match_finite_differences() -> None:
    check = torch.autograd.gradcheck
    assert check(content_weights, (uniform(2, 4, 3), uniform(2, 2, 3), uniform(2, 2)))
    assert check(update_usage, (uniform(2, 4), weights(2, 4), weights(2, 3, 4), uniform(2, 3)))
    assert check(allocation_weights, (uniform(2, 4),))
    assert check(update_link, (uniform(2, 4, 4), weights(2, 4), weights(2, 4)))
    assert check(read_weights, (uniform(2, 4, 4), weights(2, 3, 4), weights(2, 3, 4), uniform(2, 3, 3)))


def test_allocation_prefers_the_least_used_row() -> None:
    usage = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.5, 0.9, 0.2, 0.9]])
    allocated = allocation_weights(usage)
    torch.testing.assert_close(allocated[0], torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(allocated[1], torch.tensor([0.1, 0.01, 0.8, 0.009]), atol=1e-5, rtol=0)
    full = allocation_weights(torch.ones(1, 4))
    assert full.abs().max() < 1e-5


def test_weights_and_usage_stay_in_range() -> None:
    """All weights are at least 0 and sum to at most 1; usage is between 0 and 1."""
    core = tiny_core("dnc", dtype=torch.float32)
    state = core.initial_state(5)
    with torch.no_grad():
        for _ in range(200):
            _, state = core.step(3 * torch.randn(5, core.input_size), state)
            for w in (state.write_weights, state.precedence, state.read_weights, state.link):
                assert w.min() >= -1e-6
                assert w.sum(-1).max() <= 1 + 1e-5
            assert state.usage.min() >= 0
            assert state.usage.max() <= 1 + 1e-6
            assert (state.link.diagonal(dim1=-2, dim2=-1) == 0).all()


def test_links_follow_the_write_order() -> None:
    link, precedence = torch.zeros(1, 3, 3), torch.zeros(1, 3)
    for row in (2, 0, 1):
        link, precedence = update_link(link, precedence, torch.eye(3)[row].unsqueeze(0))
    assert link[0].tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    at_0 = torch.eye(3)[0].view(1, 1, 3)
    forward, backward = torch.eye(3)[2].view(1, 1, 3), torch.eye(3)[0].view(1, 1, 3)
    assert read_weights(link, at_0, at_0, forward)[0, 0].tolist() == [0, 1, 0]
    assert read_weights(link, at_0, at_0, backward)[0, 0].tolist() == [0, 0, 1]


def test_empty_memory_has_finite_gradients() -> None:
    core = tiny_core("dnc", dtype=torch.float32)
    inputs = torch.zeros(4, 2, core.input_size, requires_grad=True)
    outputs, _ = core.unroll(inputs, core.initial_state(2), torch.ones(4, 2, dtype=torch.bool))
    outputs.sum().backward()
    assert inputs.grad is not None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())


@pytest.mark.slow
def test_state_stays_finite_for_ten_thousand_steps() -> None:
    core = DNC(4, hidden_size=8, num_rows=6, row_size=4, num_reads=2)
    state = core.initial_state(2)
    with torch.no_grad():
        for _ in range(10_000):
            output, state = core.step(2 * torch.randn(2, 4), state)
    assert output.isfinite().all()
    assert all(s.isfinite().all() for s in state)


def test_sizes_are_validated() -> None:
    core = DNC(5, hidden_size=12)
    assert core.output_size == 12
    with pytest.raises(ValueError, match="num_rows"):
        DNC(5, num_rows=0)
    with pytest.raises(ValueError, match="clip"):
        DNC(5, clip=0.0)

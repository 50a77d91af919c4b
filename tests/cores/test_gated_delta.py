"""The gated delta rule: the paper's equations in NumPy, what a write does, and chunks of any length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rmc_agents.cores import GatedDelta, HoistedCore
from rmc_agents.cores import gated_delta as module
from tests.support.cores import tiny_core
from tests.support.oracles import gated_delta as oracle


@pytest.mark.parametrize("write", ["replace", "add"])
def test_step_computes_the_equations(write: str) -> None:
    core = tiny_core("gated_delta", write=write)
    assert isinstance(core, GatedDelta)
    state, memory = core.initial_state(2), np.zeros((2, 2, 3, 2))
    for _ in range(4):
        x = torch.randn(2, 3, dtype=torch.float64)
        with torch.no_grad():
            output, state = core.step(x, state)
        for row in range(2):
            expected, memory[row] = oracle.step(core, x[row].numpy(), memory[row])
            np.testing.assert_allclose(output[row].numpy(), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.memory.numpy(), memory, rtol=1e-9, atol=1e-12)


def test_write_replaces_the_value_of_its_key_and_leaves_those_of_orthogonal_keys() -> None:
    core = GatedDelta(3, num_heads=1, key_size=4, value_size=2).double()
    keys = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    one = torch.ones(1, 1, dtype=torch.float64)

    def write(key: torch.Tensor, value: list[float], state: module.GatedDeltaState) -> module.GatedDeltaState:
        v = torch.tensor([[value]], dtype=torch.float64)
        k = key.view(1, 1, 4)
        return core.recur((k, k, v, 0 * one, one, v), state)[1]

    state = core.initial_state(1)
    for key, value in ((keys[0], [1.0, 2.0]), (keys[1], [3.0, 4.0]), (keys[0], [5.0, 6.0])):
        state = write(key, value, state)
    stored = keys @ state.memory[0, 0]
    expected = torch.tensor([[5.0, 6.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(stored, expected)


@pytest.mark.parametrize("length", [1, module.CHUNK, module.CHUNK + 1, 2 * module.CHUNK + 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("write", ["replace", "add"])
def test_chunks_equal_steps_in_values_and_gradients(length: int, share: float, write: str) -> None:
    core = tiny_core("gated_delta", write=write)
    assert isinstance(core, GatedDelta)
    inputs = torch.randn(length, 3, 3, dtype=torch.float64, requires_grad=True)
    state = module.GatedDeltaState(torch.randn(3, 2, 3, 2, dtype=torch.float64, requires_grad=True))
    starts = torch.rand(length, 3) < share
    found = []
    for unroll in (core.unroll, lambda *arguments: HoistedCore.unroll(core, *arguments)):
        outputs, last = unroll(inputs, state, starts)
        loss = outputs.sin().sum() + last.memory.cos().sum()
        found.append([outputs, last.memory, *torch.autograd.grad(loss, [inputs, *state, *core.parameters()])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_memory_decays_by_the_forget_bias() -> None:
    core = GatedDelta(3, forget_bias=4.0)
    log_decay = core.project(torch.zeros(1, 3))[3]
    torch.testing.assert_close(log_decay.exp(), torch.full((1, 4), 0.982), rtol=1e-3, atol=0)


def test_strong_decay_stays_finite() -> None:
    """The shares of a chunk are quotients of numbers that would underflow if they were multiplied out."""
    core = GatedDelta(3, forget_bias=-90.0)
    inputs = torch.randn(2 * module.CHUNK, 2, 3, requires_grad=True)
    outputs, _ = core.unroll(inputs, core.initial_state(2), torch.zeros(len(inputs), 2, dtype=torch.bool))
    outputs.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.isfinite().all()
    assert normalize(outputs, dim=-1).isfinite().all()


def test_memory_that_adds_up_counts() -> None:
    core = GatedDelta(3, num_heads=1, key_size=4, value_size=1, write="add").double()
    keys = torch.eye(4, dtype=torch.float64).view(4, 1, 1, 4)
    one, nothing = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, 0, dtype=torch.float64)
    state, counts = core.initial_state(1), torch.zeros(4, dtype=torch.float64)
    for key in (0, 2, 2, 1, 2, 0):
        counts[key] += 1
        for asked in (3, key):
            step = (keys[asked], keys[key], one.unsqueeze(-1), 0 * one, one, nothing)
            output, after = core.recur(step, state)
            torch.testing.assert_close(output.item(), counts[asked].item() / 10)
        state = after

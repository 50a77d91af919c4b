"""Cores in C: supported arguments, the fallback to PyTorch, restrictions of autograd, memory use."""

from __future__ import annotations

import copy
import resource
import warnings
from typing import cast

import pytest
import torch

from rmc_agents.cores import RMC
from rmc_agents.tree import map_tree
from tests.support.cores import (
    NATIVE_CORES,
    Sequence,
    assert_correct,
    float32_core,
    needs_native,
    sequence,
    usual_core,
    values_and_gradients,
)

pytestmark = needs_native

every_core = pytest.mark.parametrize("name", NATIVE_CORES)


@every_core
def test_strided_and_expanded_arguments_are_supported(name: str, native_calls: list[str]) -> None:
    core = float32_core(name)
    _, state, starts = sequence(core, 6, 4)
    with torch.no_grad():
        state = map_tree(lambda s: s[:1].expand_as(s), state)
        inputs = torch.randn(4, 12, 6).transpose(0, 1)[::2, :, ::2]  # [6, 4, 3]
        flags = starts.t().contiguous().t()
        native_calls.clear()
        outputs = core.unroll(inputs, state, flags)[0]
        expected = core.unroll(inputs.contiguous(), map_tree(torch.clone, state), starts)[0]
        assert torch.equal(outputs, expected)
        for parameter in core.parameters():  # parameters may be in column-major order, too
            parameter.data = parameter.data.t().contiguous().t()
        assert torch.equal(core.unroll(inputs, state, flags)[0], expected)
    assert len(native_calls) == 3
    seq = Sequence(inputs.requires_grad_(), map_tree(lambda s: s.clone().requires_grad_(), state), flags)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))


@every_core
def test_optimizer_steps_change_the_results(name: str) -> None:
    core = float32_core(name)
    seq = sequence(core)
    optimizer = torch.optim.Adam(core.parameters(), lr=0.1)
    outputs = first = core.unroll(*seq)[0]
    for _ in range(3):
        assert_correct(core, seq, {"outputs": outputs}, lambda _, run, seq: {"outputs": run(*seq)[0]})
        optimizer.zero_grad()
        outputs.square().mean().backward()
        optimizer.step()
        outputs = core.unroll(*seq)[0]
    assert (outputs - first).abs().max() > 0.01


@every_core
def test_unsupported_uses_of_autograd_raise(name: str) -> None:
    core = float32_core(name)
    seq = sequence(core)
    loss = core.unroll(*seq)[0].sum()
    first = torch.autograd.grad(loss, seq.inputs, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, seq.inputs)[0], first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()

    (gradient,) = torch.autograd.grad(core.unroll(*seq)[0].sin().sum(), seq.inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()

    loss = core.unroll(*seq)[0].sum()
    with torch.no_grad():
        next(core.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@every_core
def test_frozen_parameters_and_inputs_receive_no_gradients(name: str) -> None:
    core = float32_core(name)
    inputs, state, starts = sequence(core)
    frozen, *others = core.parameters()
    frozen.requires_grad_(False)
    outputs, _ = core.unroll(inputs.detach(), map_tree(torch.Tensor.detach, state), starts)
    outputs.sum().backward()
    assert frozen.grad is None
    assert all(p.grad is not None for p in others)


@every_core
def test_wrong_shapes_raise_before_the_library_is_called(name: str, native_calls: list[str]) -> None:
    core = float32_core(name)
    inputs, state, starts = sequence(core)
    native_calls.clear()
    with torch.no_grad():
        for wrong in (
            (inputs[..., :2], state, starts),
            (inputs, map_tree(lambda s: s[:2], state), starts),
            (inputs, state, starts[:, :2]),
        ):
            with pytest.raises(RuntimeError):
                core.unroll(*wrong)
    assert native_calls == []


@every_core
def test_pytorch_runs_where_the_library_cannot(name: str, native_calls: list[str]) -> None:
    core = float32_core(name).requires_grad_(False)
    inputs, state, starts = sequence(core, 3)
    several_blocks = [float32_core("rmc", num_blocks=2)] * (name == "rmc")
    native_calls.clear()
    for other in (copy.deepcopy(core).double(), copy.deepcopy(core).to("meta"), *several_blocks):
        parameter = next(other.parameters())
        x = torch.randn(3, 2, 3, dtype=parameter.dtype, device=parameter.device)
        other.unroll(x, other.initial_state(2), torch.zeros(3, 2, dtype=torch.bool, device=parameter.device))
    with torch.autocast("cpu", torch.bfloat16):
        core.unroll(inputs, state, starts)
    core.unroll(inputs[:, :0], map_tree(lambda s: s[:0], state), starts[:, :0])
    assert native_calls == []

    x, later = inputs[0].detach(), inputs[1].detach()
    leaves = tuple(s.detach() for s in state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in newer versions of torch
        step = torch.jit.trace(
            lambda x, *s: core.step(x, type(state)(*s))[0], (x, *leaves), check_trace=False
        )
        assert native_calls == []
        torch.testing.assert_close(step(later, *leaves), core.step(later, type(state)(*leaves))[0])


@every_core
def test_results_do_not_depend_on_the_defaults_of_torch(name: str, native_calls: list[str]) -> None:
    core = float32_core(name)
    seq = sequence(core)
    native_calls.clear()
    expected = values_and_gradients(core, core.unroll, seq)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = values_and_gradients(core, core.unroll, seq)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert native_calls[3:] == native_calls[:3]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@every_core
def test_repeated_updates_do_not_leak_memory(name: str) -> None:
    core = float32_core(name) if name == "rmc" else usual_core(name)
    seq = sequence(core, 8, 32)

    def update() -> None:
        core.unroll(*seq)[0].sum().backward()
        core.unroll(*seq)  # without a backward pass
        with torch.no_grad():
            core.step(seq.inputs[0], seq.state)

    for _ in range(50):
        update()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on Linux
    for _ in range(1000 if name == "rmc" else 300):
        update()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16_000


def test_replaced_gates_of_another_size_raise() -> None:
    core = cast(RMC, float32_core("rmc"))
    inputs, state, starts = sequence(core)
    core.memory_gates = torch.nn.Linear(core.slot_size, 3)
    with pytest.raises(RuntimeError), torch.no_grad():
        core.unroll(inputs, state, starts)

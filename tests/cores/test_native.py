"""Cores in C: the same numbers as the plain loop, whatever the sizes, and PyTorch wherever C cannot be."""

from __future__ import annotations

import copy
import resource
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_agents.cores import RMC, HoistedCore
from rmc_agents.cores.native import build
from rmc_agents.tree import map_tree
from tests.cores.core_support import Sequence, assert_equal, sequence, tiny_core, values_and_gradients

pytestmark = pytest.mark.skipif(build.library() is None, reason="no native kernels here")

NATIVE = ["rmc", "lstm", "gru", "rnn"]
USUAL: dict[str, dict[str, Any]] = {"rmc": {"num_slots": 4, "num_heads": 4, "head_size": 16}}
every_core = pytest.mark.parametrize("name", NATIVE)


def single(name: str, input_size: int = 3, **options: Any) -> HoistedCore:
    return cast(HoistedCore, tiny_core(name, input_size, torch.float32, **options))


def usual(name: str) -> HoistedCore:
    return single(name, 20, **USUAL.get(name, {"hidden_size": 64}))


def plain(core: HoistedCore) -> Callable[..., Any]:
    return lambda *s: HoistedCore.unroll(core, *s)


def in_double_precision(core: HoistedCore, seq: Sequence) -> dict[str, torch.Tensor]:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x.detach().double().requires_grad_()

    core = copy.deepcopy(core).double()
    doubled = Sequence(double(seq.inputs), map_tree(double, seq.state), seq.starts)
    return values_and_gradients(core, plain(core), doubled)


def differing(core: HoistedCore, length: int, batch_size: int) -> list[str]:
    """Names of values and gradients that are wrong by more than rounding."""
    seq = sequence(core, length, batch_size)
    seq.starts.logical_or_(torch.rand(seq.starts.shape) < 0.1)
    found, rounded = (values_and_gradients(core, run, seq) for run in (core.unroll, plain(core)))
    wrong = []
    for name, exact in in_double_precision(core, seq).items():
        # A norm over few numbers makes much of a rounding error: as good as PyTorch is all one can ask.
        bound = 1e-5 * (1 + exact.abs()) + 3 * (rounded[name] - exact).abs().max()
        if ((found[name] - exact).abs() > bound).any():
            wrong.append(name)
    return wrong


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    options=st.fixed_dictionaries(
        {
            "num_slots": st.integers(1, 9),
            "num_heads": st.integers(1, 4),
            "head_size": st.sampled_from([1, 2, 3, 5, 8, 16, 17]),
            "key_size": st.sampled_from([None, 1, 3, 16]),
            "mlp_layers": st.integers(1, 4),
            "gate_style": st.sampled_from(["unit", "memory", "none"]),
            "slot_attention": st.sampled_from(["all", "all", "own", "none"]),
        }
    ),
    input_size=st.sampled_from([1, 3, 16, 21]),
    length=st.integers(2, 9),
    batch_size=st.integers(1, 37),
)
def test_rmc_of_any_size(options: dict[str, Any], input_size: int, length: int, batch_size: int) -> None:
    # Of many ReLUs one may be so near zero that rounding opens or shuts it, but not three times running.
    assert any(not differing(single("rmc", input_size, **options), length, batch_size) for _ in range(3))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["lstm", "gru", "rnn"]),
    hidden_size=st.sampled_from([1, 2, 7, 16, 33, 64]),
    input_size=st.sampled_from([1, 3, 16, 21]),
    length=st.integers(2, 9),
    batch_size=st.integers(1, 37),
)
def test_gated_of_any_size(
    name: str, hidden_size: int, input_size: int, length: int, batch_size: int
) -> None:
    assert differing(single(name, input_size, hidden_size=hidden_size), length, batch_size) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rmc", {}),
        ("rmc", USUAL["rmc"]),
        ("rmc", {"num_slots": 8, "head_size": 32}),
        ("rmc", {"num_slots": 8, "head_size": 32, "slot_attention": "own"}),
        ("rmc", {**USUAL["rmc"], "slot_attention": "none"}),
        ("lstm", {"hidden_size": 128}),
        ("gru", {"hidden_size": 128}),
        ("rnn", {"hidden_size": 32}),
    ],
    ids=str,
)
def test_the_usual_sizes(name: str, options: dict[str, Any], runs: list[str]) -> None:
    """Against double precision: in sums this long, two single precisions differ by both their errors."""
    core = single(name, 40, **options)
    seq = sequence(core, 16, 32)
    found = values_and_gradients(core, core.unroll, seq)
    assert {function.split("_")[1] for function in runs} == {"forward", "saved", "backward"}
    assert_equal({name: value.double() for name, value in found.items()}, in_double_precision(core, seq))


@every_core
def test_bitwise_the_same_every_time_and_for_any_number_of_threads(name: str) -> None:
    core = usual(name)
    seq = sequence(core, 40, 70)  # five groups of sixteen rows: more work than two threads share evenly
    results = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(values_and_gradients(core, core.unroll, seq))
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


@every_core
def test_bitwise_the_same_without_gradients_and_step_by_step(name: str) -> None:
    core = usual(name)
    inputs, state, _ = sequence(core, 7, 19)
    outputs, last = core.unroll(inputs, state, torch.zeros(7, 19, dtype=torch.bool))
    assert outputs.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            again, last_again = core.unroll(inputs, state, torch.zeros(7, 19, dtype=torch.bool))
            stepped = state
            for x, output in zip(inputs, outputs, strict=True):
                found, stepped = core.step(x, stepped)
                assert torch.equal(found, output)
        assert torch.equal(outputs, again)
        for leaves in zip(last, last_again, stepped, strict=True):
            assert all(torch.equal(leaf, leaves[0]) for leaf in leaves)


@every_core
def test_only_the_row_that_is_not_finite_suffers(name: str) -> None:
    core = single(name)
    inputs, state, starts = sequence(core)
    starts[:] = False
    starts[2, 0] = True
    with torch.no_grad():
        expected = core.unroll(inputs, state, starts)[0]
        for leaf in state:
            leaf[0] = torch.nan
        inputs[4, 3, 0] = torch.nan
        outputs = core.unroll(inputs, state, starts)[0]
    assert outputs[:2, 0].isnan().any(-1).all()  # until the reset
    assert torch.equal(outputs[2:, 0], expected[2:, 0])
    assert torch.equal(outputs[:4, 3], expected[:4, 3])
    assert outputs[4:, 3].isnan().any(-1).all()
    assert torch.equal(outputs[:, 1:3], expected[:, 1:3])


@every_core
def test_infinite_inputs_are_treated_as_by_the_plain_loop(name: str) -> None:
    core = single(name)
    inputs, state, starts = sequence(core)
    with torch.no_grad():
        inputs[1, 0, 0], inputs[2, 1, 1], inputs[0, 2, :] = torch.inf, -torch.inf, 1e30
        found, expected = core.unroll(inputs, state, starts)[0], plain(core)(inputs, state, starts)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@every_core
def test_no_gradient_of_a_state_that_was_wiped(name: str) -> None:
    core = single(name)
    inputs, state, starts = sequence(core)
    starts[0] = True
    broken = map_tree(lambda s: torch.full_like(s, torch.nan, requires_grad=True), state)
    core.unroll(inputs, broken, starts)[0].sum().backward()
    assert all((leaf.grad == 0).all() for leaf in broken)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())


@every_core
@pytest.mark.parametrize("part", ["outputs", "last", "both"])
def test_gradients_of_parts_of_the_result(name: str, part: str) -> None:
    core = single(name)
    seq = sequence(core)
    gradients = []
    for run in (core.unroll, plain(core)):
        outputs, last = run(*seq)
        parts = [outputs[2]] * (part != "last") + [*last] * (part != "outputs")
        loss = sum(x.sin().sum() for x in parts)
        gradients.append(torch.autograd.grad(loss, [seq.inputs, *seq.state, *core.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@every_core
def test_strided_and_expanded_arguments(name: str, runs: list[str]) -> None:
    core = single(name)
    _, state, starts = sequence(core, 6, 4)
    with torch.no_grad():
        state = map_tree(lambda s: s[:1].expand_as(s), state)
        inputs = torch.randn(4, 12, 6).transpose(0, 1)[::2, :, ::2]  # [6, 4, 3]
        flags = starts.t().contiguous().t()
        runs.clear()
        outputs = core.unroll(inputs, state, flags)[0]
        expected = core.unroll(inputs.contiguous(), map_tree(torch.clone, state), starts)[0]
        assert torch.equal(outputs, expected)
        for parameter in core.parameters():  # these, too, may lie in memory column by column
            parameter.data = parameter.data.t().contiguous().t()
        assert torch.equal(core.unroll(inputs, state, flags)[0], expected)
    assert len(runs) == 3
    seq = Sequence(inputs.requires_grad_(), map_tree(lambda s: s.clone().requires_grad_(), state), flags)
    assert_equal(values_and_gradients(core, core.unroll, seq), values_and_gradients(core, plain(core), seq))


@every_core
def test_an_optimizer_changes_what_is_computed(name: str) -> None:
    core = single(name)
    seq = sequence(core)
    optimizer = torch.optim.Adam(core.parameters(), lr=0.1)
    outputs = first = core.unroll(*seq)[0]
    for _ in range(3):
        torch.testing.assert_close(outputs, plain(core)(*seq)[0], atol=1e-5, rtol=1e-5)
        optimizer.zero_grad()
        outputs.square().mean().backward()
        optimizer.step()
        outputs = core.unroll(*seq)[0]
    assert (outputs - first).abs().max() > 0.01


@every_core
def test_what_autograd_refuses(name: str) -> None:
    core = single(name)
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
def test_frozen_parameters_and_inputs_without_gradients(name: str) -> None:
    core = single(name)
    inputs, state, starts = sequence(core)
    frozen, *others = core.parameters()
    frozen.requires_grad_(False)
    outputs, _ = core.unroll(inputs.detach(), map_tree(torch.Tensor.detach, state), starts)
    outputs.sum().backward()
    assert frozen.grad is None
    assert all(p.grad is not None for p in others)


@every_core
def test_wrong_shapes_are_refused_and_not_read(name: str, runs: list[str]) -> None:
    core = single(name)
    inputs, state, starts = sequence(core)
    runs.clear()
    with torch.no_grad():
        for wrong in (
            (inputs[..., :2], state, starts),
            (inputs, map_tree(lambda s: s[:2], state), starts),
            (inputs, state, starts[:, :2]),
        ):
            with pytest.raises(RuntimeError):
                core.unroll(*wrong)
    assert runs == []


@every_core
def test_where_pytorch_does_it(name: str, runs: list[str]) -> None:
    core = single(name).requires_grad_(False)
    inputs, state, starts = sequence(core, 3)
    several_blocks = [single("rmc", num_blocks=2)] * (name == "rmc")
    runs.clear()
    for other in (copy.deepcopy(core).double(), copy.deepcopy(core).to("meta"), *several_blocks):
        parameter = next(other.parameters())
        x = torch.randn(3, 2, 3, dtype=parameter.dtype, device=parameter.device)
        other.unroll(x, other.initial_state(2), torch.zeros(3, 2, dtype=torch.bool, device=parameter.device))
    with torch.autocast("cpu", torch.bfloat16):
        core.unroll(inputs, state, starts)
    core.unroll(inputs[:, :0], map_tree(lambda s: s[:0], state), starts[:, :0])
    assert runs == []

    x, later = inputs[0].detach(), inputs[1].detach()
    leaves = tuple(s.detach() for s in state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch call it deprecated
        step = torch.jit.trace(
            lambda x, *s: core.step(x, type(state)(*s))[0], (x, *leaves), check_trace=False
        )
        assert runs == []
        torch.testing.assert_close(step(later, *leaves), core.step(later, type(state)(*leaves))[0])


@every_core
def test_other_defaults_of_torch_do_not_matter(name: str, runs: list[str]) -> None:
    core = single(name)
    seq = sequence(core)
    runs.clear()
    expected = values_and_gradients(core, core.unroll, seq)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = values_and_gradients(core, core.unroll, seq)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert runs[3:] == runs[:3]
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@every_core
def test_no_leak(name: str) -> None:
    core = usual(name)
    seq = sequence(core, 8, 32)

    def update() -> None:
        core.unroll(*seq)[0].sum().backward()
        core.unroll(*seq)  # and one whose backward pass never comes
        with torch.no_grad():
            core.step(seq.inputs[0], seq.state)

    for _ in range(50):
        update()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on Linux
    for _ in range(1000 if name == "rmc" else 300):
        update()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16_000


def test_a_core_whose_gates_are_replaced_is_not_read_beyond_its_end() -> None:
    core = cast(RMC, single("rmc"))
    inputs, state, starts = sequence(core)
    core.memory_gates = torch.nn.Linear(core.slot_size, 3)
    with pytest.raises(RuntimeError), torch.no_grad():
        core.unroll(inputs, state, starts)

"""Cores in C: values and gradients equal those of the plain loop at any size, and are reproducible."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_agents.cores import HoistedCore
from rmc_agents.cores.kernels import build
from rmc_agents.tree import map_tree
from tests.support.cores import (
    NATIVE_CORES,
    USUAL,
    Run,
    Sequence,
    assert_correct,
    beyond_rounding,
    float32_core,
    needs_native,
    plain_unroll,
    sequence,
    usual_core,
    values_and_gradients,
)
from tests.support.rounding import tolerances

pytestmark = [needs_native, pytest.mark.usefixtures("instructions")]


def test_instruction_set_is_the_one_asked_for(instructions: str) -> None:
    assert build.state() == instructions or instructions == "1"


every_core = pytest.mark.parametrize("name", NATIVE_CORES)


def differing(core: HoistedCore, length: int, batch_size: int) -> list[str]:
    """Return the names of values and gradients whose error exceeds that of rounding."""
    seq = sequence(core, length, batch_size)
    seq.starts.logical_or_(torch.rand(seq.starts.shape) < 0.1)
    return beyond_rounding(core, seq, values_and_gradients(core, core.unroll, seq))


@settings(max_examples=30, deadline=None, derandomize=True)
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
def test_rmc_is_correct_at_any_size(
    options: dict[str, Any], input_size: int, length: int, batch_size: int
) -> None:
    # One of many ReLUs may be so close to zero that rounding switches it, but not in three attempts in a row.
    assert any(
        not differing(float32_core("rmc", input_size, **options), length, batch_size) for _ in range(3)
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["lstm", "gru", "rnn", "mingru"]),
    hidden_size=st.sampled_from([1, 2, 7, 16, 33, 64]),
    input_size=st.sampled_from([1, 3, 16, 21]),
    length=st.integers(2, 9),
    batch_size=st.integers(1, 37),
)
def test_gated_cores_are_correct_at_any_size(
    name: str, hidden_size: int, input_size: int, length: int, batch_size: int
) -> None:
    assert differing(float32_core(name, input_size, hidden_size=hidden_size), length, batch_size) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rmc", {}),
        ("rmc", USUAL["rmc"]),
        ("rmc", {"num_slots": 8, "head_size": 32}),
        ("rmc", {"num_slots": 8, "head_size": 32, "slot_attention": "own"}),
        ("rmc", {**USUAL["rmc"], "slot_attention": "none"}),
        ("rmc", {**USUAL["rmc"], "coupled_gates": True, "normalize_output": True, "output_gain": 0.1}),
        ("lstm", {"hidden_size": 128}),
        ("gru", {"hidden_size": 128}),
        ("rnn", {"hidden_size": 32}),
        ("mingru", {"hidden_size": 128}),
    ],
    ids=str,
)
def test_results_at_usual_sizes_match_double_precision(
    name: str, options: dict[str, Any], native_calls: list[str]
) -> None:
    core = float32_core(name, 40, **options)
    seq = sequence(core, 16, 32)
    found = values_and_gradients(core, core.unroll, seq)
    assert {function.split("_")[1] for function in native_calls} == {"forward", "saved", "backward"}
    assert_correct(core, seq, found)


@every_core
def test_results_are_bitwise_equal_for_any_number_of_threads(name: str) -> None:
    core = usual_core(name)
    seq = sequence(core, 40, 70)  # five groups of 16 rows or nine of 8: two threads cannot share them evenly
    results = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(values_and_gradients(core, core.unroll, seq))
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


@every_core
def test_results_are_bitwise_equal_without_gradients_and_step_by_step(name: str) -> None:
    core = usual_core(name)
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
def test_non_finite_values_stay_in_their_row(name: str) -> None:
    core = float32_core(name)
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
def test_infinite_inputs_give_the_values_of_the_plain_loop(name: str) -> None:
    core = float32_core(name)
    inputs, state, starts = sequence(core)
    with torch.no_grad():
        inputs[1, 0, 0], inputs[2, 1, 1], inputs[0, 2, :] = torch.inf, -torch.inf, 1e30
        found, expected = core.unroll(inputs, state, starts)[0], plain_unroll(core)(inputs, state, starts)[0]
    torch.testing.assert_close(
        found, expected, **tolerances(expected[expected.isfinite()], starts.numel()), equal_nan=True
    )


@every_core
def test_gradient_of_a_reset_state_is_zero(name: str) -> None:
    core = float32_core(name)
    inputs, state, starts = sequence(core)
    starts[0] = True
    broken = map_tree(lambda s: torch.full_like(s, torch.nan, requires_grad=True), state)
    core.unroll(inputs, broken, starts)[0].sum().backward()
    assert all((leaf.grad == 0).all() for leaf in broken)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())


@every_core
@pytest.mark.parametrize("part", ["outputs", "last", "both"])
def test_gradients_of_each_result_match_the_plain_loop(name: str, part: str) -> None:
    def gradients(core: HoistedCore, run: Run, seq: Sequence) -> dict[str, torch.Tensor]:
        outputs, last = run(*seq)
        parts = [outputs[2]] * (part != "last") + [*last] * (part != "outputs")
        loss = sum(x.sin().sum() for x in parts)
        found = torch.autograd.grad(loss, [seq.inputs, *seq.state, *core.parameters()])
        return {str(i): gradient for i, gradient in enumerate(found)}

    core = float32_core(name)
    seq = sequence(core)
    assert_correct(core, seq, gradients(core, core.unroll, seq), gradients)

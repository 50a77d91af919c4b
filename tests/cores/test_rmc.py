"""The Relational Memory Core: comparison with NumPy, slots and gates, initial weights, traces."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_agents.cores import RMC
from rmc_agents.cores.rmc import RMCState
from tests.support.cores import (
    Sequence,
    assert_correct,
    assert_equal,
    dtype_of,
    plain_unroll,
    sequence,
    tiny_core,
    values_and_gradients,
)
from tests.support.oracles import rmc as oracle

SHAPES: list[dict[str, Any]] = [
    {},
    {"gate_style": "memory"},
    {"gate_style": "none"},
    {"key_size": 3},
    {"key_size": 1, "head_size": 3, "num_slots": 1},
    {"num_blocks": 2},
    {"num_blocks": 3, "key_size": 3, "gate_style": "memory"},
    {"mlp_layers": 1},
    {"mlp_layers": 3, "input_bias": -0.5, "forget_bias": 0.25},
    {"slot_attention": "own"},
    {"slot_attention": "none", "gate_style": "none"},
    {"normalize_output": True},
    {"normalize_output": True, "num_blocks": 2},
    {"slot_attention": "none", "num_blocks": 2},
    {"coupled_gates": True},
    {"coupled_gates": True, "gate_style": "memory", "num_blocks": 2, "forget_bias": 2.0},
    {"coupled_gates": True, "forget_bias_end": 3.0, "normalize_output": True, "output_gain": 0.5},
    {"forget_bias_end": -1.0, "forget_bias": 0.5, "input_bias": -0.5},
    {"num_slots": 6, "num_heads": 1, "head_size": 4},  # more slots than units in a slot: the identity is cut
]


def tiny_rmc(dtype: torch.dtype = torch.float64, **options: Any) -> RMC:
    return cast(RMC, tiny_core("rmc", dtype=dtype, **options))


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_rmc_matches_numpy(options: dict[str, Any]) -> None:
    core = tiny_rmc(torch.float32, **options)
    inputs, state, starts = sequence(core)
    outputs, last = core.unroll(inputs, state, starts)
    parameters = {n: p.detach().double().numpy() for n, p in core.named_parameters()}
    for row in range(inputs.shape[1]):
        memory = state.memory[row].detach().double().numpy()
        for t in range(inputs.shape[0]):
            if starts[t, row]:
                memory = oracle.fresh_memory(core.num_slots, core.slot_size)
            memory = oracle.rmc_step(
                parameters,
                inputs[t, row].detach().double().numpy(),
                memory,
                num_heads=core.num_heads,
                head_size=core.head_size,
                key_size=core.key_size,
                num_blocks=options.get("num_blocks", 1),
                mlp_layers=options.get("mlp_layers", 2),
                gate_style=options.get("gate_style", "unit"),
                slot_attention=options.get("slot_attention", "all"),
                input_bias=options.get("input_bias", 0.0),
                forget_bias=options.get("forget_bias", 1.0),
                forget_bias_end=options.get("forget_bias_end"),
                coupled_gates=options.get("coupled_gates", False),
            )
            output = memory.ravel()
            if options.get("normalize_output"):
                output = (output - output.mean()) / np.sqrt(output.var() + 1e-5)
                output *= parameters.get("output_gain", 1.0)
            np.testing.assert_allclose(outputs[t, row].detach().numpy(), output, atol=1e-5)
        np.testing.assert_allclose(last.memory[row].detach().numpy(), memory, atol=1e-5)


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_gradients_match_finite_differences(options: dict[str, Any]) -> None:
    core = tiny_rmc(**options)
    inputs, state, starts = sequence(core, length=3, batch_size=2)

    def run(
        inputs: torch.Tensor, memory: torch.Tensor, *_: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, last = core.unroll(inputs, RMCState(memory), starts)
        return outputs, last.memory

    assert torch.autograd.gradcheck(run, (inputs, state.memory, *core.parameters()), fast_mode=True)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    num_slots=st.integers(1, 5),
    num_heads=st.integers(1, 3),
    head_size=st.integers(1, 5),
    key_size=st.none() | st.integers(1, 5),
    mlp_layers=st.integers(1, 3),
    gate_style=st.sampled_from(["unit", "memory", "none"]),
    length=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_fused_sequence_equals_the_plain_loop(
    length: int, batch_size: int, seed: int, **options: Any
) -> None:
    torch.manual_seed(seed)
    core = tiny_rmc(**options)
    inputs, state, _ = sequence(core, length, batch_size)
    starts = torch.rand(length, batch_size) < 0.3
    seq = Sequence(inputs, state, starts)
    plain = values_and_gradients(core, plain_unroll(core), seq)
    assert_equal(values_and_gradients(core, core.unroll, seq), plain, 1e-9)


def test_fused_sequence_equals_the_plain_loop_at_default_sizes() -> None:
    core = RMC(20)
    seq = sequence(core, length=12, batch_size=8)
    for run in (core.unroll, plain_unroll(core)):
        assert_correct(core, seq, values_and_gradients(core, run, seq))


def test_losses_on_outputs_and_on_the_last_state_have_the_same_gradient() -> None:
    core = tiny_rmc()
    inputs, state, starts = sequence(core)
    outputs, last = core.unroll(inputs, state, starts)
    of_output = torch.autograd.grad(outputs[-1].sin().sum(), inputs, retain_graph=True)[0]
    of_state = torch.autograd.grad(last.memory.sin().sum(), inputs, retain_graph=True)[0]
    repeated = torch.autograd.grad(last.memory.sin().sum(), inputs)[0]
    torch.testing.assert_close(of_output, of_state)
    assert torch.equal(of_state, repeated)


def test_changing_a_weight_before_the_backward_pass_raises() -> None:
    core = tiny_rmc()
    outputs, _ = core.unroll(*sequence(core))
    with torch.no_grad():
        core.qkv[0].weight.add_(1.0)  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_permuting_the_initial_slots_permutes_the_output(num_blocks: int) -> None:
    core = tiny_rmc(num_blocks=num_blocks)
    inputs, _, _ = sequence(core)
    none = torch.zeros(6, 4, dtype=torch.bool)
    order = torch.tensor([2, 0, 1])
    fresh = core.initial_state(4)
    outputs, _ = core.unroll(inputs, fresh, none)
    permuted, _ = core.unroll(inputs, RMCState(fresh.memory[:, order]), none)
    by_slot = outputs.unflatten(-1, (3, -1))
    assert not torch.allclose(by_slot, by_slot[:, :, order])
    torch.testing.assert_close(permuted.unflatten(-1, (3, -1)), by_slot[:, :, order])


def test_initial_slots_become_different_and_zeroed_slots_do_not() -> None:
    core = tiny_rmc()
    inputs, _, _ = sequence(core)
    none = torch.zeros(6, 4, dtype=torch.bool)
    fresh = core.initial_state(4)
    zeroed = RMCState(torch.zeros_like(fresh.memory))

    def spread(state: RMCState) -> float:
        slots = core.unroll(inputs, state, none)[0].unflatten(-1, (3, -1))
        return (slots - slots[:, :, :1]).abs().max().item()

    assert spread(fresh) > 0.01
    assert spread(zeroed) < 1e-9


@pytest.mark.parametrize(
    ("num_slots", "expected"),
    [
        (2, [[1, 0, 0, 0], [0, 1, 0, 0]]),
        (5, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]),
    ],
)
def test_initial_memory_is_the_identity(num_slots: int, expected: list[list[int]]) -> None:
    core = RMC(3, num_slots=num_slots, num_heads=2, head_size=2)
    assert core.initial_state(2).memory.tolist() == [expected, expected]


@pytest.mark.parametrize("gate_style", ["unit", "memory"])
def test_open_forget_gate_and_closed_input_gate_keep_the_memory(gate_style: str) -> None:
    core = tiny_rmc(gate_style=gate_style, input_bias=-1e4, forget_bias=1e4)
    inputs, state, _ = sequence(core)
    _, last = core.unroll(inputs, state, torch.zeros(6, 4, dtype=torch.bool))
    torch.testing.assert_close(last.memory, state.memory, atol=1e-12, rtol=0)


def test_open_input_gate_and_closed_forget_gate_write_tanh_of_the_new_rows() -> None:
    core = tiny_rmc(input_bias=1e4, forget_bias=-1e4)
    ungated = tiny_rmc(gate_style="none")
    ungated.load_state_dict(core.state_dict(), strict=False)
    inputs, state, _ = sequence(core)
    torch.testing.assert_close(core.step(inputs[0], state)[0], torch.tanh(ungated.step(inputs[0], state)[0]))


def test_number_of_parameters_equals_the_authors_implementation() -> None:
    core = RMC(40, num_slots=8, num_heads=8, head_size=32)
    assert sum(p.numel() for p in core.parameters()) == 605_184
    assert core.output_size == 2048
    assert sum(p.numel() for p in RMC(40, num_slots=2, num_heads=8, head_size=32).parameters()) == 605_184


def test_initial_weights_are_distributed_as_in_the_authors_implementation() -> None:
    core = RMC(400, num_heads=8, head_size=32)
    weight = core.input_proj.weight
    assert weight.abs().max().item() <= 2 / 400**0.5
    assert weight.std().item() == pytest.approx(
        0.88 / 400**0.5, rel=0.02
    )  # a normal distribution cut at two deviations
    assert core.input_proj.bias.abs().max().item() == 0


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_trace_agrees_with_step_and_its_gates_are_valid(options: dict[str, Any]) -> None:
    core = tiny_rmc(**options)
    inputs, state, _ = sequence(core)
    output, after = core.step(inputs[0], state)
    traced_output, traced_after, trace = core.trace(inputs[0], state)
    torch.testing.assert_close(traced_output, output)
    torch.testing.assert_close(traced_after.memory, after.memory)
    blocks, slots, heads = options.get("num_blocks", 1), core.num_slots, core.num_heads
    assert trace.attention.shape == (4, blocks, heads, slots, slots + 1)
    torch.testing.assert_close(
        trace.attention.sum(-1), torch.ones(4, blocks, heads, slots, dtype=dtype_of(core))
    )
    for gate in (trace.input_gate, trace.forget_gate):
        assert gate.shape[:2] == (4, slots)
        assert ((gate >= 0) & (gate <= 1)).all()
    if core.gate_style != "none":
        kept = trace.forget_gate * state.memory
        assert ((after.memory - kept).abs() <= trace.input_gate + 1e-12).all()


def test_slots_attend_to_the_input() -> None:
    core = tiny_rmc()
    inputs, state, _ = sequence(core)
    assert (core.trace(inputs[0], state)[2].attention[..., -1] > 0).all()
    assert (core.step(inputs[0], state)[0] != core.step(inputs[1], state)[0]).any()


@pytest.mark.parametrize("num_blocks", [1, 2])
@pytest.mark.parametrize(("slot_attention", "influence"), [("all", True), ("own", False), ("none", False)])
def test_slots_influence_each_other_only_with_slot_attention(
    slot_attention: str, influence: bool, num_blocks: int
) -> None:
    core = tiny_rmc(slot_attention=slot_attention, num_blocks=num_blocks)
    inputs, state, _ = sequence(core)
    never = torch.zeros(6, 4, dtype=torch.bool)
    other = state.memory.detach().clone()
    other[:, 0] += 1.0
    outputs = [core.unroll(inputs, RMCState(memory), never)[0] for memory in (state.memory, other)]
    first, second = (x.unflatten(-1, (3, -1)) for x in outputs)
    assert not torch.allclose(first[:, :, 0], second[:, :, 0])
    assert torch.allclose(first[:, :, 1:], second[:, :, 1:]) != influence


def test_own_slot_attention_reads_only_the_own_row_and_the_input() -> None:
    core = tiny_rmc(slot_attention="own")
    inputs, state, _ = sequence(core)
    attention = core.trace(inputs[0], state)[2].attention[0, 0, 0]
    visible = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.bool)
    assert torch.equal(attention > 0, visible)


def test_memory_with_coupled_gates_stays_within_bounds() -> None:
    core = tiny_rmc(coupled_gates=True, forget_bias=6.0)
    inputs = 10.0 * torch.randn(500, 3, core.input_size, dtype=torch.float64)
    outputs, _ = core.unroll(inputs, core.initial_state(3), torch.zeros(500, 3, dtype=torch.bool))
    assert outputs.abs().max() <= 1.0


def test_forget_biases_span_a_range_in_each_head() -> None:
    core = RMC(3, num_heads=2, head_size=3, forget_bias=1.0, forget_bias_end=5.0, input_bias=-2.0)
    assert core._gate_bias.tolist() == [-2.0] * 6 + [1.0, 3.0, 5.0] * 2


def test_output_gain_is_learned_and_starts_as_given() -> None:
    core = RMC(3, normalize_output=True, output_gain=0.03)
    outputs, _ = core.step(torch.randn(4, 3), core.initial_state(4))
    torch.testing.assert_close(outputs.std(1), torch.full((4,), 0.03), rtol=0.01, atol=0.0)
    outputs.sum().backward()
    assert core.output_gain is not None
    assert core.output_gain.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupled_gates": True, "input_bias": 1.0}, "needs gate_style"),
        ({"coupled_gates": True, "gate_style": "none"}, "needs gate_style"),
        ({"forget_bias_end": 1.0, "gate_style": "memory"}, "forget_bias_end needs"),
        ({"output_gain": 0.1}, "needs normalize_output=True"),
    ],
)
def test_options_that_exclude_each_other_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RMC(3, **options)


def test_unknown_slot_attention_raises() -> None:
    with pytest.raises(ValueError, match="slot_attention must be one of"):
        RMC(3, slot_attention="some")  # type: ignore[arg-type]

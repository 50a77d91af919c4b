"""The contract of `MemoryCore`, tested for every registered core."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch

from rmc_agents.cores import CORES, MemoryCore, TracedCore, make_core, reset_rows
from rmc_agents.tree import map_tree
from tests.conftest import CORES_WITH_MEMORY
from tests.support.cores import (
    arbitrary_state,
    assert_correct,
    assert_equal,
    dtype_of,
    sequence,
    tiny_core,
    unroll_by_steps,
    values_and_gradients,
)

with_memory = pytest.mark.parametrize("name", CORES_WITH_MEMORY)
traced = pytest.mark.parametrize(
    "name", [name for name in CORES if isinstance(make_core(name, 1), TracedCore)]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unroll_equals_stepping(any_core: str, dtype: torch.dtype) -> None:
    core = tiny_core(any_core, dtype=dtype)
    seq = sequence(core)
    found = values_and_gradients(core, core.unroll, seq)
    if dtype == torch.float32:
        assert_correct(core, seq, found)
    else:
        expected = values_and_gradients(core, lambda *s: unroll_by_steps(core, *s), seq)
        assert_equal(found, expected, 1e-11)


def test_unroll_gives_the_same_values_without_gradients(any_core: str) -> None:
    core = tiny_core(any_core, dtype=torch.float32)
    seq = sequence(core)
    outputs, state = core.unroll(*seq)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            fast_outputs, fast_state = core.unroll(*seq)
        torch.testing.assert_close(fast_outputs, outputs.detach())
        torch.testing.assert_close(list(fast_state), [s.detach() for s in state])


def test_gradients_match_finite_differences(any_core: str) -> None:
    core = tiny_core(any_core)
    inputs, state, starts = sequence(core, length=3, batch_size=2)
    starts[:] = torch.tensor([[False, False], [True, False], [False, False]])

    def run(inputs: torch.Tensor, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs, last = core.unroll(inputs, type(state)(*leaves[: len(state)]), starts)
        return outputs, *(s for s in last if s.numel())

    assert torch.autograd.gradcheck(run, (inputs, *state, *core.parameters()))


def test_batch_rows_are_independent(any_core: str) -> None:
    core = tiny_core(any_core)
    inputs, state, starts = sequence(core)
    outputs, last = core.unroll(inputs, state, starts)
    alone, last_alone = core.unroll(inputs[:, 1:2], map_tree(lambda s: s[1:2], state), starts[:, 1:2])
    torch.testing.assert_close(alone, outputs[:, 1:2])
    torch.testing.assert_close(list(last_alone), [s[1:2] for s in last])


def test_step_keeps_shapes_and_accepts_a_rebuilt_state(any_core: str) -> None:
    core = tiny_core(any_core)
    state = core.initial_state(4)
    assert all(isinstance(s, torch.Tensor) and s.shape[0] == 4 for s in state)
    output, after = core.step(torch.randn(4, core.input_size, dtype=dtype_of(core)), state)
    assert output.shape == (4, core.output_size)
    assert type(after) is type(state)
    assert [s.shape for s in after] == [s.shape for s in state]
    assert [s.dtype for s in after] == [s.dtype for s in state]

    again = type(state)(*[torch.from_numpy(s.detach().numpy()) for s in after])
    x = torch.randn(4, core.input_size, dtype=dtype_of(core))
    torch.testing.assert_close(core.step(x, again)[0], core.step(x, after)[0])


def test_unroll_and_step_do_not_modify_their_arguments(any_core: str) -> None:
    core = tiny_core(any_core)
    inputs, state, starts = sequence(core)
    before = copy.deepcopy((inputs.detach(), [s.detach() for s in state], starts))
    core.unroll(inputs, state, starts)[0].sum().backward()
    with torch.no_grad():
        core.unroll(inputs, state, starts)
        core.step(inputs[0], state)
    torch.testing.assert_close((inputs.detach(), [s.detach() for s in state], starts), before)


@with_memory
def test_reset_restores_the_initial_state(name: str) -> None:
    core = tiny_core(name)
    inputs, state, starts = sequence(core)
    starts[:] = False
    starts[2] = True
    outputs, last = core.unroll(inputs, state, starts)
    fresh, last_fresh = core.unroll(inputs[2:], core.initial_state(4), torch.zeros_like(starts[2:]))
    torch.testing.assert_close(outputs[2:], fresh)
    torch.testing.assert_close(list(last), list(last_fresh))


@with_memory
def test_reset_removes_non_finite_values(name: str) -> None:
    core = tiny_core(name)
    inputs, _, starts = sequence(core)
    starts[0] = True
    broken = map_tree(lambda s: torch.full_like(s, torch.nan), core.initial_state(4))
    with torch.no_grad():
        assert core.unroll(inputs, broken, starts)[0].isfinite().all()


def test_reset_rows_selects_whole_rows() -> None:
    core = make_core("lstm", 2, {"hidden_size": 3})
    state = map_tree(torch.ones_like, core.initial_state(3))
    mixed = reset_rows(state, core.initial_state(3), torch.tensor([True, False, True]))
    for leaf in mixed:
        assert leaf.tolist() == [[0.0] * 3, [1.0] * 3, [0.0] * 3]


@with_memory
def test_gradients_flow_through_time_and_stop_at_a_reset(name: str) -> None:
    core = tiny_core(name)
    inputs, state, starts = sequence(core, length=5)
    starts[:] = False
    starts[3, 0] = True
    outputs, _ = core.unroll(inputs, state, starts)
    d_inputs, *d_state = torch.autograd.grad(  # a counter has no gradient
        outputs[-1].sin().sum(), [inputs, *state], allow_unused=True, materialize_grads=True
    )
    reached = d_inputs.abs().sum(-1) > 0
    assert reached[:, 1:].all()
    assert reached[:, 0].tolist() == [False, False, False, True, True]
    assert all((d[0] == 0).all() for d in d_state)
    assert sum(d[1:].abs().sum() for d in d_state) > 0


@with_memory
def test_output_depends_on_earlier_inputs(name: str) -> None:
    core = tiny_core(name)
    inputs, state, starts = sequence(core)
    starts[:] = False
    changed = inputs.detach().clone()
    changed[0] += 1
    assert (core.unroll(inputs, state, starts)[0][-1] != core.unroll(changed, state, starts)[0][-1]).any()


@traced
def test_trace_equals_step_and_has_the_documented_shapes(name: str) -> None:
    core = tiny_core(name)
    assert isinstance(core, TracedCore)
    inputs, state, _ = sequence(core)
    output, after = core.step(inputs[0], state)
    traced_output, traced_after, trace = core.trace(inputs[0], state)
    torch.testing.assert_close(traced_output, output)
    torch.testing.assert_close(list(traced_after), list(after))
    batch_size, num_slots, slot_size = state.memory.shape
    assert trace.attention.ndim == 5
    assert trace.attention.shape[0] == batch_size
    assert trace.attention.shape[3:] == (num_slots, num_slots + 1)
    torch.testing.assert_close(trace.attention.sum(-1), torch.ones_like(trace.attention[..., 0]))
    for gate in (trace.input_gate, trace.forget_gate):
        assert gate.shape in [(batch_size, num_slots, slot_size), (batch_size, num_slots, 1)]


def test_unroll_runs_on_the_meta_device(any_core: str) -> None:
    """A hidden `.item()`, a branch on a tensor's value or a stray CPU tensor raises an error there."""
    core = tiny_core(any_core).to("meta")
    inputs = torch.empty(3, 2, core.input_size, device="meta", dtype=dtype_of(core), requires_grad=True)
    starts = torch.empty(3, 2, device="meta", dtype=torch.bool)
    outputs, state = core.unroll(inputs, core.initial_state(2), starts)
    assert outputs.shape == (3, 2, core.output_size)
    assert all(s.device.type == "meta" for s in state)
    outputs.sum().backward()
    with torch.no_grad():
        core.unroll(inputs, core.initial_state(2), starts)
        core.step(inputs[0], core.initial_state(2))


def test_unroll_compiles_into_one_graph(any_core: str) -> None:
    core = tiny_core(any_core, dtype=torch.float32)
    seq = sequence(core, length=3)
    compiled = torch.compile(core.unroll, fullgraph=True, backend="eager")
    assert_correct(core, seq, values_and_gradients(core, compiled, seq))
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler and its dependencies emit their own warnings
def test_compiled_unroll_gives_the_same_results() -> None:
    core = tiny_core("gru", dtype=torch.float32)  # the core with gates that compiles fastest
    seq = sequence(core, length=2)
    compiled = torch.compile(core.unroll, fullgraph=True)
    assert_correct(core, seq, values_and_gradients(core, compiled, seq))
    torch.compiler.reset()


def test_cores_can_be_copied_loaded_and_converted(any_core: str) -> None:
    core = tiny_core(any_core)
    copied = copy.deepcopy(core)
    loaded = tiny_core(any_core)
    loaded.load_state_dict(core.state_dict())
    seq = sequence(core)
    expected = core.unroll(*seq)[0]
    torch.testing.assert_close(copied.unroll(*seq)[0], expected)
    torch.testing.assert_close(loaded.unroll(*seq)[0], expected)
    single = copy.deepcopy(core).float()
    assert all(s.dtype == torch.float32 for s in single.initial_state(1))


def test_unroll_runs_under_autocast(any_core: str) -> None:
    core = tiny_core(any_core, dtype=torch.float32)
    seq = sequence(core)
    expected = core.unroll(*seq)[0]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = core.unroll(*seq)
        outputs.sum().backward()
    torch.testing.assert_close(outputs.float(), expected, atol=0.2, rtol=0.2)


def test_same_seed_builds_the_same_core(any_core: str) -> None:
    def build() -> MemoryCore:
        torch.manual_seed(5)
        return make_core(any_core, 3)

    torch.testing.assert_close(build().state_dict(), build().state_dict())


def test_every_core_can_be_built_from_its_input_size_alone() -> None:
    for name in CORES:
        core = make_core(name, 3)
        output, _ = core.step(torch.randn(2, 3), core.initial_state(2))
        assert output.shape == (2, core.output_size)
        assert arbitrary_state(core, 2)

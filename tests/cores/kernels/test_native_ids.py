"""Cores in C that read equal inputs by id: the results are those of reading each input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmc_agents.cores import MemoryCore
from rmc_agents.cores.base import IndexedInputs
from rmc_agents.cores.gated import LSTM
from rmc_agents.cores.kernels import gated_native, rmc_native
from rmc_agents.cores.rmc import RMC
from tests.support.cores import (
    NATIVE_CORES,
    Run,
    Sequence,
    beyond_rounding,
    float32_core,
    needs_native,
    sequence,
    tiny_core,
    values_and_gradients,
)

pytestmark = [needs_native, pytest.mark.usefixtures("instructions")]


every_core = pytest.mark.parametrize("name", NATIVE_CORES)


def by_id(core: MemoryCore, ids: Tensor) -> Run:
    """Return a computation of `unroll` for inputs that are the rows `ids` of its first ones."""

    def run(inputs: Tensor, state: Any, starts: Tensor) -> Any:
        rows = inputs.flatten(0, 1)[: int(ids.max()) + 1]
        return core.unroll_indexed(IndexedInputs(rows, ids), state, starts)

    return run


def copied(core: MemoryCore, ids: Tensor, unroll: Run) -> Run:
    """Return the same computation, by `unroll` on copies of the inputs."""
    return lambda inputs, state, starts: unroll(inputs.flatten(0, 1)[ids.long()], state, starts)


def sequence_and_ids(
    core: MemoryCore, length: int, batch_size: int, distinct: int
) -> tuple[Sequence, Tensor]:
    seq = sequence(core, length, batch_size)
    seq.starts.logical_or_(torch.rand(seq.starts.shape) < 0.1)
    distinct = min(distinct, length * batch_size)
    return seq, torch.randint(distinct, (length, batch_size), dtype=torch.int32)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(NATIVE_CORES),
    input_size=st.sampled_from([1, 3, 16, 21]),
    length=st.sampled_from([1, 3, 4, 9]),
    batch_size=st.sampled_from([1, 5, 16, 19, 40]),
    distinct=st.sampled_from([1, 2, 16, 65, 150]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_correct_at_any_size(
    name: str, input_size: int, length: int, batch_size: int, distinct: int, seed: int
) -> None:
    torch.manual_seed(seed)
    core = float32_core(name, input_size)
    seq, ids = sequence_and_ids(core, length, batch_size, distinct)
    found = values_and_gradients(core, by_id(core, ids), seq)
    expected = values_and_gradients(core, copied(core, ids, core.unroll), seq)
    for key, x in expected.items():
        error = (found[key] - x).abs().max()
        assert error <= 1e-4 * (1 + x.abs().max()), key


@pytest.mark.parametrize(
    "options",
    [{"gate_style": "memory"}, {"gate_style": "none"}, {"mlp_layers": 1, "key_size": 3}, {"num_blocks": 2}],
)
def test_every_kind_of_rmc_reads_by_id(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    core = float32_core("rmc", 5, normalize_output=True, slot_attention="own", **options)
    seq, ids = sequence_and_ids(core, 7, 18, 40)
    found = values_and_gradients(core, by_id(core, ids), seq)
    expected = values_and_gradients(core, copied(core, ids, core.unroll), seq)
    for key, x in expected.items():
        torch.testing.assert_close(found[key], x, rtol=1e-3, atol=1e-3, msg=key)


@every_core
def test_results_do_not_depend_on_gradients_or_the_number_of_threads(name: str) -> None:
    torch.manual_seed(0)
    core, threads, found = float32_core(name, 20), torch.get_num_threads(), []
    if name == "rmc":
        core = RMC(64)
    seq, ids = sequence_and_ids(core, 16, 80, 200)
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(values_and_gradients(core, by_id(core, ids), seq))
            with torch.no_grad():
                found[-1]["without gradients"] = by_id(core, ids)(*seq)[0]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, found[1][name]) for name, x in found[0].items())
    assert torch.equal(found[0]["without gradients"], core.unroll(seq.inputs.flatten(0, 1)[ids], *seq[1:])[0])


class Doubled(LSTM):
    """A core that replaces `unroll` alone."""

    def unroll(self, inputs: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
        assert type(inputs) is Tensor
        outputs, state = super().unroll(inputs, state, starts)
        return 2 * outputs, state


def test_core_with_its_own_unroll_reads_copies() -> None:
    torch.manual_seed(0)
    for core in (Doubled(3, hidden_size=5), RMC(3), LSTM(3, hidden_size=5)):
        seq, ids = sequence_and_ids(core, 6, 4, 5)
        expected = copied(core, ids, core.unroll)(*seq)[0]
        if not isinstance(core, Doubled):
            unroll = core.unroll
            core.unroll = lambda *args, unroll=unroll: (unroll(*args)[0] + 1, args[1])  # type: ignore[method-assign]
            expected = expected + 1
        assert torch.equal(by_id(core, ids)(*seq)[0], expected)


@every_core
def test_inputs_that_c_cannot_read_are_copied(name: str) -> None:
    torch.manual_seed(0)
    core = tiny_core(name)
    seq, ids = sequence_and_ids(core, 6, 4, 5)
    found = by_id(core, ids)
    assert beyond_rounding(core, seq, values_and_gradients(core, lambda *args: core.unroll(*args), seq)) == []
    torch.testing.assert_close(found(*seq)[0], copied(core, ids, core.unroll)(*seq)[0])
    single = float32_core(name)
    seq, ids = sequence_and_ids(single, 6, 4, 5)
    torch.testing.assert_close(by_id(single, ids.long())(*seq), by_id(single, ids)(*seq))


@every_core
def test_c_reads_ids(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    core = float32_core(name)
    seq, ids = sequence_and_ids(core, 6, 4, 5)
    by_id(core, ids)(*seq)
    module, calls = rmc_native if name == "rmc" else gated_native, []
    run = module.run
    monkeypatch.setattr(
        module, "run", lambda name, call: calls.append((call.n, bool(call.ids))) or run(name, call)
    )
    by_id(core, ids)(*seq)
    assert calls == [(int(ids.max()) + 1, True)] * 2

"""LSTM and GRU in Triton: values and gradients equal those of double precision; other cores are refused.

The kernels run in Triton's interpreter, which `tests/conftest.py` turns on where there is no GPU.
"""

from __future__ import annotations

import os

import pytest
import torch

from rmc_agents.cores.kernels import gated_triton, triton_common
from tests.support.cores import assert_correct, float32_core, sequence, values_and_gradients

pytest.importorskip("triton")
interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="there is a GPU")
every_kind = pytest.mark.parametrize("name", ["lstm", "gru"])
CPU = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let cores use Triton on the CPU; the lengths of the sequences that its kernels have run."""
    lengths: list[int] = []
    run = gated_triton.run
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", {"cpu"})
    monkeypatch.setattr(gated_triton, "_failure", lambda *args: None)
    monkeypatch.setattr(
        gated_triton, "run", lambda core, x, *rest: (lengths.append(len(x)), run(core, x, *rest))[1]
    )
    return lengths


@interpreted
@every_kind
@pytest.mark.parametrize("batch_size", [5, 17])
def test_triton_core_is_correct(name: str, batch_size: int, calls: list[int]) -> None:
    core = float32_core(name, hidden_size=16)
    seq = sequence(core, length=4, batch_size=batch_size)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))
    assert calls[-1] == 4


@interpreted
@every_kind
def test_steps_without_gradients_equal_the_unrolled_sequence(name: str, calls: list[int]) -> None:
    core = float32_core(name, hidden_size=16)
    inputs, state, starts = sequence(core, length=3)
    starts.zero_()
    expected, last = core.unroll(inputs, state, starts)
    calls.clear()
    with torch.no_grad():
        for x, output in zip(inputs, expected, strict=True):
            found, state = core.step(x, state)
            torch.testing.assert_close(found, output, atol=1e-6, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-6, rtol=0)
    assert calls == [1, 1, 1]


@interpreted
@every_kind
def test_results_are_reproducible(name: str, calls: list[int]) -> None:
    core = float32_core(name, hidden_size=16)
    seq = sequence(core, length=2, batch_size=17)
    first, second = (values_and_gradients(core, core.unroll, seq) for _ in range(2))
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@interpreted
@every_kind
def test_kernels_are_compared_with_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", {"cpu"})
    core = float32_core(name, hidden_size=32)
    before = torch.get_rng_state()
    gated_triton._failure.cache_clear()
    assert gated_triton.why_not(core, CPU) is None
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(gated_triton, "_forward", lambda *args: None)
    gated_triton._failure.cache_clear()
    reason = gated_triton.why_not(core, CPU)
    assert reason is not None
    assert "TypeError" in reason
    gated_triton._failure.cache_clear()


def test_cores_without_kernels_are_refused(calls: list[int]) -> None:
    for core, reason in (
        (float32_core("gru", hidden_size=20), "hidden_size must be a power of two from 16 to 128, and is 20"),
        (
            float32_core("lstm", hidden_size=256),
            "hidden_size must be a power of two from 16 to 128, and is 256",
        ),
        (float32_core("rnn", hidden_size=16), "there are no kernels for this core"),
    ):
        assert gated_triton.why_not(core, CPU) == reason
        core.unroll(*sequence(core, length=2))
    assert calls == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_kind
def test_kernels_work_on_this_gpu(name: str) -> None:
    device = torch.device("cuda")
    assert gated_triton.why_not(float32_core(name, hidden_size=128).to(device), device) is None

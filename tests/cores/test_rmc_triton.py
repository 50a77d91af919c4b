"""RMC in Triton: values and gradients equal those of double precision; cores without kernels are refused.

The kernels run in Triton's interpreter, which `tests/conftest.py` turns on where there is no GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rmc_agents.cores import RMC
from rmc_agents.cores.kernels import rmc_native, rmc_triton, rmc_triton_sequence, triton_common
from rmc_agents.cores.rmc import RMCState
from tests.support.cores import assert_correct, float32_core, sequence, values_and_gradients

pytest.importorskip("triton")
interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="there is a GPU")
SMALL = {"num_slots": 4, "num_heads": 2, "head_size": 8}
CPU = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let cores use Triton on the CPU, in tiles of 16 rows; the names of the kernels that have run."""
    names: list[str] = []

    def recorded(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (names.append(name), run(*args))[1]

    monkeypatch.setattr(rmc_native, "usable", lambda *args: False)
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", {"cpu"})
    monkeypatch.setattr(rmc_triton, "_failure", lambda *args: None)
    monkeypatch.setattr(rmc_triton_sequence, "multiprocessors", lambda device: 1000)
    for name in ("_forward", "_backward"):
        monkeypatch.setattr(rmc_triton_sequence, name, recorded(name, getattr(rmc_triton_sequence, name)))
    return names


@interpreted
@pytest.mark.parametrize(
    "options",
    [
        {"head_size": 16, "num_heads": 4},
        {"key_size": 16, "mlp_layers": 1},
        {"gate_style": "memory"},
        {"coupled_gates": True, "forget_bias_end": 3.0},
        {"gate_style": "none", "num_slots": 3, "key_size": 8, "head_size": 16},
        {"slot_attention": "own", "num_slots": 5, "normalize_output": True},
        {"slot_attention": "none", "num_slots": 2, "mlp_layers": 1, "gate_style": "none"},
        {"num_slots": 1, "num_heads": 1, "head_size": 32},
    ],
    ids=str,
)
def test_triton_core_is_correct(options: dict[str, Any], calls: list[str]) -> None:
    core = float32_core("rmc", **{**SMALL, **options})
    batch_size = 16 // rmc_triton_sequence.padded(core.num_slots) + 1  # two programs, the last one incomplete
    seq = sequence(core, length=3, batch_size=batch_size)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))
    assert calls[-2:] == ["_forward", "_backward"]


@interpreted
def test_triton_core_is_correct_in_large_tiles(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rmc_triton_sequence, "multiprocessors", lambda device: 1)
    core = float32_core("rmc", **SMALL)
    seq = sequence(core, length=3, batch_size=17)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))
    assert calls[-2:] == ["_forward", "_backward"]


@interpreted
def test_steps_without_gradients_equal_the_unrolled_sequence(calls: list[str]) -> None:
    core = float32_core("rmc", **SMALL)
    inputs, state, starts = sequence(core, length=3)
    calls.clear()
    expected, last = core.unroll(inputs, state, starts)
    with torch.no_grad():
        for x, start, output in zip(inputs, starts, expected, strict=True):
            found, state = core.unroll(x.unsqueeze(0), state, start.unsqueeze(0))
            torch.testing.assert_close(found[0], output, atol=1e-6, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-6, rtol=0)
    assert calls == ["_forward"] * 4


@interpreted
def test_step_is_differentiable(calls: list[str]) -> None:
    core = float32_core("rmc", **SMALL)
    seq = sequence(core, length=1)
    seq.starts.zero_()

    def step(inputs: torch.Tensor, state: RMCState, _: torch.Tensor) -> tuple[torch.Tensor, RMCState]:
        output, after = core.step(inputs[0], state)
        return output.unsqueeze(0), after

    assert_correct(core, seq, values_and_gradients(core, step, seq))
    assert calls[-2:] == ["_forward", "_backward"]


@interpreted
@pytest.mark.parametrize("of", ["last state", "outputs"])
def test_losses_on_one_result_have_the_gradient_of_pytorch(
    of: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = float32_core("rmc", **SMALL)
    seq = sequence(core, length=3)

    def gradients() -> tuple[torch.Tensor, ...]:
        outputs, last = core.unroll(*seq)
        loss = last.memory.sin().sum() if of == "last state" else outputs.sin().sum()
        return torch.autograd.grad(loss, [seq.inputs, seq.state.memory, *core.parameters()])

    found = gradients()
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", set())
    torch.testing.assert_close(found, gradients(), atol=1e-5, rtol=1e-5)
    assert calls[-2:] == ["_forward", "_backward"]


@interpreted
def test_results_are_reproducible(calls: list[str]) -> None:
    core = float32_core("rmc", **SMALL)
    seq = sequence(core, length=2, batch_size=9)
    first, second = (values_and_gradients(core, core.unroll, seq) for _ in range(2))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert calls[-4:] == ["_forward", "_backward"] * 2


@interpreted
def test_changing_a_weight_before_the_backward_pass_raises(calls: list[str]) -> None:
    core = float32_core("rmc", **SMALL)
    outputs, _ = core.unroll(*sequence(core, length=2))
    with torch.no_grad():
        next(core.mlp.parameters()).add_(1.0)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
    assert calls[-1] == "_forward"


@interpreted
def test_kernels_are_compared_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", {"cpu"})
    monkeypatch.setattr(rmc_triton, "_batch_sizes", lambda *args: [3])
    core = RMC(3, num_slots=2, num_heads=1, head_size=16, mlp_layers=1, gate_style="none")
    assert rmc_triton.why_not(core, CPU) is None
    monkeypatch.setattr(rmc_triton_sequence, "EPS", 1.0)
    rmc_triton._failure.cache_clear()
    assert rmc_triton.why_not(core, CPU) == "the results of the Triton kernels differ from PyTorch's"
    rmc_triton._failure.cache_clear()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_blocks": 2}, "num_blocks must be 1, and is 2"),
        ({"num_heads": 3}, "num_heads * key_size must be a power of two from 16 to 64, and is 24"),
        ({"head_size": 64}, "num_heads * key_size must be a power of two from 16 to 64, and is 128"),
        (
            {"key_size": 16, "head_size": 4},
            "num_heads * head_size must be a power of two from 16 to 64, and is 8",
        ),
        ({"num_slots": 17}, "num_slots must be at most 16, and is 17"),
        ({"mlp_layers": 3}, "mlp_layers must be 1 or 2, and is 3"),
    ],
)
def test_sizes_without_kernels_are_refused(options: dict[str, Any], reason: str, calls: list[str]) -> None:
    core = RMC(3, **{**SMALL, **options})
    assert rmc_triton.why_not(core, CPU) == reason
    seq = sequence(core, length=2)
    core.unroll(*seq)
    assert calls == []


def test_kernels_refuse_other_types_and_devices(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    core = RMC(3, **SMALL).double()
    assert rmc_triton.why_not(core, CPU) == "the parameters must be float32, and are torch.float64"
    core.unroll(*sequence(core, length=2))
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", {"cuda"})
    core = RMC(3, **SMALL)
    assert rmc_triton.why_not(core, CPU) == "the kernels need a CUDA device"
    core.unroll(*sequence(core, length=2))
    assert calls == []


def test_core_without_triton_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rmc_native, "usable", lambda *args: False)
    monkeypatch.setattr(triton_common, "DEVICE_TYPES", {"cpu"})
    monkeypatch.setitem(sys.modules, "triton", None)
    for module in ("rmc_triton_kernels", "rmc_triton_ops", "triton_ops"):
        monkeypatch.delitem(sys.modules, f"rmc_agents.cores.kernels.{module}", raising=False)
    rmc_triton._failure.cache_clear()
    core = float32_core("rmc", **SMALL)
    reason = rmc_triton.why_not(core, CPU)
    assert reason is not None
    assert "Triton cannot be imported" in reason
    assert "the extra `gpu` installs it" in reason
    seq = sequence(core)
    assert_correct(core, seq, values_and_gradients(core, core.unroll, seq))
    rmc_triton._failure.cache_clear()


def test_precision_of_the_kernels_follows_that_of_pytorch() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for setting, expected in (("high", "tf32"), ("highest", "tf32x3")):
            torch.set_float32_matmul_precision(setting)
            assert triton_common.float32_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{}, {"gate_style": "none", "mlp_layers": 1, "slot_attention": "own"}])
def test_kernels_work_on_this_gpu(options: dict[str, Any]) -> None:
    device = torch.device("cuda")
    assert rmc_triton.why_not(RMC(3, **options).to(device), device) is None

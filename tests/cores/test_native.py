"""The core in C: the same numbers as the plain loop, whatever the sizes, and PyTorch wherever C cannot be."""

from __future__ import annotations

import copy
import ctypes
import gc
import logging
import resource
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_agents.cores import RMC, HoistedCore
from rmc_agents.cores.native import build, workspace
from rmc_agents.cores.native import rmc as native_rmc
from rmc_agents.cores.rmc import RMCState
from tests.cores.core_support import Sequence, assert_equal, sequence, tiny_core, values_and_gradients

needs_native = pytest.mark.skipif(build.library() is None, reason="no native kernels here")


def rmc(input_size: int = 3, **options: Any) -> RMC:
    return cast(RMC, tiny_core("rmc", input_size, torch.float32, **options))


def plain(core: RMC) -> Callable[..., Any]:
    return lambda *s: HoistedCore.unroll(core, *s)


def in_double_precision(core: RMC, seq: Sequence) -> dict[str, torch.Tensor]:
    core = copy.deepcopy(core).double()
    inputs, memory = (x.detach().double().requires_grad_() for x in (seq.inputs, seq.state.memory))
    return values_and_gradients(core, plain(core), Sequence(inputs, RMCState(memory), seq.starts))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions of the library that are called, as they are called."""
    names: list[str] = []
    run = native_rmc._run
    monkeypatch.setattr(native_rmc, "_run", lambda name, call: (names.append(name), run(name, call))[1])
    return names


@needs_native
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
        }
    ),
    input_size=st.sampled_from([1, 3, 16, 21]),
    length=st.integers(2, 9),
    batch_size=st.integers(1, 37),
)
def test_the_same_as_the_plain_loop(
    options: dict[str, Any], input_size: int, length: int, batch_size: int
) -> None:
    def differing() -> list[str]:
        core = rmc(input_size, **options)
        seq = sequence(core, length, batch_size)
        seq.starts.logical_or_(torch.rand(seq.starts.shape) < 0.1)
        found, single = (values_and_gradients(core, run, seq) for run in (core.unroll, plain(core)))
        # Norms over few numbers make much of a rounding error: as good as PyTorch is all one can ask.
        return [
            name
            for name, value in in_double_precision(core, seq).items()
            if (
                (found[name] - value).abs() - 3 * (single[name] - value).abs().max()
                > 1e-5 * (1 + value.abs())
            ).any()
        ]

    # Of ten thousand ReLUs one may be so near zero that rounding flips it, but not three times running.
    assert not (differing() and differing() and differing())


@needs_native
@pytest.mark.parametrize(
    "options",
    [{}, {"num_slots": 4, "num_heads": 4, "head_size": 16}, {"num_slots": 8, "head_size": 32}],
    ids=str,
)
def test_the_usual_sizes(options: dict[str, Any], runs: list[str]) -> None:
    """Against double precision: in sums this long, two single precisions differ by both their errors."""
    core = rmc(40, **options)
    seq = sequence(core, 16, 32)
    found = values_and_gradients(core, core.unroll, seq)
    assert {"rmc_forward", "rmc_backward"} <= set(runs)
    assert_equal({name: value.double() for name, value in found.items()}, in_double_precision(core, seq))


@needs_native
def test_bitwise_the_same_every_time_and_for_any_number_of_threads() -> None:
    core = rmc(20, num_slots=4, num_heads=4, head_size=16)
    seq = sequence(core, 20, 70)  # five groups of sixteen rows: more work than two threads share evenly
    results = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(values_and_gradients(core, core.unroll, seq))
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


@needs_native
def test_bitwise_the_same_without_gradients_and_step_by_step() -> None:
    core = rmc(20, num_slots=4, num_heads=4, head_size=16)
    inputs, state, starts = sequence(core, 7, 19)
    outputs, last = core.unroll(inputs, state, starts)
    assert outputs.requires_grad
    with torch.no_grad():
        again, last_again = core.unroll(inputs, state, starts)
        assert torch.equal(outputs, again)
        assert torch.equal(last.memory, last_again.memory)
        for x, start, output in zip(inputs, starts, outputs, strict=True):
            state = RMCState(torch.where(start[:, None, None], core.initial_state(19).memory, state.memory))
            stepped, state = core.step(x, state)
            torch.testing.assert_close(stepped, output)


@needs_native
def test_only_the_row_that_is_not_finite_suffers() -> None:
    core = rmc()
    inputs, state, starts = sequence(core)
    starts[:] = False
    starts[2, 0] = True
    with torch.no_grad():
        expected = core.unroll(inputs, state, starts)[0]
        state.memory[0, 0, 0] = torch.nan
        inputs[4, 3, 0] = torch.inf
        outputs = core.unroll(inputs, state, starts)[0]
    assert outputs[:2, 0].isnan().any(-1).all()  # until the reset
    assert torch.equal(outputs[2:, 0], expected[2:, 0])
    assert torch.equal(outputs[:4, 3], expected[:4, 3])
    assert outputs[4:, 3].isnan().any(-1).all()
    assert torch.equal(outputs[:, 1:3], expected[:, 1:3])


@needs_native
def test_no_gradient_of_a_state_that_was_wiped() -> None:
    core = rmc()
    inputs, _, starts = sequence(core)
    starts[0] = True
    broken = torch.full((4, core.num_slots, core.slot_size), torch.nan, requires_grad=True)
    core.unroll(inputs, RMCState(broken), starts)[0].sum().backward()
    assert broken.grad is not None
    assert (broken.grad == 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())


@needs_native
@pytest.mark.parametrize("part", ["outputs", "last", "both"])
def test_gradients_of_parts_of_the_result(part: str) -> None:
    core = rmc()
    seq = sequence(core)
    gradients = []
    for run in (core.unroll, plain(core)):
        outputs, last = run(*seq)
        loss = outputs[2].sin().sum() * (part != "last") + last.memory.sin().sum() * (part != "outputs")
        gradients.append(torch.autograd.grad(loss, [seq.inputs, *seq.state, *core.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@needs_native
def test_strided_and_expanded_arguments(runs: list[str]) -> None:
    core = rmc()
    inputs, state, starts = sequence(core, 6, 4)
    with torch.no_grad():
        memory = state.memory[:1].expand(4, -1, -1)
        wide = torch.randn(4, 12, 6).transpose(0, 1)[::2, :, ::2]  # [6, 4, 3]
        flags = starts.t().contiguous().t()
        runs.clear()
        expected, _ = core.unroll(wide.contiguous(), RMCState(memory.contiguous()), starts)
        outputs, _ = core.unroll(wide, RMCState(memory), flags)
        assert torch.equal(outputs, expected)
        for layer in (core.input_proj, core.qkv[0]):  # parameters, too, that lie in memory column by column
            layer.weight.data = layer.weight.data.t().contiguous().t()
        assert torch.equal(core.unroll(wide, RMCState(memory), flags)[0], expected)
    assert runs == ["rmc_forward"] * 3
    seq = Sequence(inputs, state, flags)
    assert_equal(values_and_gradients(core, core.unroll, seq), values_and_gradients(core, plain(core), seq))


@needs_native
def test_an_optimizer_changes_what_is_computed() -> None:
    core = rmc()
    seq = sequence(core)
    optimizer = torch.optim.Adam(core.parameters(), lr=0.1)
    for _ in range(3):
        outputs = core.unroll(*seq)[0]
        torch.testing.assert_close(outputs, plain(core)(*seq)[0], atol=1e-5, rtol=1e-5)
        optimizer.zero_grad()
        outputs.square().mean().backward()
        optimizer.step()
    assert (core.unroll(*seq)[0] - outputs).abs().max() > 0.01


@needs_native
def test_what_autograd_refuses() -> None:
    core = rmc()
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
        core.input_proj.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_native
def test_frozen_parameters_and_inputs_without_gradients() -> None:
    core = rmc()
    inputs, state, starts = sequence(core)
    core.qkv.requires_grad_(False)
    outputs, _ = core.unroll(inputs.detach(), RMCState(state.memory.detach()), starts)
    outputs.sum().backward()
    assert core.qkv[0].weight.grad is None
    assert core.input_proj.weight.grad is not None


@needs_native
def test_wrong_shapes_are_refused_and_not_read() -> None:
    core = rmc()
    inputs, state, starts = sequence(core)
    with torch.no_grad():
        for wrong in ((inputs[..., :2], state, starts), (inputs, RMCState(state.memory[:2]), starts)):
            with pytest.raises(RuntimeError):
                core.unroll(*wrong)
        with pytest.raises(RuntimeError):
            core.unroll(inputs, state, starts[:, :2])


@needs_native
def test_where_pytorch_does_it(runs: list[str]) -> None:
    seq = sequence(rmc(), 3)
    runs.clear()
    for core in (rmc(num_blocks=2), rmc().double(), rmc().to("meta")):
        dtype, device = core.input_proj.weight.dtype, core.input_proj.weight.device
        inputs = torch.randn(3, 2, 3, dtype=dtype, device=device)
        starts = torch.zeros(3, 2, dtype=torch.bool, device=device)
        core.unroll(inputs, core.initial_state(2), starts)
    core = rmc().requires_grad_(False)
    inputs, state, starts = seq
    with torch.autocast("cpu", torch.bfloat16):
        core.unroll(inputs, state, starts)
    core.unroll(inputs[:, :0], RMCState(state.memory[:0]), starts[:, :0])
    assert runs == []
    first, second, memory = inputs[0].detach(), inputs[1].detach(), state.memory.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch call it deprecated
        traced = torch.jit.trace(
            lambda x, m: core.step(x, RMCState(m))[0], (first, memory), check_trace=False
        )
        assert runs == []
        torch.testing.assert_close(traced(second, memory), core.step(second, RMCState(memory))[0])


@needs_native
def test_other_defaults_of_torch_do_not_matter(runs: list[str]) -> None:
    core = rmc()
    seq = sequence(core)
    expected = values_and_gradients(core, core.unroll, seq)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = values_and_gradients(core, core.unroll, seq)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert runs.count("rmc_backward") == 2
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@needs_native
def test_no_leak() -> None:
    core = rmc(num_slots=4, num_heads=4, head_size=16)
    seq = sequence(core, 8, 32)

    def update() -> None:
        core.unroll(*seq)[0].sum().backward()
        core.unroll(*seq)  # and one whose backward pass never comes
        with torch.no_grad():
            core.step(seq.inputs[0], seq.state)

    for _ in range(50):
        update()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on Linux
    for _ in range(1000):
        update()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16_000


def test_workspace_is_used_again_once_nobody_has_it() -> None:
    first = workspace.workspace(100_000)
    address = first.data_ptr()
    assert address % 64 == 0
    assert workspace.workspace(100_000).data_ptr() != address
    view = first[5:].view(-1)
    del first
    gc.collect()
    assert workspace.workspace(100_000).data_ptr() != address
    del view
    gc.collect()
    assert workspace.workspace(90_000).data_ptr() == address


# The build


@pytest.fixture
def fresh_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As in a new process with an empty cache."""
    monkeypatch.setattr(build, "_found", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    native_rmc._works.cache_clear()
    yield tmp_path
    native_rmc._works.cache_clear()


def set_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str | None) -> None:
    """The only program on the path is that compiler; None for none at all."""
    programs = folder / "programs"
    programs.mkdir()
    if script is not None:
        (programs / "cc").write_text("#!/bin/sh\n" + script)
        (programs / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "no C compiler found"),
        ("echo 'license expired' >&2; exit 1", "license expired"),
        ("case $* in *-dM*) exit 0;; *) echo 'cannot link' >&2; exit 1;; esac", "cannot link"),
        ("exit 0", "file too short"),
    ],
)
def test_without_a_working_compiler_pytorch_does_it_and_says_so_once(
    script: str | None,
    reason: str,
    fresh_build: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    runs: list[str],
) -> None:
    set_compiler(monkeypatch, fresh_build, script)
    core = rmc()
    seq = sequence(core)
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        assert_equal(
            values_and_gradients(core, core.unroll, seq), values_and_gradients(core, plain(core), seq)
        )
    assert runs == []
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert build.SWITCH in caplog.text


@needs_native
def test_a_library_that_computes_something_else_is_not_used(
    fresh_build: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = native_rmc._run

    def wrong(name: str, call: Any) -> int:
        result = run(name, call)
        if name == "rmc_backward":
            ctypes.memset(call.d_qkv, 0, 4)
        return result

    monkeypatch.setattr(build, "_found", [build._load()])
    monkeypatch.setattr(native_rmc, "_run", wrong)
    core = rmc()
    seq = sequence(core)
    with caplog.at_level(logging.WARNING, "rmc_agents"):
        assert_equal(
            values_and_gradients(core, core.unroll, seq), values_and_gradients(core, plain(core), seq)
        )
    assert len(caplog.records) == 1
    assert "something else" in caplog.text


def test_switched_off_in_silence(
    fresh_build: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    runs: list[str],
) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    core = rmc()
    core.unroll(*sequence(core))
    assert runs == []
    assert not caplog.records
    assert not (fresh_build / "cache").exists()


@needs_native
def test_many_build_at_once(fresh_build: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        libraries = list(pool.map(lambda _: build._load(), range(3)))
    assert all(library.rmc_forward for library in libraries)
    (built,) = build.cache_folder().iterdir()  # and nothing unfinished is left
    written = built.stat().st_mtime_ns
    assert build._load().rmc_forward
    assert built.stat().st_mtime_ns == written


@needs_native
def test_a_library_cut_short_is_built_again(fresh_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build._load()
    (built,) = build.cache_folder().iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh_build / "other"))
    damaged = build.cache_folder() / built.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(built.read_bytes()[:100])
    assert build._load().rmc_forward
    assert damaged.stat().st_size == built.stat().st_size


@needs_native
def test_a_cache_that_cannot_be_written(fresh_build: Path) -> None:
    (fresh_build / "cache").write_text("a file where the folder should be")
    assert build._load().rmc_forward

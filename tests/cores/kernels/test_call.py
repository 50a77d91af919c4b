"""Calls into the library: the numbers of lanes and threads of a call, and that they change no result."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rmc_agents.cores.kernels import call, gated_native, rmc_native
from rmc_agents.cores.kernels.call import MULTIPLICATIONS_PER_THREAD, Share, share
from tests.support.cores import (
    NATIVE_CORES,
    assert_correct,
    beyond_rounding,
    needs_native,
    sequence,
    usual_core,
    values_and_gradients,
)

every_core = pytest.mark.parametrize("name", NATIVE_CORES)


def divide_into(monkeypatch: pytest.MonkeyPatch, lanes: int, threads: int = 1) -> None:
    """Let every call use these numbers, whatever its size."""
    if lanes not in call.lane_counts():
        pytest.skip(f"no kernels with {lanes} lanes for this processor")
    for module in (rmc_native, gated_native):
        monkeypatch.setattr(module, "share", lambda *_: Share(threads, lanes))


@pytest.mark.parametrize(
    ("rows", "threads", "percent", "lanes"),
    [
        (8, 1, 55, 8),
        (16, 1, 55, 16),
        (16, 2, 55, 8),
        (16, 2, 75, 8),
        (17, 1, 55, 8),
        (17, 1, 75, 16),
        (32, 2, 55, 16),
        (16, 2, 0, 16),
    ],
)
def test_lanes_are_those_of_the_shortest_time(
    rows: int, threads: int, percent: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "narrow_percent", lambda: percent)
    torch.set_num_threads(threads)
    assert share(rows, MULTIPLICATIONS_PER_THREAD) == Share(threads, lanes)


def test_small_calls_use_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "narrow_percent", lambda: 55)
    torch.set_num_threads(2)
    assert share(16, MULTIPLICATIONS_PER_THREAD - 1) == Share(1, 16)


@needs_native
@every_core
@pytest.mark.parametrize("lanes", [8, 16])
def test_each_number_of_lanes_is_correct_and_reproducible_for_any_number_of_threads(
    name: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = usual_core(name)
    seq = sequence(core, 9, 21)
    results: list[dict[str, Any]] = []
    for threads in (1, 2, 3):
        divide_into(monkeypatch, lanes, threads)
        results.append(values_and_gradients(core, core.unroll, seq))
    assert_correct(core, seq, results[0])
    for other in results[1:]:
        assert all(torch.equal(other[key], value) for key, value in results[0].items())


@needs_native
@every_core
def test_outputs_are_bitwise_equal_for_8_and_16_lanes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = usual_core(name)
    seq = sequence(core, 9, 21)
    with torch.no_grad():
        divide_into(monkeypatch, 16)
        wide = core.unroll(*seq)
        divide_into(monkeypatch, 8)
        narrow = core.unroll(*seq)
    assert torch.equal(narrow[0], wide[0])
    assert all(torch.equal(a, b) for a, b in zip(narrow[1], wide[1], strict=True))


@needs_native
@every_core
def test_backward_pass_keeps_the_lanes_of_its_forward_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = usual_core(name)
    seq = sequence(core, 5, 12)

    def unroll(*arguments: Any) -> Any:
        divide_into(monkeypatch, 8)
        result = core.unroll(*arguments)
        divide_into(monkeypatch, 16)
        return result

    assert beyond_rounding(core, seq, values_and_gradients(core, unroll, seq)) == []

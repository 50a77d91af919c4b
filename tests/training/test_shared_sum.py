"""Sums through shared memory: bit-equal in all processes, and errors when one dies or does not come."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from rmc_agents.training import shared_sum
from rmc_agents.training.shared_sum import SharedSum, create, path_of

pytestmark = pytest.mark.skipif(not shared_sum.supported(), reason="no shared memory or no compiled kernels")

SIZE, MAX_NUMEL = 3, 1000


def numbers(rank: int, call: int) -> Tensor:
    """Return numbers whose sum depends on the order of the additions."""
    generator = torch.Generator().manual_seed(100 * call + rank)
    return torch.randn(997, generator=generator) * 10.0 ** torch.randint(0, 7, (997,), generator=generator)


@contextmanager
def others(memory: int, act: Callable[[SharedSum], None], size: int = SIZE) -> Iterator[list[int]]:
    """Run all processes but the first; each calls `act`, and then waits to be killed."""
    path, processes = path_of(memory), []
    for rank in range(1, size):
        if (process := os.fork()) == 0:
            try:
                act(SharedSum(path, rank, size, MAX_NUMEL, 20.0))
                time.sleep(60)
            finally:
                os._exit(1)
        processes.append(process)
    try:
        yield processes
    finally:
        for process in processes:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def add_and_check(sums: SharedSum) -> None:
    """Sum several tensors; raise in any process whose result is not the sum in the order of the ranks."""
    for call in range(20):
        found = sums.sum_(numbers(sums.rank, call))
        expected = (numbers(0, call) + numbers(1, call)) + numbers(2, call)
        assert torch.equal(found, expected)
    for shape in [(1,), (2, 3), (), (0,)]:
        assert torch.equal(sums.sum_(torch.ones(shape, dtype=torch.float64)), torch.full(shape, 3.0).double())
    assert sums.sum_(torch.ones(1)) == sums.size  # every process got here


def test_sums_are_equal_in_all_processes_and_in_the_order_of_ranks() -> None:
    memory = create(SIZE, MAX_NUMEL)
    with others(memory, add_and_check):
        sums = SharedSum(memory, 0, SIZE, MAX_NUMEL, 20.0)
        add_and_check(sums)
        sums.close()


def test_death_of_a_process_is_an_error_at_once() -> None:
    memory = create(2, MAX_NUMEL)
    with others(memory, lambda sums: os.kill(os.getpid(), signal.SIGKILL), size=2):
        sums = SharedSum(memory, 0, 2, MAX_NUMEL, 20.0)
        start = time.monotonic()
        with pytest.raises(RuntimeError, match="process 1 of 2 ended"):
            sums.sum_(torch.ones(3))
        assert time.monotonic() - start < 10


def test_process_that_ends_after_the_last_sum_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def sum_and_end(sums: SharedSum) -> None:
        sums.sum_(torch.ones(3))
        os._exit(0)

    memory, calls, run = create(2, MAX_NUMEL), [], shared_sum.run
    with others(memory, sum_and_end, size=2) as (process,):
        sums = SharedSum(memory, 0, 2, MAX_NUMEL, 20.0)

        def wake_late(name: str, call: Any) -> int:
            """Report at the last meeting that the other is missing, until it has come and ended."""
            calls.append(call.number)
            result = run(name, call)
            if calls.count(3) in (1, 2):
                os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
                return 1
            return result

        monkeypatch.setattr(shared_sum, "run", wake_late)
        assert torch.equal(sums.sum_(torch.ones(3)), torch.full((3,), 2.0))
        assert calls.count(3) == 4


def test_process_that_does_not_come_is_an_error_after_the_timeout() -> None:
    memory = create(2, MAX_NUMEL)
    with others(memory, lambda sums: time.sleep(60), size=2):
        sums = SharedSum(memory, 0, 2, MAX_NUMEL, 20.0)
        sums.timeout = 0.1
        with pytest.raises(RuntimeError, match=r"timed out after 0\.1 s"):
            sums.sum_(torch.ones(3))


def test_time_in_which_the_processes_were_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, calls, run = create(2, MAX_NUMEL), [], shared_sum.run

    def stopped(name: str, call: Any) -> int:
        """Wait as long as a process that Ctrl-Z stops in the middle of each of the first looks."""
        calls.append(name)
        if len(calls) > 3:
            return run(name, call)
        time.sleep(0.4)
        return 1

    def add(sums: SharedSum) -> None:
        sums.sum_(torch.ones(3))

    with others(memory, add, size=2):
        sums = SharedSum(memory, 0, 2, MAX_NUMEL, 20.0)
        sums.timeout = 0.3
        monkeypatch.setattr(shared_sum, "run", stopped)
        assert torch.equal(sums.sum_(torch.ones(3)), torch.full((3,), 2.0))


def test_process_that_never_starts_is_an_error_after_the_timeout() -> None:
    with pytest.raises(RuntimeError, match=r"timed out after 0\.1 s"):
        SharedSum(create(2, MAX_NUMEL), 0, 2, MAX_NUMEL, 0.1)


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(torch.ones(MAX_NUMEL + 1), id="too large"),
        pytest.param(torch.ones(3, dtype=torch.int64), id="integers"),
        pytest.param(torch.ones(3, 2).t(), id="strided"),
        pytest.param(torch.ones(1, device="meta"), id="another device"),
    ],
)
def test_tensor_that_does_not_fit_is_an_error(x: Tensor) -> None:
    sums = SharedSum(create(1, MAX_NUMEL), 0, 1, MAX_NUMEL, 1.0)
    assert not sums.fits(x)
    with pytest.raises(ValueError, match="expected a contiguous float32 or float64 tensor"):
        sums.sum_(x)


def test_one_process_keeps_its_numbers() -> None:
    sums = SharedSum(create(1, MAX_NUMEL), 0, 1, MAX_NUMEL, 1.0)
    assert torch.equal(sums.sum_(torch.arange(5.0)), torch.arange(5.0))

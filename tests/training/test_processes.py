"""Processes that train together: sums, decisions and errors are the same in all."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch

from rmc_agents.errors import UsageError
from rmc_agents.training import group as module
from rmc_agents.training.group import rank_of_launch, size_of_launch, timeout_of_launch
from rmc_agents.training.processes import ALONE, Processes, share_of
from tests.support.groups import in_processes


def exchange(group: Processes) -> list[Any]:
    """Use each method of a process; return what it gives."""
    rank = group.rank
    small = group.sum(torch.tensor([1.0, rank], dtype=torch.float64)).tolist()
    large = group.sum(torch.full((1_000_000,), 1.0 + rank))  # more than the memory shared at first
    whole = group.sum(torch.tensor([rank, 5]))
    group.sum(small_again := torch.tensor(0.5))

    def fail_in_1() -> None:
        if rank == 1:
            raise UsageError("of process 1")

    errors = []
    for attempt in (
        lambda: group.together(fail_in_1),
        lambda: group.from_first(lambda: {}["missing"]),
        lambda: group.together(lambda: {}[f"missing in {rank}"]),
    ):
        try:
            attempt()
        except Exception as error:
            errors.append(repr(error))
    return [
        *(small, large[0].item(), whole.tolist(), small_again.item(), errors),
        (group.gather(f"item {rank}"), group.broadcast(f"item {rank}"), group.from_first(lambda: rank)),
        (group.any(rank == 1, False, True), group.seed(2**63 - 1), group.together(lambda: rank)),
    ]


def test_processes_exchange_sums_items_and_errors() -> None:
    first, second = in_processes(exchange)
    errors = ["UsageError('of process 1')", "KeyError('missing')"]
    common = [[2.0, 1.0], 3.0, [1, 10], 1.0]
    assert first == [
        *(*common, [*errors, "KeyError('missing in 0')"]),
        (["item 0", "item 1"], "item 0", 0),
        ([True, False, True], 2**63 - 1, 0),
    ]
    assert second == [
        *(*common, [*errors, "KeyError('missing in 1')"]),
        (None, "item 0", 0),
        ([True, False, True], 2**20 - 1, 1),
    ]


def test_processes_of_two_machines_sum_through_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "supported", lambda: False)
    results = in_processes(lambda group: group.sum(torch.arange(3.0) + group.rank).tolist())
    assert results == [[1.0, 3.0, 5.0]] * 2


def test_single_process_exchanges_with_itself() -> None:
    x = torch.ones(2)
    assert ALONE.sum(x) is x
    assert (ALONE.gather(1), ALONE.broadcast(2), ALONE.any(False, True)) == ([1], 2, [False, True])
    assert (ALONE.seed(7), ALONE.together(lambda: 3), ALONE.from_first(lambda: 4)) == (7, 3, 4)


def test_share_of_a_number_that_cannot_be_divided_is_refused() -> None:
    assert share_of(6, 3, "num_envs") == 2
    with pytest.raises(ValueError, match="num_envs=7 cannot be divided among 2 processes"):
        share_of(7, 2, "num_envs")


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("end", ["dies", "hangs", "fails"])
def test_lost_process_is_an_error_in_the_other(
    end: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared:
        monkeypatch.setattr(module, "supported", lambda: False)

    def lose(group: Processes) -> float:
        group.sum(torch.ones(1))
        if group.rank == 1:
            if end == "fails":
                raise UsageError("no such thing\nand more")
            if end == "hangs":
                time.sleep(2.5)
            os.kill(os.getpid(), signal.SIGKILL)
        began = time.monotonic()
        try:
            group.sum(torch.ones(1))
        finally:
            assert time.monotonic() - began < 5
        return 0.0

    found = in_processes(lose, timeout=1.0)[0]
    expected = {
        "dies": "ProcessLost: another process of this run ended",
        "hangs": "ProcessLost: another process of this run did not answer for 1 s",
        "fails": "ProcessLost: process 1 failed: no such thing; training stopped",
    }
    assert found.startswith(expected[end])
    assert found.endswith("training stopped. Checkpoints saved before are intact")


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_process_that_was_given_up_reports_why(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 0 is stopped for longer than process 1 waits for it."""
    if not shared:
        monkeypatch.setattr(module, "supported", lambda: False)

    def stop(group: Processes) -> float:
        group.sum(torch.ones(1))
        if group.rank == 0:
            time.sleep(3)
        group.sum(torch.ones(1))
        return 0.0

    found = in_processes(stop, timeout=1.0)[0]
    assert found.startswith("ProcessLost: process 1: another process of this run did not answer for 1 s; ")


def test_launch_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "host", "MASTER_PORT": "1"}
    assert (size_of_launch(torchrun), rank_of_launch(torchrun)) == (4, 2)
    assert (size_of_launch({"RANK": "2", "WORLD_SIZE": "4"}), rank_of_launch({"RANK": "2"})) == (1, 0)
    wrong = {"WORLD_SIZE": "many", "RANK": "4", "LOCAL_RANK": "-1", "MASTER_PORT": "http"}
    for name, text in wrong.items():
        with pytest.raises(UsageError, match=f"environment variable {name} is '{text}', expected "):
            size_of_launch({**torchrun, name: text})
    assert timeout_of_launch() == module.TIMEOUT
    for text in ("0", "-1", "soon", "nan", "inf", "1e300"):
        monkeypatch.setenv(module.TIMEOUT_VARIABLE, text)
        with pytest.raises(ValueError, match="expected a number of seconds above 0"):
            timeout_of_launch()

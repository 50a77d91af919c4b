"""CUDA graphs: called on a CPU, and with a stand-in for CUDA that replays by calling the function again."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

from rmc_agents.training.graphs import WARM_UP_CALLS, Graph


class Pair(NamedTuple):
    a: Tensor
    b: Tensor | None


class Generator:
    """Stand-in for a generator on a GPU; `state` counts how often it was replaced by a copy of itself."""

    def __init__(self, state: int = 0) -> None:
        self.state = state

    def clone_state(self) -> Generator:
        return Generator(self.state + 1)

    def graphsafe_set_state(self, other: Generator) -> None:
        self.state = other.state


class FakeGraph:
    """Stand-in for `torch.cuda.CUDAGraph`: computes again what was computed while it was captured."""

    captured: Any = None
    registered: ClassVar[list[object]] = []
    replays = 0

    def register_generator_state(self, generator: object) -> None:
        FakeGraph.registered.append(generator)

    def replay(self) -> None:
        FakeGraph.replays += 1
        graph = FakeGraph.captured
        for to, x in zip(graph._outputs, graph.function(*graph._inputs), strict=True):
            to.copy_(x)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    class Stream:
        def wait_stream(self, other: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", (Generator(),))
    FakeGraph.captured, FakeGraph.replays, FakeGraph.registered = None, 0, []
    return torch.device("cuda")


def test_graph_on_a_cpu_is_the_function() -> None:
    calls: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        calls.append(x)
        return x + 1

    graph, x = Graph(function, torch.device("cpu")), torch.zeros(2)
    for _ in range(WARM_UP_CALLS + 3):
        assert torch.equal(graph(x), torch.ones(2))
    assert all(given is x for given in calls)
    assert not graph.enabled


def test_replays_read_new_arguments_and_change_tensors_in_place(cuda: torch.device) -> None:
    total, calls = torch.zeros(3), []

    def function(pair: Pair, index: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        total.add_(pair.a[index])
        return total * 2, pair.a[index]

    generator = torch.Generator()
    graph = Graph(function, cuda, generators=[generator])
    FakeGraph.captured = graph
    expected, pair = torch.zeros(3), Pair(torch.arange(6.0), None)
    for i in range(10):
        if i == 7:
            pair = Pair(torch.arange(6.0) * 10, None)
        index = torch.tensor([0, 1, 2]) + i % 3
        doubled, picked = graph(pair, index)
        expected += pair.a[index]
        # The capture itself calls the stand-in's function, which CUDA would only record.
        if i == WARM_UP_CALLS:
            total.sub_(pair.a[index])
            doubled.copy_(total * 2)
        assert torch.equal(picked, pair.a[index])
        assert torch.equal(total, expected)
        assert torch.equal(doubled, 2 * expected)
    assert FakeGraph.replays == 10 - WARM_UP_CALLS
    assert FakeGraph.registered == [generator]


def test_arguments_are_copied_only_when_they_change(cuda: torch.device) -> None:
    graph = Graph(lambda x, y: (x + y,), cuda)
    FakeGraph.captured = graph
    x, y = torch.ones(2), torch.ones(2)
    for _ in range(WARM_UP_CALLS + 1):
        graph(x, y)
    x.fill_(5)  # the same object: the caller promises that it has not changed
    assert torch.equal(graph(x, torch.full((2,), 3.0))[0], torch.full((2,), 4.0))


def test_results_can_be_the_next_arguments(cuda: torch.device) -> None:
    graph = Graph(lambda x: (x[0] + 1,), cuda)
    FakeGraph.captured = graph
    x: Any = (torch.zeros(2),)
    for i in range(WARM_UP_CALLS + 4):
        x = graph(x)
        assert torch.equal(x[0], torch.full((2,), i + 1.0))


def test_function_that_cannot_be_captured_is_called(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def function(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == WARM_UP_CALLS + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return x + 1

    @contextlib.contextmanager
    def capture(graph: FakeGraph) -> Iterator[None]:
        try:
            yield
        finally:
            if len(calls) == WARM_UP_CALLS + 1:
                raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", capture)
    generator: Any = Generator()
    graph = Graph(function, cuda, generators=[generator])
    for i in range(WARM_UP_CALLS + 3):
        assert torch.equal(graph(torch.full((2,), float(i))), torch.full((2,), i + 1.0))
    assert [generator.state, torch.cuda.default_generators[0].state] == [1, 1]  # type: ignore[attr-defined]
    assert graph.failure == "operation not permitted when stream is capturing"
    assert graph.failure_note() == [
        f"function is not recorded in a CUDA graph, and is slower: {graph.failure}"
    ]
    assert graph.failure_note() == []
    assert not graph.enabled


def test_refused_function_is_called_and_the_reason_is_noted_once(cuda: torch.device) -> None:
    graph = Graph(lambda x: x + 1, cuda, refused="it counts its calls")
    assert all(graph(torch.tensor(float(i))) == i + 1 for i in range(WARM_UP_CALLS + 2))
    assert graph.failure_note() == [
        "<lambda> is not recorded in a CUDA graph, and is slower: it counts its calls"
    ]
    assert graph.failure_note() == []
    assert Graph(lambda x: x, torch.device("cpu"), refused="it counts its calls").failure_note() == []
    assert Graph(lambda x: x, cuda, enabled=False, refused="it counts its calls").failure_note() == []


def test_paused_graph_calls_the_function_and_is_replayed_later(cuda: torch.device) -> None:
    graph = Graph(lambda x: (x + 1,), cuda)
    FakeGraph.captured = graph
    for i in range(WARM_UP_CALLS + 6):
        graph.paused = i in (WARM_UP_CALLS + 2, WARM_UP_CALLS + 3)
        assert torch.equal(graph(torch.full((2,), float(i)))[0], torch.full((2,), i + 1.0))
    assert FakeGraph.replays == 4


class Cycle:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_collected_before_a_capture_and_not_in_it(
    cuda: torch.device, enabled: bool, fails: bool
) -> None:
    before, within, found = [], [], []

    def function(x: Tensor) -> tuple[Tensor]:
        if len(found) == WARM_UP_CALLS:
            within.append((before[0](), gc.isenabled()))
            if fails:
                raise RuntimeError("operation not permitted")
        found.append(0)
        return (x + 1,)

    graph, x = Graph(function, cuda), torch.ones(2)
    FakeGraph.captured = graph
    for _ in range(WARM_UP_CALLS):
        graph(x)
    was_enabled = gc.isenabled()
    gc.enable() if enabled else gc.disable()
    try:
        before.append(weakref.ref(Cycle()))
        graph._capture()
        assert within == [(None, False)]
        assert gc.isenabled() == enabled
        assert (graph.failure is None) != fails
    finally:
        gc.enable() if was_enabled else gc.disable()

"""Stages of `gpu_check` about fewer launches: Triton kernels, CUDA graphs, torch.compile."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.device_checks import synchronize
from benchmarks.speed.gpu_check_session import (
    PRESET,
    QUICK,
    Session,
    Sizes,
    capture_failure,
    make_trained,
    without_triton,
)
from benchmarks.speed.gpu_check_training import measure_speed
from rmc_agents import Trainer
from rmc_agents.cores import MemoryCore, make_core
from rmc_agents.cores.kernels import gated_triton, rmc_triton
from rmc_agents.rl.rollout import split_into_chunks
from rmc_agents.training.graphs import WARM_UP_CALLS, Graph

INPUT_SIZE = 128
KERNELS: dict[str, Any] = {"rmc": rmc_triton, "lstm": gated_triton, "gru": gated_triton}
"""Modules of the Triton kernels, by core."""
MOST_DIFFERENCE = 1e-5
"""Of weights trained in graphs and without: products of large matrices may be added up in another order."""


def triton(session: Session) -> None:
    """Compare the Triton kernels of each core with PyTorch: values, gradients, time, also in CUDA graphs."""
    sizes = ((32, 16), (16, 4096)) if session.cuda else ((4, 8),)  # T, B
    for precision in ("float32", "tf32"):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        for name, kernels in KERNELS.items():
            core = make_core(name, INPUT_SIZE).to(session.device)
            facts: dict[str, Any] = {"core": name, "precision": precision}
            reason = kernels.why_not(core, session.device)
            if reason is not None:
                session.note("Triton kernels are not used", **facts, reason=reason, passed=not session.cuda)
            for T, B in sizes:
                session.attempt("sequence", partial(_compare, session, core, T, B, facts), needs=10, **facts)
    torch.backends.cuda.matmul.allow_tf32 = False


def _compare(session: Session, core: MemoryCore, T: int, B: int, facts: dict[str, Any]) -> None:
    """Note the largest relative difference of values and gradients, and the time of both."""
    device = session.device
    inputs = torch.randn(T, B, INPUT_SIZE, device=device, requires_grad=True)
    starts = torch.rand(T, B, device=device) < 0.05
    upstream = torch.randn(T, B, core.output_size, device=device)
    state = core.initial_state(B)

    def forward() -> Tensor:
        return core.unroll(inputs, state, starts)[0]

    def both() -> tuple[Tensor, ...]:
        outputs = forward()
        return outputs.detach(), *torch.autograd.grad(
            (outputs * upstream).sum(), [inputs, *core.parameters()]
        )

    found: dict[str, Any] = {**facts, "T": T, "B": B}
    with without_triton():
        expected = both()
        found["PyTorch_ms"] = 1e3 * session.time(both)
        found["PyTorch_graph_ms"] = _milliseconds_in_graph(session, both)
    results = both()
    pairs = zip(results, expected, strict=True)
    found["difference"] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    found["forward_ms"] = 1e3 * session.time(torch.no_grad()(forward))
    found["ms"] = 1e3 * session.time(both)
    found["graph_ms"] = _milliseconds_in_graph(session, both)
    most = 0.02 if facts["precision"] == "tf32" else 1e-3  # TF32 keeps 10 bits of a factor
    session.note("sequence", **found, passed=found["difference"] < most)


def _milliseconds_in_graph(session: Session, call: Callable[[], Any]) -> float | str:
    """Return the time of a call in a CUDA graph, or the reason why it cannot be captured."""
    graph = Graph(call, session.device)
    seconds = session.time(graph, warm_up=WARM_UP_CALLS + 1)
    return graph.failure or 1e3 * seconds


def graphs(session: Session) -> None:
    """Compare training in CUDA graphs with training without: weights, and the time of a gradient step."""
    sizes = (PRESET, Sizes(4096, 16, 16, 65_536)) if not session.quick else (QUICK,)
    for each in sizes:
        for core in ("rmc", "lstm"):
            compare = partial(_compare_graphs, session, core, each)
            session.attempt("graphs", compare, needs=10, core=core, **each.facts)
    if session.cuda:
        session.attempt("failed capture", lambda: _fail_to_capture(session))


def _fail_to_capture(session: Session) -> None:
    """Check that a function that cannot be captured is called instead, and draws the right numbers."""
    generators = [torch.Generator(session.device).manual_seed(1) for _ in range(2)]

    def draw(generator: torch.Generator) -> Tensor:
        numbers = torch.rand(3, generator=generator, device=session.device)
        return numbers + float(torch.rand((), device=session.device) < 2)  # waits

    graph = Graph(partial(draw, generators[0]), session.device, generators=[generators[0]])
    equal = all(torch.equal(graph(), draw(generators[1])) for _ in range(WARM_UP_CALLS + 3))
    session.note("failed capture", reason=graph.failure, passed=equal and graph.failure is not None)


def _compare_graphs(session: Session, core: str, sizes: Sizes) -> None:
    trainers = [make_trained(session, core, sizes, graphs) for graphs in (False, True, False)]
    weights = [trainer.optimizer.values.clone() for trainer in trainers]
    found: dict[str, Any] = {"repeated": float((weights[0] - weights[2]).abs().max())}
    for name, trainer in zip(("host", "graph"), trainers[:2], strict=True):
        found[f"{name}_step_ms"], found[f"{name}_launch_ms"] = _step_milliseconds(session, trainer)
    difference = float((weights[0] - weights[1]).abs().max())
    failure = capture_failure(trainers[1])
    passed = difference < MOST_DIFFERENCE and failure is None
    facts = {"core": core, **sizes.facts, **found}
    session.note("graphs", **facts, difference=difference, failure=failure, passed=passed)


def _step_milliseconds(session: Session, trainer: Trainer) -> tuple[float, float]:
    """Return the time of a gradient step, and how much of it keeps the host busy."""
    rollout, config = trainer.rollout, trainer.config
    chunks = split_into_chunks(rollout, rollout.values, rollout.values, config.bptt_length)
    index = torch.arange(config.minibatch_size // config.bptt_length, device=session.device)

    def step() -> None:
        trainer.updater.take_step(chunks, index, None)

    seconds = session.time(step, warm_up=1)
    started = time.perf_counter()
    step()
    launched = time.perf_counter() - started
    synchronize(session.device)
    return 1e3 * seconds, 1e3 * launched


def compiled(session: Session) -> None:
    """Measure training with torch.compile, which takes minutes to start."""
    if not session.cuda:
        session.note("speed", mode="compile", skipped="takes minutes on a CPU")
        return
    for core, sizes in (("rmc", Sizes(64, 32, 16, 512, 1)), ("lstm", Sizes(4096, 32, 16, 16_384))):
        measure = partial(measure_speed, session, core, sizes, "compile")
        session.attempt("speed", measure, core=core, mode="compile")

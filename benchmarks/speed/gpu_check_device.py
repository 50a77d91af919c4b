"""Stages of `gpu_check` about the device: its ceilings, and whether it computes what a CPU does."""

from __future__ import annotations

import os
import platform

import torch

import rmc_envs
from benchmarks.speed.device_checks import run_checks
from benchmarks.speed.gpu_check_session import Session
from rmc_agents.cores import CORES
from rmc_agents.training.graphs import WARM_UP_CALLS, Graph


def machine(session: Session) -> None:
    """Note versions, and the largest rates of bytes, arithmetic and launches."""
    facts = {"python": platform.python_version(), "cpus": os.cpu_count(), "torch": torch.__version__}
    for name in ("triton", "numpy", "gymnasium", "minigrid", "stable_baselines3", "sb3_contrib", "tyro"):
        try:
            facts[name] = __import__(name).__version__
        except Exception as error:
            facts[name] = f"missing: {error}"[:80]
    if session.cuda:
        properties = torch.cuda.get_device_properties(session.device)
        facts |= {
            "gpu": properties.name,
            "GiB": properties.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "multiprocessors": properties.multi_processor_count,
        }
    session.note("machine", **facts)
    session.attempt("copy", lambda: _copies(session))
    session.attempt("products", lambda: _products(session))
    session.attempt("launches", lambda: _launches(session))


def _copies(session: Session) -> None:
    size = 2**30 if session.cuda else 2**20
    a, b = torch.randn(size, device=session.device), torch.empty(size, device=session.device)
    session.note("copy", TB_per_s=8 * size / session.time(lambda: b.copy_(a)) / 1e12)


def _products(session: Session) -> None:
    """Measure a large product, and the shapes of the encoder and of a slot's queries, keys and values."""
    matmul = torch.backends.cuda.matmul
    shapes = (
        ((8192, 8192, 8192), (65536, 384, 128), (262144, 64, 192)) if session.cuda else ((128, 128, 128),)
    )
    for m, k, n in shapes:
        for precision in ("float32", "tf32", "bf16"):
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            x, w = (torch.randn(*size, device=session.device).to(dtype) for size in ((m, k), (k, n)))
            matmul.allow_tf32 = precision == "tf32"
            seconds = session.time(lambda x=x, w=w: x @ w)
            rate = 2 * m * k * n / seconds / 1e12
            session.note("product", size=f"{m}x{k}x{n}", precision=precision, TFLOP_per_s=rate)
    matmul.allow_tf32 = False


def _launches(session: Session) -> None:
    """Measure a launch in a row of launches, by the host and in a CUDA graph."""
    count = 1000
    x = torch.zeros(64, device=session.device)

    def launch() -> None:
        for _ in range(count):
            x.add_(1)

    session.note("launch by the host", us=session.time(launch) / count * 1e6)
    graph = Graph(launch, session.device)
    seconds = session.time(graph, warm_up=WARM_UP_CALLS + 1)
    session.note("launch in a graph", us=seconds / count * 1e6, failed=graph.failure)


def checks(session: Session) -> None:
    """Compare every environment and core with a CPU, in float32 without TF32."""
    torch.set_float32_matmul_precision("highest")
    tasks, cores = list(rmc_envs.NATIVE), list(CORES)
    if session.quick:
        tasks, cores = ["rmc/MemoryS7-v0"], ["lstm"]
    passed = 0
    for row in run_checks(session.device, cores, tasks, session.quick):
        good = row["passed"] == "yes"
        passed += good
        if not good or row["check"].startswith("bfloat16"):
            session.note(f"check {row['check']}", passed=good, detail=row["detail"])
    session.note("checks that passed", count=passed)

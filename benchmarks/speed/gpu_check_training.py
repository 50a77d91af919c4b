"""Stages of `gpu_check` about the trainer: waits, resuming, steps per second, memory, a profile."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.device_checks import install, synchronize
from benchmarks.speed.gpu_check_session import (
    MAZE,
    PRESET,
    QUICK,
    Session,
    Sizes,
    capture_failure,
    make_trainer,
    without_triton,
)
from rmc_agents import Trainer
from rmc_agents.rl.ppo import ppo_loss
from rmc_agents.rl.rollout import split_into_chunks
from rmc_agents.training.graphs import WARM_UP_CALLS

OWN_FOLDERS = ("/rmc_agents/", "/envs/", "/rmc_envs/")

SCALE_8, SCALE_32 = Sizes(512, 128, 32, 4096), Sizes(2048, 128, 32, 16_384)
"""The presets' sizes with `--scale`."""
LARGE = Sizes(16_384, 32, 16, 65_536)
SPEEDS: tuple[tuple[Sizes, str, tuple[str, ...]], ...] = (
    (PRESET, "rmc", ("tf32 graphs", "float32 graphs", "PyTorch graphs", "float32")),
    (PRESET, "lstm", ("tf32 graphs", "float32 graphs", "PyTorch graphs", "float32")),
    (SCALE_8, "rmc", ("tf32 graphs", "float32 graphs")),
    (SCALE_8, "lstm", ("tf32 graphs", "float32 graphs")),
    (SCALE_32, "rmc", ("tf32 graphs",)),
    (SCALE_32, "lstm", ("tf32 graphs",)),
    (LARGE, "rmc", ("tf32 graphs", "tf32")),
    (LARGE, "lstm", ("tf32 graphs",)),
    (PRESET, "gru", ("float32 graphs",)),
    (PRESET, "rnn", ("float32 graphs",)),
    (PRESET, "dnc", ("float32 graphs",)),
    (PRESET, "rmc", ("bf16 graphs", "PyTorch")),
)
"""Sizes, core and modes, in order of importance. PyTorch is float32 without Triton kernels; float32 and tf32
use them where they fit."""


def waits(session: Session) -> None:
    """Note each line of code that makes the host wait in an iteration of the preset, with its curriculum."""
    sizes = QUICK if session.quick else PRESET
    trainer = make_trainer(session, "rmc", sizes, curriculum=True, graphs=True)
    for _ in range(WARM_UP_CALLS + 2):
        trainer.iterate()
    with _recorded_waits(session) as found:
        trainer.iterate()
    session.note("waits in an iteration", seen=session.cuda, count=sum(found.values()), places=dict(found))


@contextlib.contextmanager
def _recorded_waits(session: Session) -> Iterator[Counter[str]]:
    """Count waits for the device by file and line of the package."""
    found: Counter[str] = Counter()

    def record(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        frames = [f for f in traceback.extract_stack()[:-1] if any(own in f.filename for own in OWN_FOLDERS)]
        name, line = (frames[-1].filename, frames[-1].lineno) if frames else (filename, lineno)
        found[f"{Path(name).name}:{line}"] += 1

    if not session.cuda:  # a CPU never waits
        yield found
        return
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = record
        torch.cuda.set_sync_debug_mode("warn")
        found.clear()  # that torch warns about this mode
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def resume(session: Session) -> None:
    """Compare a run with one that was saved and resumed: weights after an iteration, bit for bit."""
    sizes = QUICK if session.quick else PRESET
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(session, "rmc", sizes, curriculum=True, graphs=True, folder=Path(folder))
        for _ in range(WARM_UP_CALLS + 2):
            trainer.iterate()
        trainer.save()
        before = trainer.optimizer.values.clone()
        trainer.iterate()
        resumed = make_trainer(session, "rmc", sizes, curriculum=True, graphs=True, folder=Path(folder))
        resumed.restore()
        resumed.iterate()
    after = trainer.optimizer.values
    equal = torch.equal(after, resumed.optimizer.values) and not torch.equal(after, before)
    session.note("resumed run equals the uninterrupted one", passed=equal)


def speed(session: Session) -> None:
    """Measure steps per second by size and mode, and the memory of the largest iterations."""
    quick = tuple((QUICK, core, ("PyTorch", "float32 graphs")) for core in ("rmc", "lstm"))
    for sizes, core, modes in quick if session.quick else SPEEDS:
        for mode in modes:
            measure = partial(measure_speed, session, core, sizes, mode)
            session.attempt("speed", measure, needs=10, core=core, mode=mode, **sizes.facts)


def measure_speed(
    session: Session, core: str, sizes: Sizes, mode: str, iterations: int = 3, task: str = MAZE
) -> None:
    """Note the steps per second of training, medians over iterations after a warm-up."""
    gc.collect()
    if session.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    graphs = "graphs" in mode
    with contextlib.ExitStack() as stack:
        if "PyTorch" in mode:
            stack.enter_context(without_triton())
        torch.backends.cuda.matmul.allow_tf32 = "tf32" in mode
        stack.callback(setattr, torch.backends.cuda.matmul, "allow_tf32", False)
        trainer = make_trainer(session, core, sizes, task=task, graphs=graphs)
        if "bf16" in mode or "compile" in mode:
            install(trainer.agent, mode)
        first, *rows = [trainer.iterate() for _ in range((WARM_UP_CALLS + 2 if graphs else 2) + iterations)]
    rows = rows[-iterations:]
    collect, update = (median(row[f"time/{part}_seconds"] for row in rows) for part in ("collect", "update"))
    steps = sizes.transitions
    session.note(
        "speed",
        task=None if task == MAZE else task,
        core=core,
        mode=mode,
        **sizes.facts,
        steps_per_s=steps / (collect + update),
        collect_steps_per_s=steps / collect,
        gradient_step_ms=1e3 * update * sizes.minibatch_size / (sizes.epochs * steps),
        first_s=first["time/collect_seconds"] + first["time/update_seconds"],
        peak_GB=torch.cuda.max_memory_allocated() / 1e9 if session.cuda else None,
        failure=capture_failure(trainer),
    )


def kernels(session: Session) -> None:
    """Profile acting, stepping and a gradient step; the tables are written to profile.txt."""
    large = Sizes(4096, 16, 16, 65_536)
    cases = [(core, sizes) for sizes in (PRESET, large) for core in ("rmc", "lstm")]
    for core, sizes in cases if not session.quick else [("rmc", QUICK)]:
        for precision in ("tf32", "float32"):
            profiled = partial(_profile, session, core, sizes, precision)
            session.attempt("kernels", profiled, needs=8, core=core, precision=precision)


def _profile(session: Session, core: str, sizes: Sizes, precision: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    trainer = make_trainer(session, core, sizes)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * session.cuda
    sort_by = "self_device_time_total" if session.cuda else "self_cpu_time_total"
    for part, call in parts_of_iteration(trainer).items():
        wall = session.time(call)
        with profile(activities=activities) as recorded:
            call()
            synchronize(session.device)
        launched = [event for event in recorded.events() or () if "CUDA" in str(event.device_type)]
        busy = sum(event.time_range.elapsed_us() for event in launched)
        session.note(
            "kernels",
            core=core,
            precision=precision,
            envs=sizes.num_envs,
            minibatch=sizes.minibatch_size,
            part=part,
            kernels=len(launched),
            busy_us=float(busy),
            wall_us=wall * 1e6,
        )
        table = recorded.key_averages().table(sort_by=sort_by, row_limit=25, max_name_column_width=80)
        with (session.folder / "profile.txt").open("a") as file:
            file.write(f"{core}, {precision}, {sizes}: {part}\n{table}\n")


def parts_of_iteration(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """Return calls of the parts of an iteration, by name; the gradient step changes no weights."""
    trainer.iterate()
    agent, env, rollout = trainer.agent, trainer.env, trainer.rollout
    obs, starts, state = trainer.carry
    chunks = split_into_chunks(rollout, rollout.values, rollout.values, trainer.config.bptt_length)
    index = torch.arange(trainer.config.minibatch_size // trainer.config.bptt_length, device=agent.device)
    actions = rollout.actions[-1].clone()
    nothing = torch.zeros((), device=agent.device)

    def gradient_step() -> None:
        trainer.optimizer.zero_grad()
        loss, _ = ppo_loss(agent, chunks.select(index), trainer.config, nothing)
        loss.backward()
        trainer.optimizer.step(nothing, nothing)

    return {
        "act": torch.no_grad()(lambda: agent.act(obs, starts, state, trainer.generator)),
        "env.step": lambda: env.step(actions),
        "gradient step": gradient_step,
    }

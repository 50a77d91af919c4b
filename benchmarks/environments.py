"""Environment steps per second of every native task, against Farama's own environments and EnvPool's.

    python benchmarks/environments.py            # some four minutes; writes results/environments.*
    python benchmarks/environments.py --quick    # does it run? seconds

One process, one thread, random actions drawn beforehand, resets included. For the Memory mazes also
MiniGrid's environments under Gymnasium's SyncVectorEnv (and AsyncVectorEnv, which has processes of its own,
at 16), and EnvPool's where `pip install envpool` was done: at view size 7, the only one that it can.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from common import Report, Row, num_threads, parse, prepare, take_turns, target, times_faster
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from matplotlib.figure import Figure

import envs
from rmc_agents.palette import OKABE_ITO

SIZES = (1, 16, 64, 1024, 16384)
ASYNC_AT = 16
PYTHON_UP_TO = 1024
"""Beyond this many environments, a python loop over them has nothing new to say."""
BLOCK = 64
"""Steps whose actions are drawn beforehand; they are used again and again."""

Steps = Callable[[int], None]
"""Make so many steps of all environments."""


def random_actions(space: spaces.Space[Any], num_envs: int) -> np.ndarray:
    """[BLOCK, num_envs, ...] actions of a space."""
    if isinstance(space, spaces.Discrete):
        return np.random.default_rng(0).integers(0, space.n, (BLOCK, num_envs))
    space.seed(0)
    shape = space.shape or ()
    few = np.stack([space.sample() for _ in range(BLOCK * min(num_envs, 64))]).reshape(BLOCK, -1, *shape)
    return np.tile(few, (1, -(-num_envs // few.shape[1]), *[1] * len(shape)))[:, :num_envs]


def steps_of(step: Callable[[Any], object], actions: Sequence[Any]) -> Steps:
    def run(count: int) -> None:
        for i in range(count):
            step(actions[i % BLOCK])

    return run


def native(task: str, num_envs: int) -> tuple[Steps, Callable[[], None]]:
    """Our environments as a stepper, and what closes them."""
    env = envs.make(task, num_envs)
    env.reset(0)
    actions = torch.as_tensor(random_actions(env.action_space, num_envs)).unbind(0)
    return steps_of(env.step, actions), env.close


def of_gymnasium(
    kind: Callable[..., VectorEnv], env_id: str, num_envs: int
) -> tuple[Steps, Callable[[], None]]:
    """Farama's environments; their constant mission text is left out, as it is in ours."""
    env = kind([envs.farama(env_id)] * num_envs)
    env.reset(seed=0)
    return steps_of(env.step, list(random_actions(env.single_action_space, num_envs))), env.close


def of_envpool(env_id: str, num_envs: int) -> tuple[Steps, Callable[[], None]]:
    import envpool  # type: ignore[import-not-found] - an optional extra

    env = envpool.make_gymnasium(env_id, num_envs=num_envs, num_threads=1)
    env.reset()
    actions = random_actions(env.action_space, num_envs).astype(np.int32)
    return steps_of(env.step, list(actions)), env.close


def farama_twin(task: str) -> str | None:
    """The id of the same maze in MiniGrid, where there is one."""
    env_id = task.replace("rmc/Memory", "MiniGrid-Memory")
    return env_id if env_id in envs.MEMORY_MAZES else None


def calls_for(run: Steps, num_envs: int, seconds: float) -> tuple[Callable[[], None], int]:
    """A call of about `seconds`, and how many environment steps it makes."""
    count, taken = 1, 0.0
    while taken < seconds / 4:
        count *= 4
        began = time.perf_counter()
        run(count)
        taken = time.perf_counter() - began
    wanted = max(1, round(count * seconds / taken))
    return lambda: run(wanted), wanted * num_envs


def measure(task: str, num_envs: int, quick: bool) -> Row:
    """Steps per second of one task at one number of environments, and of what else offers it."""
    twin = farama_twin(task)
    seconds, rounds = (0.003, (1, 1)) if quick else (0.25, (5, 5))
    with ExitStack() as stack:

        def candidate(made: tuple[Steps, Callable[[], None]]) -> tuple[Callable[[], None], int]:
            run, close = made
            stack.callback(close)
            return calls_for(run, num_envs, seconds)

        candidates = {"native": candidate(native(task, num_envs))}
        if twin is not None and num_envs <= PYTHON_UP_TO:
            candidates["sync"] = candidate(of_gymnasium(SyncVectorEnv, twin, num_envs))
        if twin is not None and num_envs == ASYNC_AT:
            candidates["async"] = candidate(of_gymnasium(AsyncVectorEnv, twin, num_envs))
        if twin is not None and importlib.util.find_spec("envpool"):
            candidates["envpool"] = candidate(of_envpool(twin, num_envs))
        times = take_turns({name: call for name, (call, _) in candidates.items()}, 0, rounds)
    per_step = {name: [t / candidates[name][1] for t in ts] for name, ts in times.items()}
    row: Row = {"task": task, "environments": num_envs}
    for name in ("native", "sync", "async", "envpool"):
        known = name in per_step
        row[f"{name} steps/s"] = 1 / statistics.median(per_step[name]) if known else None
    for name in ("sync", "envpool"):
        row[f"times {name}"] = times_faster(per_step, "native", name) if name in per_step else None
    return row


def targets(rows: Sequence[Row]) -> list[Row]:
    found = {(row["task"], row["environments"]): row["native steps/s"] for row in rows}
    return [
        target(
            f"MemoryS13, {n} environments, one thread: steps/s",
            found.get(("rmc/MemoryS13-v0", n)),
            at_least=x,
        )
        for n, x in ((1024, 5e6), (16, 5e5))
    ]


def plot(rows: Sequence[Row]) -> Figure:
    """Steps per second over the number of environments: all tasks, and one maze by everything that has it."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    markers = "osD^vP*X<>"
    for i, task in enumerate(tasks):
        own = [row for row in rows if row["task"] == task]
        left.plot(
            [row["environments"] for row in own],
            [row["native steps/s"] for row in own],
            marker=markers[i % len(markers)],
            color=OKABE_ITO[i % len(OKABE_ITO)],
            label=task,
        )
    left.set_title("Native tasks", loc="left")
    maze = next(
        (task for task in ("rmc/MemoryS13-v0", *tasks) if task in tasks and farama_twin(task)), tasks[0]
    )
    for i, name in enumerate(("native", "sync", "async", "envpool")):
        points = [(row["environments"], row[f"{name} steps/s"]) for row in rows if row["task"] == maze]
        points = [point for point in points if point[1] is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker=markers[i], color=OKABE_ITO[i], label=name)
    right.set_title(f"{maze} by what steps it", loc="left")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("environments")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set_ylabel("environment steps per second")
    return figure


def main() -> None:
    parser = parse(__doc__, threads=(1,))
    parser.add_argument("--tasks", nargs="+", default=list(envs.NATIVE), help="some of the native tasks only")
    args = parser.parse_args()
    machine = prepare(args)
    sizes = (2, ASYNC_AT) if args.quick else SIZES
    with num_threads(args.threads[0]):
        rows = [measure(task, n, args.quick) for task in args.tasks for n in sizes]
    report = Report("environments", machine, {"Targets": targets(rows), "Steps per second": rows})
    report.notes = [
        "One process and one thread of torch (AsyncVectorEnv: a process for each environment; EnvPool: one "
        "thread). Medians over 5 interleaved rounds of about a quarter of a second each, after a warm-up.",
        "Uniformly random actions, drawn beforehand; every episode that ends is reset within the count.",
        "`sync` and `async` are Gymnasium's SyncVectorEnv and AsyncVectorEnv around minigrid's environment "
        "of the same maze, without its mission text; "
        f"sync up to {PYTHON_UP_TO} environments, async at {ASYNC_AT}.",
        "`times sync` and `times envpool` are medians of the ratio within a round.",
    ]
    if not importlib.util.find_spec("envpool"):
        report.notes.append("EnvPool is not installed here (`pip install envpool`), so its column is empty.")
    report.print()
    report.write(args.out, plot(rows))


if __name__ == "__main__":
    main()

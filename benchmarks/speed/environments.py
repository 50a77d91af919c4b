"""Environment steps per second of every native task, against the original environments and EnvPool's.

    python -m benchmarks.speed.environments            # about seven minutes; writes results/environments.*
    python -m benchmarks.speed.environments --report   # the report from stored measurements
    python -m benchmarks.speed.environments --quick    # see whether it runs: seconds

One process and one thread, with random actions that are drawn beforehand; resets are included. The Memory
mazes are also timed as MiniGrid's environments under Gymnasium's SyncVectorEnv (and, at 16 environments,
AsyncVectorEnv, which starts processes of its own), and as EnvPool's if it is installed (`pip install
envpool`), at view size 7, the only one that it has. POPGym's tasks, at the Easy level, are also timed as its
own single environments (`pip install 'rmc-agents[popgym]'`).
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rmc_envs
from benchmarks.common import Tables, make_parser, make_report, num_threads, speed_up, take_turns
from benchmarks.report import Row, Summary, show, target
from rmc_agents.plots.style import OKABE_ITO

SIZES = (1, 16, 64, 1024, 16384)
"""Numbers of environments."""
ASYNC_AT = 16
"""Number of environments at which AsyncVectorEnv is timed."""
PYTHON_UP_TO = 1024
"""Largest number of environments for SyncVectorEnv: its speed hardly changes beyond."""
BLOCK = 64
"""Steps whose actions are drawn beforehand; they are used again and again."""
WORLDS = ("MemoryMaze-9x9", "BoxWorld", "BoxWorldViewport", "MiniPacMan", "MiniPacManViewport")
SMALL = ("KeyValue", "TMaze", "EndlessTMaze", "MemoryCards", "MemoryChain", "ColorCubes")
ALTERNATIVES = ("sync", "envpool", "original")
"""What the native tasks are compared with."""

Steps = Callable[[int], None]
"""Makes that many steps of all environments."""


def random_actions(space: spaces.Space[Any], num_envs: int) -> np.ndarray:
    """Return [BLOCK, num_envs, ...] random actions."""
    if isinstance(space, spaces.Discrete):
        return np.random.default_rng(0).integers(0, space.n, (BLOCK, num_envs))
    space.seed(0)
    shape = space.shape or ()
    few = np.stack([space.sample() for _ in range(BLOCK * min(num_envs, 64))]).reshape(BLOCK, -1, *shape)
    return np.tile(few, (1, -(-num_envs // few.shape[1]), *[1] * len(shape)))[:, :num_envs]


def repeat(step: Callable[[Any], object], actions: Sequence[Any]) -> Steps:
    """Return a function that makes steps with the given actions, in turn."""

    def run(count: int) -> None:
        for i in range(count):
            step(actions[i % BLOCK])

    return run


def native(task: str, num_envs: int) -> tuple[Steps, Callable[[], None]]:
    """Return a stepper of our environments, and the call that closes them."""
    env = rmc_envs.make(task, num_envs)
    env.reset(0)
    actions = torch.as_tensor(random_actions(env.action_space, num_envs)).unbind(0)
    return repeat(env.step, actions), env.close


def gymnasium_vector(
    kind: Callable[..., VectorEnv], env_id: str, num_envs: int
) -> tuple[Steps, Callable[[], None]]:
    """Return a stepper of Farama's environments, without their constant mission text, as in ours."""
    env = kind([rmc_envs.make_reference(env_id)] * num_envs)
    env.reset(seed=0)
    return repeat(env.step, list(random_actions(env.single_action_space, num_envs))), env.close


def envpool_vector(env_id: str, num_envs: int) -> tuple[Steps, Callable[[], None]]:
    """Return a stepper of EnvPool's environments."""
    import envpool  # type: ignore[import-not-found] - an optional extra

    env = envpool.make_gymnasium(env_id, num_envs=num_envs, num_threads=1)
    env.reset()
    actions = random_actions(env.action_space, num_envs).astype(np.int32)
    return repeat(env.step, list(actions)), env.close


def popgym_single(env_id: str) -> tuple[Steps, Callable[[], None]]:
    """Return a stepper of POPGym's single environment, which is reset where an episode ends."""
    env = rmc_envs.make_reference(env_id)().unwrapped
    env.reset(seed=0)

    def step(action: Any) -> None:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return repeat(step, [actions[0] for actions in random_actions(env.action_space, 1)]), env.close


def popgym_id(task: str) -> str | None:
    """Return POPGym's id of a task, at the Easy level of a family, if its environments are installed."""
    if task in rmc_envs.NATIVE and task.startswith("rmc/"):
        task = rmc_envs.popgym_id(task.replace("-v0", "Easy-v0"))
    env_id = rmc_envs.popgym_id(task)
    return env_id if env_id in rmc_envs.POPGYM_IDS and importlib.util.find_spec("popgym") else None


def farama_id(task: str) -> str | None:
    """Return the id of the same maze in MiniGrid, if there is one."""
    env_id = task.replace("rmc/Memory", "MiniGrid-Memory")
    return env_id if env_id in rmc_envs.MEMORY_MAZES else None


def calls_for(run: Steps, num_envs: int, seconds: float) -> tuple[Callable[[], None], int]:
    """Return a call that takes about `seconds`, and how many environment steps it makes."""
    count, taken = 1, 0.0
    while taken < seconds / 4:
        count *= 4
        started = time.perf_counter()
        run(count)
        taken = time.perf_counter() - started
    wanted = max(1, round(count * seconds / taken))
    return lambda: run(wanted), wanted * num_envs


def measure_task(task: str, num_envs: int, quick: bool) -> Row:
    """Time one task at one number of environments, with all of its implementations."""
    twin, original = farama_id(task), popgym_id(task)
    seconds, rounds = (0.003, (1, 1)) if quick else (0.25, (5, 5))
    with ExitStack() as stack:

        def candidate(
            made: tuple[Steps, Callable[[], None]], num_envs: int = num_envs
        ) -> tuple[Callable[[], None], int]:
            run, close = made
            stack.callback(close)
            return calls_for(run, num_envs, seconds)

        candidates = {"native": candidate(native(task, num_envs))}
        if twin is not None and num_envs <= PYTHON_UP_TO:
            candidates["sync"] = candidate(gymnasium_vector(SyncVectorEnv, twin, num_envs))
        if twin is not None and num_envs == ASYNC_AT:
            candidates["async"] = candidate(gymnasium_vector(AsyncVectorEnv, twin, num_envs))
        if twin is not None and importlib.util.find_spec("envpool"):
            candidates["envpool"] = candidate(envpool_vector(twin, num_envs))
        if original is not None:
            candidates["original"] = candidate(popgym_single(original), 1)
        times = take_turns({name: call for name, (call, _) in candidates.items()}, 0, rounds)
    per_step = {name: [t / candidates[name][1] for t in ts] for name, ts in times.items()}
    row: Row = {"task": task, "environments": num_envs}
    for name in ("native", "sync", "async", "envpool", "original"):
        known = name in per_step
        row[f"{name} steps/s"] = 1 / statistics.median(per_step[name]) if known else None
    for name in ALTERNATIVES:
        known = name in per_step
        row[f"speed-up over {name}"] = speed_up(per_step, "native", name) if known else None
    return row


def target_table(rows: Sequence[Row]) -> list[Row]:
    """Return the targets, for one maze."""
    found = {(row["task"], row["environments"]): row["native steps/s"] for row in rows}
    return [
        target(
            f"MemoryS13, {n} environments, one thread: steps/s",
            found.get(("rmc/MemoryS13-v0", n)),
            at_least=x,
        )
        for n, x in ((1024, 5e6), (16, 5e5))
    ] + [*task_targets(rows), *popgym_targets(rows)]


def task_targets(rows: Sequence[Row]) -> list[Row]:
    """Return the targets for this package's own tasks."""
    found = {row["task"]: row["native steps/s"] for row in rows if row["environments"] == 1024}
    return [
        target(f"{name}, 1024 environments, one thread: steps/s", found.get(f"rmc/{name}-v0"), at_least=x)
        for names, x in ((WORLDS, 5e5), (SMALL, 5e6))
        for name in names
    ]


def popgym_targets(rows: Sequence[Row]) -> list[Row]:
    """Return the targets for POPGym's tasks: medians over the tasks that were timed."""
    own = [row for row in rows if row["environments"] == 1024 and row["original steps/s"] is not None]
    medians = [
        statistics.median([row[name] for row in own]) if own else None
        for name in ("native steps/s", "speed-up over original")
    ]
    what = "POPGym's tasks, 1024 environments, one thread: median"
    return [
        target(f"{what} steps/s", medians[0], at_least=3e6),
        target(f"{what} speed-up over one original environment", medians[1], at_least=50),
    ]


def measure(args: argparse.Namespace) -> Tables:
    """Time every task at every number of environments."""
    sizes = (2, ASYNC_AT) if args.quick else SIZES
    with num_threads(args.threads[0]):
        rows = [measure_task(task, n, args.quick) for task in args.tasks for n in sizes]
    return {"Targets": target_table(rows), "Steps per second": rows}


def make_notes(rows: Sequence[Row]) -> list[str]:
    """Return how the steps are measured."""
    notes = [
        "One process and one thread of torch (AsyncVectorEnv: a process for each environment; EnvPool: one "
        "thread). Medians over 5 interleaved rounds of about a quarter of a second each, after a warm-up.",
        "Uniformly random actions, drawn beforehand. The resets of episodes that end are included.",
        "`sync` and `async` are Gymnasium's SyncVectorEnv and AsyncVectorEnv with minigrid's environment of "
        f"the same maze, without its mission text: sync up to {PYTHON_UP_TO} environments, async at "
        f"{ASYNC_AT}.",
        "Speed-ups are of the native task, and medians of the ratio within a round.",
    ]
    if any(row.get("original steps/s") is not None for row in rows):
        notes.append(
            "`original` is POPGym's own single environment at the Easy level, so its speed-up is of a batch "
            "over one environment."
        )
    if all(row["envpool steps/s"] is None for row in rows):
        notes.append("EnvPool was not installed (`pip install envpool`), so its column is empty.")
    return notes


def summarize(rows: Sequence[Row]) -> Summary:
    """Return the steps per second of every task, with a column for each number of environments."""
    sizes = sorted({row["environments"] for row in rows})
    found = {(row["task"], row["environments"]): row for row in rows}
    compared = max((n for n in sizes if n <= PYTHON_UP_TO), default=sizes[-1])
    measured = [name for name in ALTERNATIVES if f"speed-up over {name}" in rows[0]]
    table: list[Row] = []
    for task in dict.fromkeys(row["task"] for row in rows):
        row: Row = {"task": task}
        for n in sizes:
            row[f"{n:,} environment{'s' * (n > 1)}"] = show(found[task, n]["native steps/s"])
        for name in measured:
            row[f"speed-up over {name} at {compared:,}"] = show(
                found[task, compared][f"speed-up over {name}"]
            )
        table.append(row)
    return Summary("summary", "Summary: native steps per second", table)


def plot(rows: Sequence[Row]) -> Figure:
    """Draw the speed of all tasks at one number of environments, and of one maze by that number."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(13, max(5.0, 0.21 * len(tasks))), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_tasks(left, rows)
    maze = next(
        (task for task in ("rmc/MemoryS13-v0", *tasks) if task in tasks and farama_id(task)), tasks[0]
    )
    for i, name in enumerate(("native", "sync", "async", "envpool")):
        points = [(row["environments"], row[f"{name} steps/s"]) for row in rows if row["task"] == maze]
        points = [point for point in points if point[1] is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker="osD^"[i], color=OKABE_ITO[i], label=name)
    right.set_title(f"{maze} by implementation", loc="left")
    right.set_xscale("log", base=2)
    right.set(yscale="log", xlabel="environments", ylabel="environment steps per second")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    return figure


def draw_tasks(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a point for the speed of each task, sorted by it, and one for the original, where it was timed."""
    count = max(
        (row["environments"] for row in rows if row["environments"] <= PYTHON_UP_TO),
        default=rows[0]["environments"],
    )
    own = sorted((row for row in rows if row["environments"] == count), key=lambda row: row["native steps/s"])
    for place, row in enumerate(own):
        original = row.get("original steps/s") or row["sync steps/s"]
        if original is not None:
            axes.plot([original, row["native steps/s"]], [place, place], color="#cccccc", zorder=1)
            axes.scatter(original, place, color=OKABE_ITO[1], marker="s", s=18, zorder=2)
        axes.scatter(row["native steps/s"], place, color=OKABE_ITO[0], s=18, zorder=2)
    axes.scatter([], [], color=OKABE_ITO[0], label=f"native, {count:,} environments")
    axes.scatter(
        [], [], color=OKABE_ITO[1], marker="s", label="original (POPGym: one; MiniGrid: SyncVectorEnv)"
    )
    axes.set_yticks(range(len(own)), [row["task"].removeprefix("rmc/") for row in own], fontsize=7)
    axes.set_title("Native tasks", loc="left")
    axes.set(xscale="log", xlabel="environment steps per second", ylim=(-1, len(own)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)


def main() -> None:
    """Measure, and write the report."""
    parser = make_parser(__doc__, threads=(1,))
    parser.add_argument(
        "--tasks", nargs="+", default=list(rmc_envs.NATIVE), help="time only these native tasks"
    )
    args = parser.parse_args()
    report = make_report("benchmarks.speed.environments", "Speed of environments", args, measure)
    rows = report.tables["Steps per second"]
    report.notes, report.summaries = make_notes(rows), [summarize(rows)]
    report.print()
    report.write(args.out, plot(rows))


if __name__ == "__main__":
    main()

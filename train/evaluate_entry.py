"""The evaluation of one agent in one environment: its figures beside those of other players."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces

import rmc_envs
from rmc_agents.agent.saved import Run, split_ids
from rmc_agents.cli.waiting import waiting
from rmc_agents.environment import BatchedEnv
from rmc_agents.errors import UsageError, shown
from rmc_agents.evaluation.entries import Entry, Figures
from rmc_agents.evaluation.episodes import FIRST_SEED, Episodes, RandomPolicy, evaluate
from rmc_agents.scripts.evaluate_flags import EvaluateConfig  # pyright: ignore[reportMissingImports]
from rmc_agents.scripts.evaluate_task import Task  # pyright: ignore[reportMissingImports]


def check(run: Run, task: Task, config: EvaluateConfig) -> tuple[str, ...]:
    """Return notes about a task for the user.

    Raises:
        UsageError: it cannot be built, or the agent cannot observe or act in it.
    """
    env_id = task.env_id
    try:
        env, _ = build(run, task, 1, config)
        maze_of(env_id, task.options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # whatever the constructor of somebody's environment raises
        raise UsageError(f"{env_id} cannot be built: {type(error).__name__}: {shown(error)}") from error
    try:
        run.require_fit(env_id, env)
        return (*env.notes, *mask_notes(run, env_id, env))
    finally:
        env.close()


def mask_notes(run: Run, env_id: str, env: BatchedEnv) -> tuple[str, ...]:
    """Return a note if an agent that was trained with action masks gets none; the environment is reset."""
    if run.agent.config.action_masks != "use":
        return ()
    env.reset(FIRST_SEED)
    if env.action_masks() is not None:
        return ()
    return (
        f"warning: {run.name} was trained with action masks, and {env_id} gives none: every action is free",
    )


def build(
    run: Run, task: Task, episodes: int, config: EvaluateConfig
) -> tuple[BatchedEnv, rmc_envs.Implementation]:
    """Build the environments for a number of episodes, and return which implementation they are."""
    kind = rmc_envs.choose_implementation(task.env_id, config.implementation)
    return rmc_envs.trials(task.env_id, kind, episodes, run.agent.device, task.options), kind


def evaluate_run(run: Run, task: Task, config: EvaluateConfig) -> Entry:
    """Evaluate an agent in one task, besides a random policy and the best possible one."""
    started = time.perf_counter()
    env, kind = build(run, task, config.episodes, config)
    maze = maze_of(task.env_id, task.options)
    count, seed = config.episodes, config.seed
    try:
        with waiting(f"episodes of {run.name} in {task.name}", count) as report:
            played = evaluate(
                run.agent, env, count, seed=seed, deterministic=not config.stochastic, progress=report
            )
        if maze is None:
            policy = RandomPolicy(env.action_space, seed, run.agent.config.action_masks != "ignore")
            with waiting(f"episodes of random actions in {task.name}", count) as report:
                random = figures_of(evaluate(policy, env, count, seed=seed, progress=report), kind)
        else:
            assert isinstance(env.action_space, spaces.Discrete)
            success, steps, reward = rmc_envs.random_walk(maze, 3 if env.action_space.n == 3 else 7)
            random = Figures(
                success_rate=success, mean_return=reward, mean_length=steps, implementation="exact"
            )
    finally:
        env.close()
    entry = Entry(
        figures_of(played, kind),
        deterministic=not config.stochastic,
        seconds=round(time.perf_counter() - started, 2),
        random=random,
    )
    if maze is None:
        return with_references(entry, task.env_id) if task.is_default else entry
    length, reward = rmc_envs.best_possible(maze)
    return dataclasses.replace(
        entry,
        best_possible=Figures(success_rate=1.0, mean_return=reward, mean_length=length),
        hallway=maze.hallway_length,
        trained_hallway=longest_trained(run),
    )


def with_references(entry: Entry, env_id: str) -> Entry:
    """Return an entry with the stored scores of play without a memory and of reference play, if any.

    They are those of the task with the default options.
    """
    known = rmc_envs.references(rmc_envs.resolve(env_id))
    if known is None:
        return entry
    return dataclasses.replace(
        entry,
        best_memoryless=Figures(mean_return=known.memoryless, implementation="stored"),
        reference=Figures(mean_return=known.reference, implementation="stored"),
    )


def figures_of(episodes: Episodes, implementation: str) -> Figures:
    """Return the figures of played episodes."""
    return Figures(
        success_rate=episodes.success_rate,
        success_ci95=episodes.success_ci95,
        mean_return=episodes.mean_return,
        return_ci95=episodes.return_ci95,
        mean_length=episodes.mean_length,
        episodes=episodes.episodes,
        first_seed=episodes.first_seed,
        implementation=implementation,
    )


def maze_of(env_id: str, options: Mapping[str, Any]) -> rmc_envs.MazeSpec | None:
    """Return the Memory maze that an id stands for, at the view size of the options; None for other tasks."""
    name = rmc_envs.resolve(env_id).replace("rmc/Memory", "MiniGrid-Memory")
    return rmc_envs.MazeSpec.from_id(name, int(options.get("view_size", 7)))


def longest_trained(run: Run) -> int | None:
    """Return the longest hallway of the mazes in which the run was trained; None if it is not known."""
    trained_in = [] if run.environment is None else split_ids(run.environment.ids)
    mazes = [maze_of(env_id, run.options_for(env_id)) for env_id in trained_in]
    lengths = [end - 3 for maze in mazes if maze is not None for end in maze.hallways]
    return max(lengths, default=None)


class Baseline:
    """The figures of the run without memory, if there is one, evaluated once in each task."""

    def __init__(self, run: Run | None, config: EvaluateConfig) -> None:
        self.run, self.config = run, config
        self.known: dict[tuple[str, str], Figures] = {}

    def figures(self, task: Task) -> Figures | None:
        if self.run is None:
            return None
        key = task.env_id, repr(sorted(task.rules.items()))
        if key not in self.known:
            figures = evaluate_run(self.run, task, self.config).figures
            self.known[key] = dataclasses.replace(figures, first_seed=None, run=self.run.name)
        return self.known[key]

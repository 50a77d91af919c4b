"""Evaluate trained agents: `python train/evaluate.py runs/NAME` makes a table, plots, pictures and a report.

python train/evaluate.py runs/NAME                              # in the environment that it was trained for
python train/evaluate.py runs/NAME --suite memory-mazes         # in mazes of all sizes, also unseen ones
python train/evaluate.py runs/* --env MiniGrid-MemoryS13-v0     # compare runs, by core
"""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import gymnasium
import torch
import tyro
from gymnasium import spaces

import rmc_envs
from rmc_agents.agent.saved import Run, split_ids
from rmc_agents.cli.config import Imports
from rmc_agents.cli.script import checking, choose_device, command_name, import_plugins, parse, run_script
from rmc_agents.environment import BatchedEnv
from rmc_agents.errors import NotAnAgent, UsageError
from rmc_agents.evaluation.episodes import FIRST_SEED, Episodes, RandomPolicy, evaluate
from rmc_agents.evaluation.results import Entry, Figures, Result, read_evaluation, save_entry
from rmc_agents.evaluation.runs import file_stem, load_with_imports
from rmc_agents.report import page, tables
from rmc_agents.runs.versions import versions

GIF_EPISODES = 3
"""Episodes in a GIF."""
VIDEO_HINT = " (for an MP4 too: pip install 'rmc-agents[video]')"


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate trained agents on episodes that they have never seen."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is evaluated), or single checkpoints in them."""
    env: str | None = None
    """Gymnasium ids, separated by commas. Without this and without a suite, each run is evaluated in its own
    environment."""
    suite: rmc_envs.Suite | None = None
    """memory-mazes: MiniGrid's six, then S17, S25, S33 and S65 of fixed length, at the agent's view size."""
    memoryless: Path | None = None
    """Run of a core without memory, as a baseline in the same episodes."""
    episodes: int = 1000
    """Number of complete episodes in each environment."""
    seed: int = FIRST_SEED
    """Episode j starts in an environment seeded with seed + j; the default is far from training seeds."""
    device: str = "auto"
    """auto (cuda if there is a GPU), cpu, cuda, cuda:1, ..."""
    stochastic: bool = False
    """Draw actions as in training, instead of taking the most likely one."""
    implementation: Literal["auto", "farama", "batched"] = "auto"
    """farama: MiniGrid's own environments, one by one; batched: the native batch; auto: farama for the ids
    that MiniGrid registers, batched for all other native tasks."""
    imports: Imports = ()
    """Module that registers cores or tasks of your own; one flag per module. Those that a run
    remembers are imported anyway."""
    gif: bool = True
    """Draw the first episodes into media/; of a suite, only in the mazes that the run was trained for."""
    heads: bool = False
    """In these pictures, show the attention of an RMC by head, instead of the mean over heads."""
    report: bool = True
    """Make plots, and report.html in the run folder."""
    out: Path = Path("comparison")
    """Folder for comparison.md and the plots of several runs."""


def main(args: Sequence[str]) -> None:
    """Parse the flags, evaluate every run in every environment, show and save the results."""
    with checking():
        config = parse(EvaluateConfig, None, args, prog=command_name("evaluate"))
        require_valid(config)
        torch.set_num_threads(1)  # the fastest at these sizes
        torch.set_flush_denormal(True)
        import_plugins(config.imports)
        device = choose_device(config.device)
        runs = load_all(config.runs, device)
        memoryless = None if config.memoryless is None else load_with_imports(config.memoryless, device)
        tasks = [(run, env_id) for run in runs for env_id in env_ids_for(run, config)]
        for run, env_id in tasks:  # all of them, before the first evaluation takes its time
            check(run, env_id, config)
            if memoryless is not None:
                check(memoryless, env_id, config)
    command = f"{command_name('evaluate')} {shlex.join(args)}"
    baseline = Baseline(memoryless, config)
    results: list[Result] = []
    for run, env_id in tasks:
        entry = dataclasses.replace(
            evaluate_run(run, env_id, config),
            memoryless=baseline.figures(env_id),
            command=command,
            versions=versions(),
            checkpoint=str(run.path),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        results.append(Result(run.name, run.agent.core_name, env_id, entry))
        save_entry(run.folder, env_id, entry)
        print(f"{run.name} in {env_id}: {summary(entry)}", flush=True)
        if config.gif and (config.suite is None or env_id in [*split_ids(config.env or ""), *run.env_ids]):
            print(f"pictures: {draw(run, env_id, config)}", flush=True)
    show(results, runs, config)


def require_valid(config: EvaluateConfig) -> None:
    """Raise UsageError for flags that make no sense."""
    if not config.runs:
        raise UsageError(f"give at least one run folder: {command_name('evaluate')} runs/NAME")
    if config.episodes < 1:
        raise UsageError(f"--episodes {config.episodes}: expected 1 or more")


def load_all(paths: Sequence[Path], device: torch.device) -> list[Run]:
    """Load the agents of runs. With several runs, those that are no agents are reported and left out."""
    runs = []
    for path in paths:
        try:
            runs.append(load_with_imports(path, device))
        except NotAnAgent as error:
            if len(paths) == 1:
                raise
            print(f"skipped: {error}", flush=True)
    if not runs:
        raise UsageError("none of these runs holds an agent")
    return runs


def env_ids_for(run: Run, config: EvaluateConfig) -> list[str]:
    """Return the environments in which a run is evaluated."""
    suite = () if config.suite is None else rmc_envs.SUITES[config.suite]
    own = split_ids(config.env) if config.env else [] if suite else run.env_ids
    if not own and not suite:
        raise UsageError(f"{run.folder}/config.json does not name an environment: choose an --env")
    return list(dict.fromkeys([*own, *suite]))


def check(run: Run, env_id: str, config: EvaluateConfig) -> None:
    """Raise UsageError unless the environment can be built, and the agent can observe and act in it."""
    try:
        env, _ = build(run, env_id, 1, config)
        maze_of(env_id, run)
    except (ValueError, TypeError, ImportError, gymnasium.error.Error) as error:
        raise UsageError(str(error)) from error
    env.close()
    run.require_fit(env_id, env)
    read_evaluation(run.folder)  # raises if the file is damaged


def build(
    run: Run, env_id: str, episodes: int, config: EvaluateConfig
) -> tuple[BatchedEnv, rmc_envs.Implementation]:
    """Build the environments for a number of episodes, and return which implementation they are."""
    kind = rmc_envs.choose_implementation(env_id, config.implementation)
    return rmc_envs.trials(env_id, kind, episodes, run.agent.device, run.options_for(env_id)), kind


def evaluate_run(run: Run, env_id: str, config: EvaluateConfig) -> Entry:
    """Evaluate an agent in one environment, besides a random policy and the best possible one."""
    started = time.perf_counter()
    env, kind = build(run, env_id, config.episodes, config)
    maze = maze_of(env_id, run)
    try:
        episodes = evaluate(
            run.agent, env, config.episodes, seed=config.seed, deterministic=not config.stochastic
        )
        if maze is None:
            policy = RandomPolicy(env.action_space, config.seed)
            random = figures_of(evaluate(policy, env, config.episodes, seed=config.seed), kind)
        else:
            assert isinstance(env.action_space, spaces.Discrete)
            success, steps, reward = rmc_envs.random_walk(maze, 3 if env.action_space.n == 3 else 7)
            random = Figures(
                success_rate=success, mean_return=reward, mean_length=steps, implementation="exact"
            )
    finally:
        env.close()
    entry = Entry(
        figures_of(episodes, kind),
        deterministic=not config.stochastic,
        seconds=round(time.perf_counter() - started, 2),
        random=random,
    )
    if maze is None:
        return entry
    length, reward = rmc_envs.best_possible(maze)
    return dataclasses.replace(
        entry,
        best_possible=Figures(success_rate=1.0, mean_return=reward, mean_length=length),
        hallway=maze.hallway_length,
        trained_hallway=longest_trained(run),
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


def summary(entry: Entry) -> str:
    """Return the result of an evaluation in a few words."""
    figures = entry.figures
    if figures.success_rate is None:
        return f"return {figures.mean_return:.3f} ({entry.seconds:.1f} s)"
    return f"success {figures.success_rate:.3f} ({entry.seconds:.1f} s)"


def maze_of(env_id: str, run: Run) -> rmc_envs.MazeSpec | None:
    """Return the Memory maze that an id stands for, at the run's view size; None for any other task."""
    name = rmc_envs.resolve(env_id).replace("rmc/Memory", "MiniGrid-Memory")
    return rmc_envs.MazeSpec.from_id(name, int(run.options_for(env_id).get("view_size", 7)))


def longest_trained(run: Run) -> int | None:
    """Return the longest hallway of the mazes in which the run was trained; None if it is not known."""
    trained_in = [] if run.environment is None else split_ids(run.environment.ids)
    mazes = [maze_of(env_id, run) for env_id in trained_in]
    lengths = [end - 3 for maze in mazes if maze is not None for end in maze.hallways]
    return max(lengths, default=None)


class Baseline:
    """The figures of the run without memory, if there is one, evaluated once in each environment."""

    def __init__(self, run: Run | None, config: EvaluateConfig) -> None:
        self.run, self.config = run, config
        self.known: dict[str, Figures] = {}

    def figures(self, env_id: str) -> Figures | None:
        if self.run is None:
            return None
        if env_id not in self.known:
            figures = evaluate_run(self.run, env_id, self.config).figures
            self.known[env_id] = dataclasses.replace(figures, first_seed=None, run=self.run.name)
        return self.known[env_id]


def draw(run: Run, env_id: str, config: EvaluateConfig) -> str:
    """Draw the first episodes, and return where the pictures are, or why there are none."""
    from rmc_agents.plots.pictures import save_pictures  # matplotlib and Pillow take a second to import

    try:
        env = rmc_envs.make_reference(env_id, render_mode="rgb_array", **run.options_for(env_id))()
    except (ValueError, TypeError, gymnasium.error.Error) as error:
        return f"none ({error})"
    stem = run.folder / "media" / file_stem(env_id)
    seeds = range(config.seed, config.seed + min(GIF_EPISODES, config.episodes))
    try:
        paths, _ = save_pictures(
            stem, run.agent, env, seeds, deterministic=not config.stochastic, per_head=config.heads
        )
    finally:
        env.close()
    hint = "" if any(path.suffix == ".mp4" for path in paths) else VIDEO_HINT
    return ", ".join(map(str, paths)) + hint


def show(results: list[Result], runs: list[Run], config: EvaluateConfig) -> None:
    """Print the tables, write the reports, and print where they are."""
    tables.evaluation_table(results).print()
    if len(runs) > 1:
        tables.core_table(results).print()
    folders = list(dict.fromkeys(run.folder for run in runs))
    for folder in folders:
        print(f"figures: {folder / 'evaluation.json'}, {page.write_markdown(folder).name}", flush=True)
        if config.report:
            print(f"report: {page.write_report(folder)}", flush=True)
    if len(runs) > 1 and config.report:
        from rmc_agents.report.comparison import write_comparison

        print(f"comparison: {', '.join(map(str, write_comparison(config.out, results, folders)))}")


def cli() -> None:
    """Run the script as a command."""
    run_script(main, EvaluateConfig, failures=(rmc_envs.EnvironmentFailed,))


if __name__ == "__main__":
    cli()

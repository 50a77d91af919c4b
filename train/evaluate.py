"""What trained agents can do: `python train/evaluate.py runs/NAME` gives a table, figures, plots, a report.

python train/evaluate.py runs/NAME                              # in the environment that it was trained for
python train/evaluate.py runs/NAME --suite memory-mazes         # every size, with those it has never seen
python train/evaluate.py runs/* --env MiniGrid-MemoryS13-v0     # compare runs, by core
"""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import torch
import tyro
from gymnasium import spaces

import envs
from rmc_agents import report, results, tables
from rmc_agents.checkpoint import read_config
from rmc_agents.cli import choose_device, parse, run_script
from rmc_agents.errors import NotAnAgent, UsageError
from rmc_agents.evaluation import RandomPolicy, evaluate
from rmc_agents.runs import Run, load, names
from rmc_agents.versions import versions

GIF_EPISODES = 3
VIDEO = " (for an MP4 too: pip install 'rmc-agents[video]')"


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate trained agents on episodes that they have never seen."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is judged), or single checkpoints in them."""
    env: str | None = None
    """Gymnasium ids with commas between; each run's own if neither this nor a suite is given."""
    suite: envs.Suite | None = None
    """memory-mazes: MiniGrid's six, then S17, S25, S33 and S65 of fixed length, at the agent's view."""
    memoryless: Path | None = None
    """A run without memory to judge beside the others: what can be had without remembering."""
    episodes: int = 1000
    """Complete episodes of each environment."""
    seed: int = 1_000_000
    """Episode j begins in an environment seeded seed + j; the default is far from the seeds of training."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, ..."""
    stochastic: bool = False
    """Draw actions as in training, instead of taking the most likely one."""
    implementation: Literal["auto", "farama", "batched"] = "auto"
    """farama: MiniGrid's own environments, one by one; batched: ours, as tensors; auto: farama for the ids
    that MiniGrid registers, batched for all others of ours."""
    gif: bool = True
    """Draw the first episodes into media/; of a suite, in the mazes that the run was trained for."""
    heads: bool = False
    """In these pictures show the attention of an RMC head by head, rather than their mean."""
    report: bool = True
    """Make plots, and report.html in the run folder."""
    out: Path = Path("comparison")
    """Where several runs' comparison.md and plots go."""


def main(args: Sequence[str]) -> None:
    """Parse the flags, evaluate every run on every environment, show and save what came out."""
    config = parse(EvaluateConfig, None, args, prog="train/evaluate.py")
    if not config.runs:
        raise UsageError("which run? python train/evaluate.py runs/NAME")
    if config.episodes < 1:
        raise UsageError(f"--episodes {config.episodes}: ask for 1 or more")
    torch.set_num_threads(1)  # the fastest at these sizes
    torch.set_flush_denormal(True)
    device = choose_device(config.device)
    runs = load_all(config.runs, device)
    memoryless = None if config.memoryless is None else load(config.memoryless, device)
    tasks = [(run, env_id) for run in runs for env_id in chosen(run, config)]
    for run, env_id in tasks:  # a mistake in the last is told before the first takes its time
        check(run, env_id, config)
        if memoryless is not None:
            check(memoryless, env_id, config)
    about = {"command": shlex.join(["python", "train/evaluate.py", *args]), "versions": versions()}
    baseline = Baseline(memoryless, config)
    found: list[results.Result] = []
    for run, env_id in tasks:
        entry = judge(run, env_id, config) | baseline.beside(env_id)
        entry |= {**about, "checkpoint": str(run.path), "date": now()}
        found.append(results.Result(run.name, run.agent.core_name, env_id, entry))
        results.save_entry(run.folder, env_id, entry)
        rate = entry["success_rate"]
        what = f"return {entry['mean_return']:.3f}" if rate is None else f"success {rate:.3f}"
        print(f"{run.name} in {env_id}: {what} ({entry['seconds']:.1f} s)", flush=True)
        if config.gif and (config.suite is None or env_id in names(f"{config.env},{run.env_ids}")):
            print(f"pictures: {draw(run, env_id, config)}", flush=True)
    show(found, runs, config)


def load_all(paths: Sequence[Path], device: torch.device) -> list[Run]:
    """The agents of some runs; of several those that hold none are left out, and told."""
    runs = []
    for path in paths:
        try:
            runs.append(load(path, device))
        except NotAnAgent as error:
            if len(paths) == 1:
                raise
            print(f"skipped: {error}", flush=True)
    if not runs:
        raise UsageError("none of these runs holds an agent")
    return runs


def show(found: list[results.Result], runs: list[Run], config: EvaluateConfig) -> None:
    """Tables for the terminal; what is written, and where."""
    tables.evaluation_table(found).print()
    if len(runs) > 1:
        tables.core_table(found).print()
    for folder in dict.fromkeys(run.folder for run in runs):
        print(f"figures: {folder / 'evaluation.json'}, {report.write_markdown(folder).name}", flush=True)
        if config.report:
            print(f"report: {report.write_report(folder)}", flush=True)
    if len(runs) > 1 and config.report:
        from rmc_agents.comparison import write_comparison

        written = write_comparison(config.out, found, list(dict.fromkeys(run.folder for run in runs)))
        print(f"comparison: {', '.join(map(str, written))}")


def chosen(run: Run, config: EvaluateConfig) -> list[str]:
    """The environments to judge a run in."""
    suite = () if config.suite is None else envs.SUITES[config.suite]
    own = config.env or ("" if suite else run.env_ids)
    return list(dict.fromkeys([*(names(own) if own or not suite else ()), *suite]))


def check(run: Run, env_id: str, config: EvaluateConfig) -> None:
    """Raise UsageError unless the environment can be built, and the agent can see and act in it."""
    if not env_id:
        raise UsageError(f"{run.folder}/config.json does not say what it was trained in; choose an --env")
    try:
        kind = envs.choose_implementation(env_id, config.implementation)
        env = envs.trials(env_id, kind, 1, run.agent.device, run.options_for(env_id))
        maze(env_id, run)
    except (ValueError, TypeError, ImportError, gymnasium.error.Error) as error:
        raise UsageError(str(error)) from error
    env.close()
    run.require_fit(env_id, env)
    results.read_evaluation(run.folder)  # raises where new figures could not be added


def judge(run: Run, env_id: str, config: EvaluateConfig) -> dict[str, Any]:
    """The figures of one agent in one environment, beside a random policy and the best possible one."""
    began = time.perf_counter()
    kind = envs.choose_implementation(env_id, config.implementation)
    env = envs.trials(env_id, kind, config.episodes, run.agent.device, run.options_for(env_id))
    try:
        episodes = evaluate(run.agent, env, config.episodes, config.seed, not config.stochastic)
        spec = maze(env_id, run)
        if spec is None:
            policy = RandomPolicy(env.action_space, config.seed)
            random = evaluate(policy, env, config.episodes, config.seed).summary() | {"implementation": kind}
        else:
            assert isinstance(env.action_space, spaces.Discrete)
            success, steps, reward = envs.random_walk(spec, 3 if env.action_space.n == 3 else 7)
            exact: dict[str, Any] = {"success_rate": success, "mean_return": reward, "mean_length": steps}
            random = exact | {"implementation": "exact"}
    finally:
        env.close()
    entry = {
        **episodes.summary(),
        "implementation": kind,
        "deterministic": not config.stochastic,
        "seconds": round(time.perf_counter() - began, 2),
        "random": random,
        "best_possible": None,
    }
    if spec is None:
        return entry
    length, reward = envs.best_possible(spec)
    entry["best_possible"] = {"success_rate": 1.0, "mean_return": reward, "mean_length": length}
    return entry | {"hallway": spec.hallway_length, "trained_hallway": longest_trained(run)}


def maze(env_id: str, run: Run) -> envs.MazeSpec | None:
    """The Memory maze that this is to this run, if it is one."""
    view_size = run.options_for(env_id).get("view_size", 7)
    return envs.MazeSpec.from_id(env_id.replace("rmc/Memory", "MiniGrid-Memory"), view_size)


def longest_trained(run: Run) -> int | None:
    """The longest hallway of the mazes that it was trained in; None if that is not known."""
    env = read_config(run.folder).get("env", {})
    specs = [maze(env_id, run) for env_id in names(env.get("train_on") or env.get("id", ""))]
    lengths = [end - 3 for spec in specs if spec is not None for end in spec.hallways]
    return max(lengths, default=None)


class Baseline:
    """The figures of the run without memory, if there is one: each environment once for all runs."""

    def __init__(self, run: Run | None, config: EvaluateConfig) -> None:
        self.run, self.config = run, config
        self.known: dict[str, dict[str, Any]] = {}

    def beside(self, env_id: str) -> dict[str, Any]:
        """What to add to another run's entry."""
        if self.run is None:
            return {}
        if env_id not in self.known:
            entry = judge(self.run, env_id, self.config)
            kept = ("success_rate", "success_ci95", "mean_return", "return_ci95", "mean_length", "episodes")
            self.known[env_id] = {name: entry[name] for name in (*kept, "implementation")}
        return {"memoryless": {"run": self.run.name, **self.known[env_id]}}


def draw(run: Run, env_id: str, config: EvaluateConfig) -> str:
    """Draw the first episodes, and return where they are, or why there is no picture."""
    from rmc_agents.visuals import save_pictures  # matplotlib and Pillow take a second

    options = run.options_for(env_id)
    try:
        env = envs.farama(env_id, render_mode="rgb_array", **options)()
    except (ValueError, TypeError, gymnasium.error.Error) as error:
        return f"none ({error})"
    stem = run.folder / "media" / env_id.replace("/", "-")
    seeds = range(config.seed, config.seed + min(GIF_EPISODES, config.episodes))
    try:
        paths, _ = save_pictures(stem, run.agent, env, seeds, not config.stochastic, config.heads)
    finally:
        env.close()
    no_video = "" if any(path.suffix == ".mp4" for path in paths) else VIDEO
    return ", ".join(map(str, paths)) + no_video


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


if __name__ == "__main__":
    run_script(main, failures=(envs.EnvironmentFailed,))

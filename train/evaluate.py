"""What a trained agent can do: `python train/evaluate.py runs/NAME` gives a table, evaluation.json, a GIF."""

from __future__ import annotations

import datetime
import inspect
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import torch
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs
from rmc_agents import results
from rmc_agents.cli import choose_device, parse, run_script
from rmc_agents.errors import UsageError
from rmc_agents.evaluation import Episodes, FirstEpisodeOnly, RandomPolicy, evaluate
from rmc_agents.runs import GRIDS, Run, load, names
from rmc_agents.versions import versions

LARGEST_WAVE = {"farama": 500, "batched": 500, "gymnasium": 32}
"""Environments stepped together: an episode that runs to its time limit holds up its wave, and environments
that we do not know may be large."""
GIF_EPISODES = 3

Implementation = Literal["farama", "batched", "gymnasium"]


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate trained agents on episodes that they have never seen."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is judged), or single checkpoints in them."""
    env: str | None = None
    """Gymnasium ids with commas between; each run's own if not given."""
    episodes: int = 1000
    """Complete episodes of each environment."""
    seed: int = 1_000_000
    """Episode j begins in an environment seeded seed + j; the default is far from the seeds of training."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, ..."""
    stochastic: bool = False
    """Draw actions as in training, instead of taking the most likely one."""
    implementation: Literal["auto", "farama", "batched"] = "auto"
    """farama: MiniGrid's own environments, one by one; batched: ours, as tensors; auto: farama for MiniGrid's
    ids, batched for other tasks of ours."""
    gif: bool = True
    """Draw the first episodes into media/."""


def main(args: Sequence[str]) -> None:
    """Parse the flags, evaluate every run on every environment, show and save what came out."""
    config = parse(EvaluateConfig, None, args, prog="train/evaluate.py")
    if not config.runs:
        raise UsageError("which run? python train/evaluate.py runs/NAME")
    if config.episodes < 1:
        raise UsageError(f"--episodes {config.episodes}: ask for 1 or more")
    torch.set_num_threads(1)  # the fastest at these sizes
    torch.set_flush_denormal(True)
    command = shlex.join(["python", "train/evaluate.py", *args])
    device = choose_device(config.device)
    runs = [load(path, device) for path in config.runs]
    tasks = [(run, env_id) for run in runs for env_id in names(config.env or run.env_ids)]
    for run, env_id in tasks:  # a mistake in the last is told before the first takes its time
        check(run, env_id, config)
    found: list[results.Result] = []
    for run, env_id in tasks:
        entry = judge(run, env_id, config)
        entry |= {"command": command, "versions": versions(), "checkpoint": str(run.path), "date": now()}
        found.append(results.Result(run.name, run.agent.core_name, env_id, entry))
        saved = results.save_entry(run.folder, env_id, entry)
        results.show(found[-1:])
        print(f"figures: {saved}", flush=True)
        if config.gif:
            print(f"pictures: {draw(run, env_id, config)}", flush=True)
    if len(config.runs) > 1:
        results.show_by_core(found)


def check(run: Run, env_id: str, config: EvaluateConfig) -> None:
    """Raise UsageError unless the environment can be built, and the agent can see and act in it."""
    if not env_id:
        raise UsageError(f"{run.folder}/config.json does not say what it was trained in; choose an --env")
    try:
        kind = choose_implementation(env_id, config.implementation)
        env = build(env_id, kind, 1, run.agent.device, run.options_for(env_id))
        best_possible(env_id, run.options_for(env_id))
    except (ValueError, TypeError, ImportError, gymnasium.error.Error) as error:
        raise UsageError(str(error)) from error
    env.close()
    for name in ("observation_space", "action_space"):
        had, has = getattr(run.agent, name), getattr(env, name)
        if had != has:
            raise UsageError(
                f"{run.folder} was trained with {name} {had}; {env_id} has {has}. Choose an --env with the "
                f"same{f', such as {run.env_ids}' if run.env_ids else ''}"
            )
    results.read_evaluation(run.folder)  # raises where new figures could not be added


def judge(run: Run, env_id: str, config: EvaluateConfig) -> dict[str, Any]:
    """The figures of one agent in one environment, beside a random policy and the best possible one."""
    kind = choose_implementation(env_id, config.implementation)
    options = run.options_for(env_id)
    env = build(env_id, kind, config.episodes, run.agent.device, options)
    try:
        episodes = evaluate(run.agent, env, config.episodes, config.seed, not config.stochastic)
        # A random walk takes long and asks nothing of the implementation: the mazes' tables are exact.
        twin = "batched" if kind == "farama" and envs.native(env_id) is not None else kind
        other = env if twin == kind else build(env_id, twin, config.episodes, run.agent.device, options)
        random = evaluate(RandomPolicy(other.action_space, config.seed), other, config.episodes, config.seed)
    finally:
        env.close()
    return {
        **figures(episodes, kind),
        "deterministic": not config.stochastic,
        "random": figures(random, twin),
        "best_possible": best_possible(env_id, options),
    }


def figures(episodes: Episodes, implementation: Implementation) -> dict[str, Any]:
    return {**episodes.summary(), "implementation": implementation}


def choose_implementation(env_id: str, asked: Literal["auto", "farama", "batched"]) -> Implementation:
    """Whose environments to evaluate in.

    Raises:
        UsageError: this environment does not come in the implementation asked for.
    """
    native = envs.native(env_id) is not None
    if asked == "batched" and not native:
        raise UsageError(f"{env_id} has no batched implementation; leave out --implementation")
    if asked == "farama" and not env_id.startswith(GRIDS):
        raise UsageError(f"{env_id} is not one of Farama's MiniGrid; leave out --implementation")
    if asked != "auto":
        return asked
    maze = envs.MazeSpec.from_id(env_id)
    ours_only = maze is not None and maze.hallway is not None
    if env_id.startswith(GRIDS) and not ours_only:
        return "farama"
    return "batched" if native else "gymnasium"


def build(
    env_id: str, kind: Implementation, episodes: int, device: torch.device, options: dict[str, Any]
) -> envs.BatchedEnv:
    """Environments for waves of equal size, environment i of a batch having a generator of its own."""
    num_envs = math.ceil(episodes / math.ceil(episodes / LARGEST_WAVE[kind]))
    native = envs.native(env_id)
    if kind == "batched" and native is not None:
        if "seeding" in inspect.signature(native).parameters:
            options = {**options, "seeding": "farama"}
        return envs.make(env_id, num_envs, device, **options)
    build_one = envs.farama(env_id, **options)
    vector = SyncVectorEnv(
        [lambda: FirstEpisodeOnly(build_one())] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
    )
    return envs.GymnasiumEnvs(vector, device, name=env_id, reward_is_success=env_id.startswith(GRIDS))


def best_possible(env_id: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """What perfect memory gets on average, where that is known."""
    spec = envs.MazeSpec.from_id(env_id, options.get("view_size", 7))
    if spec is None:
        return None
    length, reward = envs.best_possible(spec)
    return {"success_rate": 1.0, "mean_return": reward, "mean_length": length}


def draw(run: Run, env_id: str, config: EvaluateConfig) -> str:
    """Draw the first episodes, and return where they are, or why there is no picture."""
    from rmc_agents.visuals import save_gif  # matplotlib and Pillow take a second

    options = run.options_for(env_id)
    try:
        env = envs.farama(env_id, render_mode="rgb_array", **options)()
    except (ValueError, TypeError, gymnasium.error.Error) as error:
        return f"none ({error})"
    path = run.folder / "media" / f"{env_id.replace('/', '-')}.gif"
    seeds = range(config.seed, config.seed + min(GIF_EPISODES, config.episodes))
    try:
        save_gif(path, run.agent, env, seeds, deterministic=not config.stochastic)
    finally:
        env.close()
    return str(path)


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


if __name__ == "__main__":
    run_script(main, failures=(envs.EnvironmentFailed,))

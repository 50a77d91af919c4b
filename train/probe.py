"""What an agent holds in memory: `python train/probe.py runs/NAME` reads it, exchanges parts, draws both."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import torch
import tyro
from gymnasium import spaces

import envs
from rmc_agents.cli import choose_device, parse, run_script
from rmc_agents.errors import UsageError
from rmc_agents.evaluation import AgentPolicy, Policy
from rmc_agents.intervention import Swap, swap_parts
from rmc_agents.probe import TARGETS, Probe, Score, probe
from rmc_agents.recording import Recording, Wandering, record
from rmc_agents.report import write_report
from rmc_agents.results import read_evaluation, save_entry
from rmc_agents.runs import Run, load, names
from rmc_agents.tables import Table, value_cell
from rmc_agents.versions import versions

FILE = "probe.json"


@dataclass(frozen=True)
class ProbeConfig:
    """Read agents' memories with linear probes, and exchange parts of them between episodes."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is read), or single checkpoints in them. With several, their
    memories are compared on one plot."""
    env: str | None = None
    """Ids of MiniGrid's Memory mazes, with commas between; each run's own if not given."""
    episodes: int = 2000
    """Episodes that are recorded of each maze."""
    steps: int = 40
    """Steps that are recorded of an episode; memory grows with them."""
    seed: int = 2_000_000
    """Of the episodes; the default is far from the seeds of training and of evaluation."""
    deterministic: bool = False
    """Take the most likely action, instead of drawing actions as in training. Then there are no more
    different episodes than a maze has starts."""
    random_actions: float = 0.0
    """Share of steps, 0 to 1, at which any action is drawn instead of the agent's, so that episodes differ
    more."""
    swap_after: int = 2
    """Parts of the memory are exchanged when the cue has been out of view for so many steps."""
    swap: bool = True
    """Exchange parts of the memory between episodes."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True)
class Found:
    """What was found out about one run in one maze."""

    run: Run
    env_id: str
    probe: Probe
    swaps: list[Swap]

    @property
    def maze(self) -> str:
        return self.env_id.removeprefix("MiniGrid-").removesuffix("-v0")


def main(args: Sequence[str]) -> None:
    """Parse the flags, read every run's memory, show and save what came out."""
    config = parse(ProbeConfig, None, args, prog="train/probe.py")
    if not config.runs:
        raise UsageError("which run? python train/probe.py runs/NAME")
    for name in ("episodes", "steps"):
        if getattr(config, name) < 2:
            raise UsageError(f"--{name} {getattr(config, name)}: ask for 2 or more")
    if not 0 <= config.random_actions <= 1:
        raise UsageError(f"--random-actions {config.random_actions}: expected a share from 0 to 1")
    if config.swap_after < 1:
        raise UsageError(f"--swap-after {config.swap_after}: expected 1 or more")
    torch.set_num_threads(1)  # the fastest at these sizes
    torch.set_flush_denormal(True)
    command = shlex.join(["python", "train/probe.py", *args])
    runs = [load(path, choose_device(config.device)) for path in config.runs]
    tasks = [(run, env_id) for run in runs for env_id in names(config.env or run.env_ids)]
    for run, env_id in tasks:  # a mistake in the last is told before the first takes its time
        build(run, env_id, 1)
        read_evaluation(run.folder, FILE)  # raises where new figures could not be added
    found: list[Found] = []
    for run, env_id in tasks:
        found.append(look_into(run, env_id, config))
        show(found[-1])
        print(f"figures: {save(found[-1], config, command)}", flush=True)
        print(f"pictures: {', '.join(str(path) for path in draw(found[-1], config))}", flush=True)
    if len(runs) > 1:
        print(f"pictures: {', '.join(str(path) for path in compare(found))}", flush=True)
    for folder in dict.fromkeys(run.folder for run in runs):
        if (folder / "report.html").is_file():
            print(f"report: {write_report(folder)}", flush=True)


def build(run: Run, env_id: str, num_envs: int) -> envs.MemoryMazes:
    """The mazes of an id, as many as there will be episodes.

    Raises:
        UsageError: it is not one of the Memory mazes, or the agent cannot act in it.
    """
    if not env_id:
        raise UsageError(f"{run.folder}/config.json does not say what it was trained in; choose an --env")
    try:
        maze = envs.MazeSpec.from_id(env_id)
        env = envs.make(env_id, num_envs, run.agent.device, **run.options_for(env_id)) if maze else None
    except (ValueError, TypeError, gymnasium.error.Error) as error:
        raise UsageError(str(error)) from error
    if not isinstance(env, envs.MemoryMazes):
        raise UsageError(
            f"{env_id}: probes need a task that tells where its cue is; choose an --env such as "
            "MiniGrid-MemoryS11-v0"
        )
    run.require_fit(env_id, env)
    return env


def look_into(run: Run, env_id: str, config: ProbeConfig) -> Found:
    """Record one agent in one maze, probe its memory and exchange its parts."""
    env = build(run, env_id, config.episodes)
    actions = run.agent.action_space
    assert isinstance(actions, spaces.Discrete)

    def new_policy() -> Policy:
        agent = AgentPolicy(run.agent, config.deterministic, config.seed)
        return Wandering(agent, config.random_actions, int(actions.n), config.seed)

    recording = record(new_policy(), env, config.seed, config.steps)
    swaps = exchange(new_policy, env, recording, config) if config.swap else []
    return Found(run, env_id, probe(recording, config.steps), swaps)


def exchange(new_policy: Any, env: envs.MemoryMazes, recording: Recording, config: ProbeConfig) -> list[Swap]:
    """The exchanges, or none, with the reason said, where there can be none."""
    try:
        return swap_parts(new_policy, env, config.seed, recording, config.swap_after)
    except UsageError as error:
        print(f"nothing exchanged: {error}", flush=True)
        return []


def show(found: Found) -> None:
    """A table: what is read from each part, and how often exchanging it flips the choice."""
    flips = {(swap.part, swap.same_cue): value_cell(swap.rate, swap.interval) for swap in found.swaps}
    rows = []
    exchanged = list(dict.fromkeys(swap.part for swap in found.swaps))
    for part in [*exchanged, *(part for part in found.probe.parts if part not in exchanged)]:
        cells = [_cell(found.probe.overall[target].get(part)) for target in TARGETS]
        rows.append((part, *cells, flips.get((part, False), ""), flips.get((part, True), "")))
    columns = ("part", "cue read", "position, R²", "time since cue, R²", "choice flips", "control")
    title = (
        f"{found.run.name} ({found.run.agent.core_name}) in {found.env_id}: {found.probe.episodes:,} "
        f"episodes, {found.probe.success_rate:.3f} solved; 95 % intervals in brackets"
    )
    Table(title, columns, frozenset(columns[1:]), (tuple(rows),)).print()


def save(found: Found, config: ProbeConfig, command: str) -> Path:
    """Put what was found into the run's probe.json, in place of what was found in the same maze before."""
    entry = {
        "command": command,
        "versions": versions(),
        "checkpoint": str(found.run.path),
        "core": found.run.agent.core_name,
        "deterministic": config.deterministic,
        "random_actions": config.random_actions,
        "first_seed": config.seed,
        "probe": found.probe.to_json(),
        "swap_after": config.swap_after,
        "swaps": [swap.to_json() for swap in found.swaps],
    }
    return save_entry(found.run.folder, found.env_id, entry, FILE)


def draw(found: Found, config: ProbeConfig) -> list[Path]:
    """The heat maps and the exchanges, into the run's media/."""
    from rmc_agents import plots, probe_plots  # matplotlib takes a second

    media, core = found.run.folder / "media", found.run.agent.core_name.upper()
    title = f"What a linear probe reads from an {core}'s memory in {found.maze}"
    if core[0] not in "RL":
        title = title.replace("an ", "a ", 1)
    paths = plots.save(probe_plots.heat_maps(found.probe, title), media / f"{found.env_id}-probe")
    if found.swaps:
        title = f"How often exchanged memory flips the choice: {core} in {found.maze}"
        paths += plots.save(
            probe_plots.swaps(found.swaps, config.swap_after, title), media / f"{found.env_id}-swap"
        )
    return paths


def compare(found: Sequence[Found]) -> list[Path]:
    """How long each run's memory holds the cue, on one plot for each maze, into the media/ of each run."""
    from rmc_agents import plots, probe_plots

    paths = []
    for env_id in dict.fromkeys(each.env_id for each in found):
        here = [each for each in found if each.env_id == env_id]
        probes = []
        for each in here:
            core, name = each.run.agent.core_name, each.run.name
            probes.append((core if name == core else f"{core} ({name})", core, each.probe))
        figure = probe_plots.curves(probes, f"How long the cue stays in memory, {here[0].maze}")
        for folder in dict.fromkeys(each.run.folder for each in here):
            paths += plots.save(figure, folder / "media" / f"{env_id}-cores")
    return paths


def _cell(score: Score | None) -> str:
    return "-" if score is None else value_cell(score.value, (score.low, score.high))


if __name__ == "__main__":
    run_script(main)

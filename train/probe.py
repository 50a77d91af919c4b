"""Probe the memory of trained agents: `python train/probe.py runs/NAME` reads it, exchanges parts, draws
both."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import torch
import tyro
from gymnasium import spaces

import rmc_envs
from rmc_agents.agent.saved import Run, split_ids
from rmc_agents.cli.config import Imports
from rmc_agents.cli.script import checking, choose_device, command_name, import_plugins, parse, run_script
from rmc_agents.environment import BatchedEnv, CuedEnv
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.episodes import AgentPolicy, Policy
from rmc_agents.evaluation.results import merge_entry, read_entries
from rmc_agents.evaluation.runs import file_stem, load_with_imports
from rmc_agents.interpret.intervention import Swap, swap_parts
from rmc_agents.interpret.probe import TARGETS, Probe, Score, probe
from rmc_agents.interpret.recording import RandomActions, Recording, record
from rmc_agents.report.page import write_report
from rmc_agents.report.tables import Table, value_cell
from rmc_agents.runs.versions import versions

FILE = "probe.json"


@dataclass(frozen=True)
class ProbeConfig:
    """Read the memory of agents with linear probes, and exchange parts of it between episodes."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders (the newest checkpoint of each is read), or single checkpoints in them. The memories of
    several runs are compared on one plot."""
    env: str | None = None
    """Ids of Memory mazes or of other tasks that report where their cue is, separated by commas; each run's
    own if not given."""
    episodes: int = 2000
    """Number of episodes to record in each environment."""
    steps: int = 40
    """Number of steps to record of an episode; RAM use grows with it."""
    seed: int = 2_000_000
    """Seed of the episodes; the default is far from the seeds of training and of evaluation."""
    deterministic: bool = False
    """Take the most likely actions, instead of drawing actions as in training. There are then no more
    different episodes than a maze has starts."""
    random_actions: float = 0.0
    """Share of steps, 0 to 1, with an action drawn uniformly instead of the agent's, so that episodes differ
    more."""
    swap_after: int = 2
    """Number of steps since the cue was last in view at which parts of the memory are exchanged."""
    swap: bool = True
    """Exchange parts of the memory between episodes."""
    imports: Imports = ()
    """Module that registers cores or tasks of your own; one flag per module. Those that a run
    remembers are imported anyway."""
    device: str = "auto"
    """auto (cuda if there is a GPU), cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True)
class Findings:
    """The results of one run in one environment."""

    run: Run
    env_id: str
    probe: Probe
    swaps: list[Swap]

    @property
    def task(self) -> str:
        """The id, shortened for titles."""
        return self.env_id.removeprefix("MiniGrid-").removesuffix("-v0")


def main(args: Sequence[str]) -> None:
    """Parse the flags, probe the memory of every run, show and save the results."""
    with checking():
        config = parse(ProbeConfig, None, args, prog=command_name("probe"))
        require_valid(config)
        torch.set_num_threads(1)  # the fastest at these sizes
        torch.set_flush_denormal(True)
        import_plugins(config.imports)
        device = choose_device(config.device)
        runs = [load_with_imports(path, device) for path in config.runs]
        tasks = [(run, env_id) for run in runs for env_id in env_ids_for(run, config)]
        for run, env_id in tasks:  # all of them, before the first takes its time
            build(run, env_id, 1).close()
            read_entries(run.folder / FILE)  # raises if the file is damaged
    command = f"{command_name('probe')} {shlex.join(args)}"
    found: list[Findings] = []
    for run, env_id in tasks:
        found.append(examine(run, env_id, config))
        show(found[-1])
        print(f"figures: {save(found[-1], config, command)}", flush=True)
        print(f"pictures: {', '.join(map(str, draw(found[-1], config)))}", flush=True)
    if len(runs) > 1:
        print(f"pictures: {', '.join(map(str, compare(found)))}", flush=True)
    for folder in dict.fromkeys(run.folder for run in runs):
        if (folder / "report.html").is_file():
            print(f"report: {write_report(folder)}", flush=True)


def require_valid(config: ProbeConfig) -> None:
    """Raise UsageError for flags that make no sense."""
    if not config.runs:
        raise UsageError(f"give at least one run folder: {command_name('probe')} runs/NAME")
    for name, number in (("episodes", config.episodes), ("steps", config.steps)):
        if number < 2:
            raise UsageError(f"--{name} {number}: expected 2 or more")
    if not 0 <= config.random_actions <= 1:
        raise UsageError(f"--random-actions {config.random_actions}: expected a share from 0 to 1")
    if config.swap_after < 1:
        raise UsageError(f"--swap-after {config.swap_after}: expected 1 or more")


def env_ids_for(run: Run, config: ProbeConfig) -> list[str]:
    """Return the environments in which a run is probed."""
    env_ids = split_ids(config.env) if config.env else run.env_ids
    if not env_ids:
        raise UsageError(f"{run.folder}/config.json does not name an environment: choose an --env")
    return env_ids


def build(run: Run, env_id: str, num_envs: int) -> BatchedEnv:
    """Build a batch of a task with a cue.

    Raises:
        UsageError: the task does not report where its cue is, or the agent cannot act in it.
    """
    try:
        native = rmc_envs.native(env_id) is not None
        env = rmc_envs.make(env_id, num_envs, run.agent.device, **run.options_for(env_id)) if native else None
    except (ValueError, TypeError, gymnasium.error.Error) as error:
        raise UsageError(str(error)) from error
    if env is None or not isinstance(env, CuedEnv) or not isinstance(env.action_space, spaces.Discrete):
        raise UsageError(
            f"{env_id}: probes need a task with Discrete actions that reports where its cue is; choose an "
            "--env such as MiniGrid-MemoryS11-v0"
        )
    run.require_fit(env_id, env)
    return env


def examine(run: Run, env_id: str, config: ProbeConfig) -> Findings:
    """Record one agent in one environment, probe its memory and exchange its parts."""
    env = build(run, env_id, config.episodes)
    assert isinstance(env, CuedEnv)
    assert isinstance(env.action_space, spaces.Discrete)
    num_actions = int(env.action_space.n)

    def new_policy() -> Policy:
        agent = AgentPolicy(run.agent, config.deterministic, config.seed)
        return RandomActions(agent, config.random_actions, num_actions, config.seed)

    recording = record(new_policy(), env, seed=config.seed, steps=config.steps)
    swaps = exchange(new_policy, env, recording, config) if config.swap else []
    env.close()
    return Findings(run, env_id, probe(recording, config.steps), swaps)


def exchange(
    new_policy: Callable[[], Policy], env: CuedEnv, recording: Recording, config: ProbeConfig
) -> list[Swap]:
    """Exchange parts of the memory; if that is impossible, print why and return nothing."""
    try:
        return swap_parts(new_policy, env, recording, seed=config.seed, after=config.swap_after)
    except UsageError as error:
        print(f"nothing exchanged: {error}", flush=True)
        return []


def show(found: Findings) -> None:
    """Print a table: what can be read from each part, and how often exchanging it flips the choice."""
    flips = {(swap.part, swap.same_cue): value_cell(swap.rate, swap.interval) for swap in found.swaps}
    exchanged = list(dict.fromkeys(swap.part for swap in found.swaps))
    rows = []
    for part in [*exchanged, *(part for part in found.probe.parts if part not in exchanged)]:
        cells = [score_cell(found.probe.overall[target].get(part)) for target in TARGETS]
        rows.append((part, *cells, flips.get((part, False), ""), flips.get((part, True), "")))
    columns = ("part", "cue read", "position, R²", "time since cue, R²", "choice flips", "control")
    title = (
        f"{found.run.name} ({found.run.agent.core_name}) in {found.env_id}: {found.probe.episodes:,} "
        f"episodes, {found.probe.success_rate:.3f} solved; 95 % intervals in brackets"
    )
    Table(title, columns, frozenset(columns[1:]), (tuple(rows),)).print()


def score_cell(score: Score | None) -> str:
    return "-" if score is None else value_cell(score.value, (score.low, score.high))


def save(found: Findings, config: ProbeConfig, command: str) -> Path:
    """Write the findings to the run's probe.json; they replace earlier ones in the same environment."""
    entry: dict[str, Any] = {
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
    return merge_entry(found.run.folder / FILE, found.env_id, entry)


def draw(found: Findings, config: ProbeConfig) -> list[Path]:
    """Draw the heat maps and the exchanges into the run's media/."""
    from rmc_agents.plots import memory  # matplotlib takes a second to import
    from rmc_agents.plots.style import save as save_figure

    core, stem = found.run.agent.core_name.upper(), file_stem(found.env_id)
    article = "an" if core[0] in "RL" else "a"
    title = f"What a linear probe reads from {article} {core}'s memory in {found.task}"
    media = found.run.folder / "media"
    paths = save_figure(memory.heat_maps(found.probe, title), media / f"{stem}-probe")
    if found.swaps:
        title = f"How often exchanged memory flips the choice: {core} in {found.task}"
        paths += save_figure(memory.swaps(found.swaps, config.swap_after, title), media / f"{stem}-swap")
    return paths


def compare(found: Sequence[Findings]) -> list[Path]:
    """Draw how long the memory of each run keeps the cue, one plot per environment, into the media/ of
    each."""
    from rmc_agents.plots import memory
    from rmc_agents.plots.style import save as save_figure

    paths = []
    for env_id in dict.fromkeys(each.env_id for each in found):
        here = [each for each in found if each.env_id == env_id]
        probes = []
        for each in here:
            core, name = each.run.agent.core_name, each.run.name
            probes.append((core if name == core else f"{core} ({name})", core, each.probe))
        figure = memory.curves(probes, f"How long the cue stays in memory, {here[0].task}")
        for folder in dict.fromkeys(each.run.folder for each in here):
            paths += save_figure(figure, folder / "media" / f"{file_stem(env_id)}-cores")
    return paths


def cli() -> None:
    """Run the script as a command."""
    run_script(main, ProbeConfig, failures=(rmc_envs.EnvironmentFailed,))


if __name__ == "__main__":
    cli()

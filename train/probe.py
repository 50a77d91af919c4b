"""Probe the memory of trained agents: `python train/probe.py runs/NAME` reads it and exchanges its parts.

In a task with a cue, such as the Memory mazes, the probes read the cue and parts of the memory are exchanged
between episodes. In a task with objects, such as Memory Maze, the probes read where the objects are.
"""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents.agent.saved import Run
from rmc_agents.cli.flags import parse
from rmc_agents.cli.script import checking, choose_device, import_plugins, run_script, say
from rmc_agents.cli.waiting import waiting
from rmc_agents.environment import BatchedEnv, CuedEnv, ObjectsEnv
from rmc_agents.errors import Incomplete, UsageError, shown
from rmc_agents.evaluation.episodes import AgentPolicy, Policy
from rmc_agents.evaluation.output import output_folder
from rmc_agents.evaluation.results import PROBE, merge_entry, read_entries
from rmc_agents.evaluation.runs import load_with_imports
from rmc_agents.interpret.intervention import Swap, swap_parts
from rmc_agents.interpret.probe import TARGETS, Probe, Score, probe, require_variety
from rmc_agents.interpret.recording import RandomActions, Recording, record
from rmc_agents.report.page import write_report
from rmc_agents.report.tables import Table, value_cell
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.folder import cannot_write_results
from rmc_agents.runs.versions import versions
from rmc_agents.scripts.probe_flags import (  # pyright: ignore[reportMissingImports]
    WITH_CUE,
    WITH_OBJECTS,
    ProbeConfig,
    env_ids_for,
    require_valid,
)
from rmc_agents.scripts.probe_places import examine_places  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Findings:
    """The results of one run in one environment."""

    run: Run
    env_id: str
    output: Path
    """Folder for the results of the run."""
    probe: Probe
    swaps: list[Swap]

    @property
    def task(self) -> str:
        """The id, shortened for titles."""
        return self.env_id.removeprefix("MiniGrid-").removesuffix("-v0")


def main(args: Sequence[str]) -> None:
    """Parse the flags, probe the memory of every run, show and save the results.

    Raises:
        UsageError: found before the first probe, or the only run cannot be probed.
        Incomplete: something could not be done.
    """
    with checking():
        config = parse(ProbeConfig, None, args, prog=command_name("probe"))
        require_valid(config)
        torch.set_num_threads(1)  # the fastest at these sizes
        torch.set_flush_denormal(True)
        import_plugins(config.imports)
        device = choose_device(config.device)
        runs = [load_with_imports(path, device) for path in config.runs]
        outputs = {run.folder: output_folder(run.folder, config.output, len(runs)) for run in runs}
        tasks = [(run, env_id) for run in runs for env_id in env_ids_for(run, config)]
        for run, env_id in tasks:  # all of them, before the first takes its time
            build(run, env_id, 1, config)[0].close()
            read_entries(outputs[run.folder] / PROBE)  # raises if the file is damaged
    for folder, output in outputs.items():
        if output != folder:
            say(f"results of {folder} go to {output}")
    command = f"{command_name('probe')} {shlex.join(args)}"
    found: list[Findings] = []
    problems: list[str] = []
    for run, env_id in tasks:
        try:
            findings = examine(run, env_id, outputs[run.folder], config, command)
        except (UsageError, rmc_envs.EnvironmentFailed) as error:
            if len(tasks) == 1:
                raise
            problems.append(f"{run.name} in {env_id} was not probed: {shown(error, 400)}")
            say(problems[-1])
            continue
        except OSError as error:
            problems.append(str(cannot_write_results(outputs[run.folder], error)))
            continue
        if findings is not None:
            found.append(findings)
            show(findings)
            problems += write(findings, config, command)
    problems += finish(found, several=len(runs) > 1)
    if problems:
        raise Incomplete("; ".join(dict.fromkeys(problems)))


def write(found: Findings, config: ProbeConfig, command: str) -> list[str]:
    """Save the findings and draw them; return what could not be written."""
    try:
        say(f"figures: {save(found, config, command)}")
        say(f"pictures: {', '.join(map(str, draw(found, config)))}")
    except OSError as error:
        return [str(cannot_write_results(found.output, error))]
    return []


def finish(found: Sequence[Findings], several: bool) -> list[str]:
    """Compare several runs, and renew the reports that are there; return what could not be written."""
    try:
        if several and found:
            say(f"pictures: {', '.join(map(str, compare(found)))}")
        for folder, output in dict.fromkeys((each.run.folder, each.output) for each in found):
            if (output / "report.html").is_file():
                say(f"report: {write_report(folder, output)}")
    except UsageError as error:
        return [str(error)]
    except OSError as error:
        return [str(cannot_write_results(found[0].output, error))]
    return []


def build(run: Run, env_id: str, num_envs: int | None, config: ProbeConfig) -> tuple[BatchedEnv, ProbeConfig]:
    """Build a batch of a task with a cue or with objects.

    Args:
        run: the agent.
        env_id: id of the task.
        num_envs: number of environments; None for as many as episodes are recorded.
        config: the flags.

    Returns:
        the batch, and the flags with the numbers of episodes and steps of this kind of task.

    Raises:
        UsageError: the task reports neither, or the agent cannot act in it.
    """
    try:
        native = rmc_envs.native(env_id) is not None
        if not native:
            rmc_envs.make_reference(env_id)  # raises for an id that nobody knows
        options = run.options_for(env_id)
        env = rmc_envs.make(env_id, num_envs or 1, run.agent.device, **options) if native else None
        if isinstance(env, CuedEnv | ObjectsEnv):
            episodes, steps = WITH_OBJECTS if isinstance(env, ObjectsEnv) else WITH_CUE
            config = replace(config, episodes=config.episodes or episodes, steps=config.steps or steps)
            if num_envs is None:
                env.close()
                env = rmc_envs.make(env_id, config.episodes or 1, run.agent.device, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # whatever the constructor of somebody's environment raises
        raise UsageError(f"{env_id} cannot be built: {type(error).__name__}: {shown(error)}") from error
    probed = isinstance(env, CuedEnv | ObjectsEnv) and isinstance(env.action_space, spaces.Discrete)
    if env is None or not probed:
        raise UsageError(
            f"{env_id}: probes need a task with Discrete actions that reports where its cue is, or where its "
            "objects are; choose an --env such as MiniGrid-MemoryS11-v0"
        )
    run.require_fit(env_id, env)
    return env, config


def examine(run: Run, env_id: str, output: Path, config: ProbeConfig, command: str) -> Findings | None:
    """Record one agent in one environment, probe its memory and exchange its parts.

    Returns:
        the findings; None in a task with objects, whose results are shown and written at once.

    Raises:
        UsageError: the episodes are too alike for any probe, or do not fit into memory.
        OSError: the results cannot be written.
    """
    env, config = build(run, env_id, None, config)
    assert isinstance(env.action_space, spaces.Discrete)
    assert config.episodes is not None
    assert config.steps is not None
    num_actions = int(env.action_space.n)

    def new_policy() -> Policy:
        agent = AgentPolicy(run.agent, config.deterministic, config.seed)
        return RandomActions(agent, config.random_actions, num_actions, config.seed)

    name = f"{run.name} in {env_id}"
    try:
        if isinstance(env, ObjectsEnv):
            examine_places(
                run,
                env_id,
                env,
                new_policy,
                output=output,
                seed=config.seed,
                steps=config.steps,
                command=command,
            )
            return None
        assert isinstance(env, CuedEnv)
        with waiting(f"recorded steps of {name}", config.steps) as report:
            recording = record(new_policy(), env, seed=config.seed, steps=config.steps, progress=report)
        require_variety(recording, name)
        with waiting(f"probed steps of {name}", 2 * config.steps) as report:
            scores = probe(recording, config.steps, progress=report)
        swaps = exchange(new_policy, env, recording, config) if config.swap else []
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise UsageError(
            f"{config.episodes:,} --episodes of {config.steps:,} --steps do not fit into memory"
        ) from error
    finally:
        env.close()
    return Findings(run, env_id, output, scores, swaps)


def exchange(
    new_policy: Callable[[], Policy], env: CuedEnv, recording: Recording, config: ProbeConfig
) -> list[Swap]:
    """Exchange parts of the memory; if that is impossible, print why and return nothing."""
    try:
        with waiting("exchanged parts of the memory", 2 * len(recording.parts)) as report:
            return swap_parts(
                new_policy, env, recording, seed=config.seed, after=config.swap_after, progress=report
            )
    except UsageError as error:
        say(f"nothing exchanged: {error}")
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
    """Write the findings to probe.json; they replace earlier ones in the same environment."""
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
    return merge_entry(found.output / PROBE, found.env_id, entry)


def draw(found: Findings, config: ProbeConfig) -> list[Path]:
    """Draw the heat maps and the exchanges into the run's media/."""
    from rmc_agents.plots import memory  # matplotlib takes a second to import
    from rmc_agents.plots.style import save as save_figure

    core, stem = found.run.agent.core_name.upper(), portable_name(found.env_id)
    article = "an" if core[0] in "RL" else "a"
    title = f"What a linear probe reads from {article} {core}'s memory in {found.task}"
    media = found.output / "media"
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
        for folder in dict.fromkeys(each.output for each in here):
            paths += save_figure(figure, folder / "media" / f"{portable_name(env_id)}-cores")
    return paths


def cli() -> None:
    """Run the script as a command."""
    run_script(main, ProbeConfig, failures=(rmc_envs.EnvironmentFailed,))


if __name__ == "__main__":
    cli()

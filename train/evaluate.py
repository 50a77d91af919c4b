"""Evaluate trained agents: `python train/evaluate.py runs/NAME` makes a table, plots, pictures and a report.

python train/evaluate.py runs/NAME                              # in the environment that it was trained for
python train/evaluate.py runs/NAME --suite memory-mazes         # in mazes of all sizes, also unseen ones
python train/evaluate.py runs/* --env MiniGrid-MemoryS13-v0     # compare runs, by core
python train/evaluate.py runs/NAME --env-options max_solution=5 # in the same task with other options
python train/evaluate.py runs/popgym-* --suite popgym-easy      # each run in its own task of POPGym
"""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
import dataclasses
import datetime
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import rmc_envs
from rmc_agents.agent.saved import Run, split_ids
from rmc_agents.cli.flags import parse
from rmc_agents.cli.script import checking, choose_device, import_plugins, run_script, say
from rmc_agents.cli.waiting import waiting
from rmc_agents.errors import Incomplete, NotAnAgent, UsageError, shown
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.output import output_folder
from rmc_agents.evaluation.results import (
    EVALUATION,
    Result,
    kept_note,
    read_evaluation,
    save_entry,
    training_of,
)
from rmc_agents.evaluation.runs import load_with_imports
from rmc_agents.report import page, tables
from rmc_agents.report.suite import best_in_training, suite_table
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.folder import cannot_write_results
from rmc_agents.runs.versions import versions
from rmc_agents.scripts.evaluate_entry import (  # pyright: ignore[reportMissingImports]
    Baseline,
    check,
    evaluate_run,
)
from rmc_agents.scripts.evaluate_flags import (  # pyright: ignore[reportMissingImports]
    EvaluateConfig,
    require_valid,
)
from rmc_agents.scripts.evaluate_task import (  # pyright: ignore[reportMissingImports]
    Task,
    differing,
    names_in_comparison,
    task_of,
)
from rmc_agents.tree import leaves

GIF_EPISODES = 3
"""Episodes in a GIF."""
VIDEO_HINT = " (for an MP4 too: pip install 'rmc-agents[video]')"


@dataclass(frozen=True)
class Job:
    """The evaluation of one run in one task."""

    run: Run
    task: Task
    output: Path
    """Folder for the results of the run."""
    run_name: str
    """Name of the run in tables, which no other run has."""
    env_name: str
    """Name of the task in tables, which tasks with other options do not have."""

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.run_name} in {self.env_name}"


def main(args: Sequence[str]) -> None:
    """Parse the flags, evaluate every run in every environment, show and save the results.

    What cannot be evaluated, drawn or saved is reported, and the rest is done.

    Raises:
        UsageError: found before the first evaluation.
        Incomplete: something could not be done.
    """
    with checking():
        config = parse(EvaluateConfig, None, args, prog=command_name("evaluate"))
        require_valid(config)
        torch.set_num_threads(1)  # the fastest at these sizes
        torch.set_flush_denormal(True)
        import_plugins(config.imports)
        device = choose_device(config.device)
        runs = load_all(config.runs, device)
        memoryless = None if config.memoryless is None else load_memoryless(config.memoryless, device)
        outputs = {run.folder: output_folder(run.folder, config.output, len(runs)) for run in runs}
        names = names_of(runs)
        pairs = [
            (run, task_of(run, env_id, config.env_options))
            for run, env_ids in env_ids_by_run(runs, config)
            for env_id in env_ids
        ]
        env_names = names_in_comparison([task for _, task in pairs])
        jobs = [
            Job(run, task, outputs[run.folder], names[run.folder], env_name)
            for (run, task), env_name in zip(pairs, env_names, strict=True)
        ]
        outputs = {job.run.folder: job.output for job in jobs}
        notes: list[str] = []
        for job in jobs:  # all of them, before the first evaluation takes its time
            notes += check(job.run, job.task, config)
            read_evaluation(job.output)  # raises if the file is damaged
            if memoryless is not None:
                notes += check(memoryless, job.task, config)
    for note in dict.fromkeys(notes):
        say(note)
    for folder, output in outputs.items():
        if output != folder:
            say(f"results of {folder} go to {output}")
    command = f"{command_name('evaluate')} {shlex.join(args)}"
    baseline = Baseline(memoryless, config)
    results: list[Result] = []
    problems: list[str] = []
    for job in jobs:
        try:
            entry = dataclasses.replace(
                evaluate_run(job.run, job.task, config),
                memoryless=baseline.figures(job.task),
                command=command,
                versions=versions(),
                checkpoint=str(job.run.path),
                date=datetime.datetime.now(datetime.UTC).isoformat(),
            )
        except (UsageError, rmc_envs.EnvironmentFailed) as error:
            if len(jobs) == 1:
                raise
            problems.append(f"{job.name} was not evaluated: {shown(error)}")
            say(problems[-1])
            continue
        training = training_of(job.run.environment)
        results.append(Result(job.run_name, job.run.agent.core_name, job.env_name, entry, training))
        say(f"{job.name}: {summary(entry)}")
        problems += keep(job, entry)
        if config.gif and (
            config.suite is None or job.task.env_id in [*split_ids(config.env or ""), *job.run.env_ids]
        ):
            say(f"pictures: {draw(job, config)}")
    problems += show(results, outputs, names, config)
    if problems:
        raise Incomplete("; ".join(dict.fromkeys(problems)))


def load_all(paths: Sequence[Path], device: torch.device) -> list[Run]:
    """Load the agents of runs, each checkpoint once.

    With several runs, those that are no agents are reported and left out.
    """
    runs: dict[Path, Run] = {}
    for path in paths:
        try:
            run = load_with_imports(path, device)
            runs.setdefault(run.path.resolve(), run)
        except NotAnAgent as error:
            reason = (
                f"{path} holds a classifier, not an agent: {command_name('nth_farthest')} --evaluate {path}"
            )
            if len(paths) == 1:
                raise UsageError(reason) from error
            say(f"skipped: {reason}")
    if not runs:
        raise UsageError("none of these runs holds an agent")
    return list(runs.values())


def load_memoryless(path: Path, device: torch.device) -> Run:
    """Load the agent of the baseline.

    Raises:
        UsageError: it has a memory.
    """
    run = load_with_imports(path, device)
    if any(part.numel() for part in leaves(run.agent.core.initial_state(1))):
        raise UsageError(
            f"--memoryless {path}: its core {run.agent.core_name} has a memory; train one with "
            "--core feedforward"
        )
    return run


def names_of(runs: Sequence[Run]) -> dict[Path, str]:
    """Return the names of runs by their folders: the whole path where folders are called the same."""
    folders = {run.folder: run.name for run in runs}
    counts = Counter(folders.values())
    return {folder: name if counts[name] == 1 else str(folder) for folder, name in folders.items()}


def env_ids_by_run(runs: Sequence[Run], config: EvaluateConfig) -> list[tuple[Run, list[str]]]:
    """Return the environments in which each run is evaluated.

    With several runs, those that were trained in no task of a suite of own tasks are reported and left out.
    """
    found = []
    for run in runs:
        try:
            found.append((run, env_ids_for(run, config)))
        except UsageError as error:
            if len(runs) == 1 or config.suite not in rmc_envs.OWN_TASK_ONLY:
                raise
            say(f"skipped: {error}")
    if not found:
        raise UsageError(f"none of these runs was trained in a task of the suite {config.suite}")
    return found


def env_ids_for(run: Run, config: EvaluateConfig) -> list[str]:
    """Return the environments in which a run is evaluated."""
    suite = () if config.suite is None else rmc_envs.SUITES[config.suite]
    if config.suite in rmc_envs.OWN_TASK_ONLY:
        trained_in = {rmc_envs.popgym_id(env_id): run.options_for(env_id) for env_id in run.env_ids}
        suite = tuple(env_id for env_id in suite if env_id in trained_in)
        if not suite:
            raise UsageError(f"{run.folder} was trained in no task of the suite {config.suite}")
        changed = ", ".join(
            f"{name}={trained_in[env_id][name]!r}"
            for env_id in suite
            for name in differing(trained_in[env_id], rmc_envs.default_options(env_id))
        )
        if changed:
            raise UsageError(
                f"{run.folder} was trained in {', '.join(suite)} with {changed}, which is no task of the "
                f"suite {config.suite}: evaluate it without --suite"
            )
    own = split_ids(config.env) if config.env is not None else [] if suite else run.env_ids
    if not own and not suite:
        raise UsageError(f"{run.folder}/config.json does not name an environment: choose an --env")
    return list(dict.fromkeys([*own, *suite]))


def summary(entry: Entry) -> str:
    """Return the result of an evaluation in a few words."""
    figures = entry.figures
    if figures.success_rate is None:
        share = "" if entry.normalized is None else f", normalised {entry.normalized:.3f}"
        return f"return {figures.mean_return:.3f}{share} ({entry.seconds:.1f} s)"
    return f"success {figures.success_rate:.3f} ({entry.seconds:.1f} s)"


def keep(job: Job, entry: Entry) -> list[str]:
    """Save an entry, and say if better figures are kept; return what went wrong."""
    try:
        path = save_entry(job.output, job.task.name, entry)
    except OSError as error:
        return [f"the figures were not saved: {cannot_write_results(job.output, error)}"]
    note = kept_note(path, job.task.name, entry)
    if note is not None:
        say(note)
    return []


def draw(job: Job, config: EvaluateConfig) -> str:
    """Draw the first episodes, and return where the pictures are, or why there are none."""
    from rmc_agents.plots.pictures import save_pictures  # matplotlib and Pillow take a second to import

    seeds = range(config.seed, config.seed + min(GIF_EPISODES, config.episodes))
    stem = job.output / "media" / portable_name(job.task.name)
    try:
        env = rmc_envs.make_reference(job.task.env_id, render_mode="rgb_array", **job.task.options)()
        try:
            with waiting(f"pictures of {job.name}", len(seeds)) as report:
                paths, _ = save_pictures(
                    stem,
                    job.run.agent,
                    env,
                    seeds,
                    deterministic=not config.stochastic,
                    per_head=config.heads,
                    progress=report,
                )
        finally:
            env.close()
    except (Exception, SystemExit) as error:  # of somebody's environment, display or disk: figures are there
        kind = (
            "" if isinstance(error, UsageError | rmc_envs.EnvironmentFailed) else f"{type(error).__name__}: "
        )
        return f"none ({kind}{shown(error)})"
    hint = "" if any(path.suffix == ".mp4" for path in paths) else VIDEO_HINT
    return ", ".join(map(str, paths)) + hint


def show(
    results: list[Result], outputs: Mapping[Path, Path], names: Mapping[Path, str], config: EvaluateConfig
) -> list[str]:
    """Print the tables, write the reports, and print where they are; return what could not be written."""
    if not results:
        return []
    tables.evaluation_table(results).print()
    if config.suite in rmc_envs.OWN_TASK_ONLY:
        maxima = {names[folder]: best_in_training(folder) for folder in outputs}
        suite_table(f"{config.suite}: means over runs, by core", results, maxima).print()
    if len(outputs) > 1:
        try:
            tables.core_table(results).print()
        except ValueError as error:
            say(f"not compared by core: {error}")
    problems = []
    for folder, output in outputs.items():
        if not (output / EVALUATION).is_file():
            continue
        try:
            say(f"figures: {output / EVALUATION}, {page.write_markdown(folder, output).name}")
            if config.report:
                say(f"report: {page.write_report(folder, output)}")
        except UsageError as error:
            problems.append(str(error))
    if len(outputs) > 1 and config.report:
        from rmc_agents.report.comparison import write_comparison

        try:
            say(f"comparison: {', '.join(map(str, write_comparison(config.out, results, list(outputs))))}")
        except UsageError as error:
            problems.append(str(error))
    return problems


def cli() -> None:
    """Run the script as a command."""
    run_script(main, EvaluateConfig, failures=(rmc_envs.EnvironmentFailed,))


if __name__ == "__main__":
    cli()

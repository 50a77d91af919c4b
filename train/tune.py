"""Search for settings with Optuna: `python train/tune.py --env MiniGrid-MemoryS7-v0 --core gru --trials 30`.

python train/tune.py --env ID --core gru --search learning_rate=1e-4:1e-2:log --workers 2
python train/tune.py ...                                        # the same command continues the study
python train/ppo.py --preset-file runs/studies/NAME/best.json   # train with what it found
"""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
import contextlib
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import rmc_envs
from rmc_agents import Trainer
from rmc_agents.agent.saved import split_ids
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.flags import parse, parse_some
from rmc_agents.cli.preset_file import command_line, flags_of, write_preset
from rmc_agents.cli.presets import defaults_for
from rmc_agents.cli.script import checking, import_plugins, run_script, say
from rmc_agents.errors import Incomplete, Interrupted, TrainingError, shown
from rmc_agents.evaluation.matrices import write_matrices
from rmc_agents.plugins import import_modules
from rmc_agents.report.tables import Table
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.folder import cannot_write_results
from rmc_agents.scripts.ppo import build, merge_options  # pyright: ignore[reportMissingImports]
from rmc_agents.scripts.tune_flags import (  # pyright: ignore[reportMissingImports]
    TuneConfig,
    starting_from,
)
from rmc_agents.tuning.curve import LearningCurve, score_of
from rmc_agents.tuning.search import SearchSpace, Values, search_space
from rmc_agents.tuning.study import (
    FIRST_SEED,
    Plan,
    Sweep,
    require_optuna,
    storage_url,
    study_folder,
)
from rmc_agents.tuning.workers import follow_parent, is_worker, run_workers

SHOWN = 5
"""Trials in the table at the end."""


def main(args: Sequence[str]) -> None:
    """Parse the flags, make trials until none is left, and report the best."""
    started = time.monotonic()
    if is_worker():
        follow_parent()
    with checking():
        config, base = configure(args)
        require_optuna()
        sweep = open_sweep(config, base, args)
    if config.tune.workers > 1 and not is_worker():
        say(f"study {sweep.name} in {sweep.folder}: {config.tune.workers} workers")
        supervise(config, args)
    else:
        until = float("inf") if config.tune.timeout is None else started + config.tune.timeout
        work(sweep, config, until)
    if not is_worker():
        report(sweep, config)


def configure(args: Sequence[str]) -> tuple[TuneConfig, RunConfig]:
    """Return what the flags say, and the configuration that the search starts from.

    Raises:
        ValueError: flags that do not fit.
    """
    selection = parse_some(Selection, args)
    import_plugins(selection.imports)
    own = rmc_envs.spaces_of(selection.env, selection.env_options) if selection.preset else None
    default, preset = defaults_for(replace(selection, scale=1), own)
    about = f"Settings to start from: {preset or 'general settings (no preset)'}"
    doc = f"{TuneConfig.__doc__}\n\n{about}"
    config = parse(TuneConfig, starting_from(default), args, command_name("tune"), doc)
    base = merge_options(default, config.base())
    import_modules(base.run.imports)
    return config, base


def open_sweep(config: TuneConfig, base: RunConfig, args: Sequence[str]) -> Sweep:
    """Start the study, or continue it.

    Raises:
        ValueError: the search space is not possible, or the study has other settings.
    """
    tune = config.tune
    if not is_worker():
        require_trainable(config_of_run(base, config, Path("runs") / "not-trained", FIRST_SEED))
    with checking(names_options=True):  # names of settings, as --search takes them
        space = search_space(base, tune.search, given_settings(args, config), tune.search_only)
    name = tune.study or portable_name(f"{base.environment.env}-{base.agent.core}".lower())
    folder = study_folder(name)
    plan = Plan(
        trials=tune.trials,
        pruner=tune.pruner,
        points=tune.points,
        seeds=tune.seeds,
        sampler_seed=tune.sampler_seed,
    )
    return Sweep(name, folder, storage_url(tune.storage, folder), space, settings_of(config, space), plan)


def require_trainable(config: RunConfig) -> None:
    """Raise ValueError unless environments and agent can be built; nothing is written."""
    close(build(config))


def settings_of(config: TuneConfig, space: SearchSpace) -> dict[str, Any]:
    """Return the settings that all commands of a study share, by flag."""
    base, tune = space.base, config.tune
    parts = {**asdict(base.environment), **asdict(base.agent), **asdict(base.ppo)}
    names = ("seeds", "score", "points", "score_episodes", "sampler_seed", "target_success_rate")
    settings = {**parts, **{name: getattr(tune, name) for name in names}}
    flags = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
    return flags | {f"--search {name}": str(each) for name, each in space.searches.items()}


def given_settings(args: Sequence[str], config: TuneConfig) -> Collection[str]:
    """Return the names of settings that have a flag of their own on the command line, and so are fixed."""
    flags = [word.partition("=")[0].removeprefix("--") for word in args if word.startswith("--")]
    names = {flag.replace("-", "_").removeprefix("no_") for flag in flags}
    # As a flag it is the width of the heads, and in a search that of the core.
    names.discard("hidden_size")
    return names | (config.agent.core_options.keys() if "core_options" in names else set())


def supervise(config: TuneConfig, args: Sequence[str]) -> None:
    """Run the workers, and wait for them.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM.
        Incomplete: a worker failed, and the trials that it was to make are left.
    """
    codes, signal = run_workers(config.tune.workers, args)
    if signal is not None:
        raise interrupted(signal)
    failed = [f"worker {rank} ended with code {code}" for rank, code in enumerate(codes, 1) if code]
    if failed:
        raise Incomplete(f"{', '.join(failed)}; the same command continues the study")


def interrupted(signal: int) -> Interrupted:
    """Return the error that reports a signal, or Ctrl-C."""
    return Interrupted(
        "interrupted; the trials that ended are kept, and the same command continues the study", signal
    )


def work(sweep: Sweep, config: TuneConfig, until: float) -> None:
    """Make trials in this process until none is left.

    Args:
        sweep: the study.
        config: the flags.
        until: time from which no further trial starts, in seconds as `time.monotonic` counts them.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the trial is repeated when the study continues.
    """
    try:
        while time.monotonic() < until and (claimed := sweep.claim()) is not None:
            trial, values = claimed
            try:
                score = run_trial(sweep, config, trial, values)
            except KeyboardInterrupt:
                sweep.give_up(trial, repeat=True)
                raise
            except BaseException:
                sweep.give_up(trial, repeat=False)
                raise
            sweep.finish(trial, score)
            if config.tune.keep == "best":
                sweep.delete_run_folders()
    except KeyboardInterrupt as stop:
        if is_worker():
            sys.exit(130)  # the process that started it says so
        raise interrupted(stop.signal if isinstance(stop, Interrupted) else 2) from None


def run_trial(sweep: Sweep, config: TuneConfig, trial: Any, values: Values) -> float | None:
    """Train with all seeds of a trial; return its score, None if it was pruned or diverged."""
    tune, points = config.tune, config.tune.points
    folder, began = sweep.trial_folder(trial.number), time.monotonic()
    curves: list[list[float]] = []

    def report_point(number: int, value: float) -> bool:
        mean = (sum(curve[-1] for curve in curves) + value) / (len(curves) + 1)
        trial.report(mean, len(curves) * points + number)
        return trial.should_prune()

    outcome = None
    for seed in range(FIRST_SEED, FIRST_SEED + tune.seeds):
        run_config = config_of_run(sweep.space.configure(values), config, folder / f"seed-{seed}", seed)
        curve = LearningCurve(
            points, report_point, split_ids(run_config.environment.env), tune.score_episodes > 0
        )
        try:
            with output_in(folder / "output.txt"):
                train(run_config, curve)
            if curve.stopped:
                outcome = (
                    f"pruned at point {len(curve.points)} of {points}, seed {len(curves) + 1} of {tune.seeds}"
                )
                break
            curves.append(curve.complete())
        except TrainingError as error:
            if isinstance(error.__cause__, OSError):  # a full disk says nothing about the settings
                raise
            outcome = f"diverged: {shown(error)}"
            break
    scores = [score_of(curve, tune.score) for curve in curves]
    trial.set_user_attr("scores", scores)
    trial.set_user_attr("curves", curves)
    score = None if outcome else fmean(scores)
    outcome = outcome or f"score {score:.4g} (by seed: {listed(scores)})"
    say(f"trial {trial.number}: {outcome}, {time.monotonic() - began:.0f} s | {described(values)}")
    return score


def config_of_run(config: RunConfig, flags: TuneConfig, run_dir: Path, seed: int) -> RunConfig:
    """Return the configuration of one run of a trial."""
    tune = flags.tune
    every = max(config.ppo.total_steps // tune.points, 1) if tune.score_episodes else None
    run = replace(
        config.run,
        seed=seed,
        run_dir=run_dir,
        eval_every=every,
        eval_episodes=tune.score_episodes or config.run.eval_episodes,
    )
    return replace(config, run=run)


def train(config: RunConfig, curve: LearningCurve) -> None:
    """Train one agent, and record its learning curve."""
    with checking():
        trainer = build(config, callbacks=[curve])
    try:
        trainer.run()
    finally:
        close(trainer)


def close(trainer: Trainer) -> None:
    """Close the environments of a trainer."""
    trainer.env.close()
    if trainer.evaluation is not None:
        trainer.evaluation.close()


@contextlib.contextmanager
def output_in(path: Path) -> Iterator[None]:
    """Append what is printed inside this context to a file."""
    with open(path, "a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def described(values: Values) -> str:
    """Return the values of settings in one line."""
    return " ".join(f"{name}={value}" for name, value in values.items())


def report(sweep: Sweep, config: TuneConfig) -> None:
    """Print the best trials; write the best settings as a preset, and the scores with --export.

    Raises:
        Incomplete: a file cannot be written.
    """
    counts = ", ".join(f"{number} {state}" for state, number in sweep.counts().items())
    say(f"study {sweep.name} in {sweep.folder}: {counts}")
    if config.tune.keep == "best":
        sweep.delete_run_folders()
    best = sweep.best()
    if best is None:
        say("no trial has ended with a score yet")
        return
    table_of_best(sweep).print()
    tuned = sweep.space.configure(sweep.values_of(best))
    about = {
        "study": sweep.name,
        "trial": best.number,
        "score": best.value,
        "scores": best.user_attrs["scores"],
    }
    try:
        path = write_preset(sweep.folder / "best.json", tuned, about)
        if config.tune.export is not None:
            say(f"scores: {export_scores(config.tune.export, sweep)}")
    except OSError as error:
        raise Incomplete(f"results were not saved: {cannot_write_results(sweep.folder, error)}") from error
    general, _ = defaults_for(Selection(env=tuned.environment.env, core=tuned.agent.core, preset=False))
    program = command_name("ppo")
    say(f"train with the best settings: {program} {shlex.join(['--preset-file', str(path)])}")
    say(f"the same, flag by flag: {command_line(program, [*flags_of(tuned, general), '--no-preset'])}")


def table_of_best(sweep: Sweep) -> Table:
    """Return a table of the trials with the best scores."""
    ranked = sorted(sweep.complete(), key=lambda trial: (-(trial.value or 0.0), trial.number))[:SHOWN]
    rows = [
        (
            str(trial.number),
            f"{trial.value:.4g}",
            listed(trial.user_attrs["scores"]),
            described(sweep.values_of(trial)),
        )
        for trial in ranked
    ]
    columns = ("trial", "score", "by seed", "settings")
    return Table("best trials", columns, frozenset(columns[:2]), (tuple(rows),))


def listed(scores: Sequence[float]) -> str:
    """Return scores in a few digits each."""
    return " ".join(f"{score:.4g}" for score in scores)


def export_scores(path: Path, sweep: Sweep) -> Path:
    """Write the scores of the complete trials: a row for each seed, one column."""
    scores = {f"trial {trial.number}": [trial.user_attrs["scores"]] for trial in sweep.complete()}
    return write_matrices(path, [sweep.space.base.environment.env], scores)


def cli() -> None:
    """Run the script as a command."""
    run_script(main, TuneConfig, failures=(rmc_envs.EnvironmentFailed,))


if __name__ == "__main__":
    cli()

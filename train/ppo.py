"""Train an agent with a memory: `python train/ppo.py --env MiniGrid-MemoryS9-v0 --core rmc`."""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
import dataclasses
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import rmc_envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.agent.acceleration import accelerate
from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.saved import initialize, saved_agent_config, saved_observation_space, split_ids
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.flags import in_flags, parse, parse_some
from rmc_agents.cli.ineffective import ineffective
from rmc_agents.cli.matching import matched, without_widths
from rmc_agents.cli.presets import defaults_for
from rmc_agents.cli.processes import Plan, choose_processes, device_of, follow_process_0, train_by_plan
from rmc_agents.cli.resume import require_named, require_same, resumed, run_to_resume
from rmc_agents.cli.script import checking, choose_device, require_room, resumable, run_script
from rmc_agents.errors import UsageError, shown
from rmc_agents.evaluation.periodic import PeriodicEvaluation
from rmc_agents.plugins import import_modules, load_installed
from rmc_agents.runs.files import portable_name
from rmc_agents.runs.folder import best_checkpoint, checkpoints, free_run_dir, require_no_run
from rmc_agents.training.callbacks import Callback
from rmc_agents.training.processes import ALONE, Processes, share_of
from rmc_agents.training.progress import say
from rmc_agents.training.rng import keep_global_generators
from rmc_agents.training.trackers import make_trackers

NOT_SAVED = ("device", "threads", "compile", "graphs", "checkpoint_seconds", "keep_checkpoints")
"""Flags that a run folder does not keep."""


def main(args: Sequence[str]) -> None:
    """Parse the flags, build environments and agent, train."""
    follow_process_0(train)
    with checking():
        config, saved, notes = configure(args)
        device = _device_of(config)
        number, more_notes = number_of_processes(config, saved, device)
        # A run that was killed before its first checkpoint starts again.
        restore = config.run.resume is not None and bool(checkpoints(config.run.resume))
    train_by_plan(train, Plan(config, device, restore, number, [*notes, *more_notes], saved))


def configure(args: Sequence[str]) -> tuple[RunConfig, RunConfig | None, list[str]]:
    """Return the configuration that the flags ask for, that of the resumed run, and notes for the user.

    Raises:
        ValueError: flags that do not fit.
    """
    selection = parse_some(Selection, args)
    resume = run_to_resume(selection)
    notes = load_installed()
    import_modules(selection.imports)
    if resume:
        default, preset = resumed(resume), None
    else:
        own = rmc_envs.spaces_of(selection.env, selection.env_options) if selection.preset else None
        default, preset = defaults_for(selection, own)
        default = without_widths(default, selection)
        if selection.init_from is not None:
            default = dataclasses.replace(default, agent=_trained_agent(selection.init_from, selection.core))
    about = f"Defaults: {preset}" if preset else "Defaults: general settings (no preset)"
    config = parse(RunConfig, default, args, command_name("ppo"), f"{RunConfig.__doc__}\n\n{about}")
    config = merge_options(default, config)
    if config.run.init_from is not None:  # the same folder, wherever the run is resumed
        here = config.run.init_from.resolve()
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, init_from=here))
    if resume:
        require_same(default, config)
    elif config.run.may_change and not config.run.auto_resume:
        raise UsageError("--may-change lists flags that may differ from a resumed run: give --resume, too")
    return config, default if resume else None, [*([preset] if preset else []), *notes]


def _trained_agent(path: Path, core: str | None) -> AgentConfig:
    """Return the configuration of the agent of --init-from.

    Raises:
        UsageError: there is none, or one with another core than --core names.
    """
    if str(path) == ".":  # what an empty path becomes
        raise UsageError("--init-from needs the run folder, checkpoint or shared folder to start from")
    agent = saved_agent_config(path)
    if core not in (None, agent.core):
        raise UsageError(f"--init-from {path} holds an agent with --core {agent.core}, not {core}")
    return agent


def number_of_processes(
    config: RunConfig, saved: RunConfig | None, device: torch.device
) -> tuple[int, list[str]]:
    """Return the number of processes that train, and notes for the user.

    Args:
        config: the configuration.
        saved: that of the resumed run.
        device: where to train.

    Raises:
        ValueError: environments or minibatches cannot be divided among them.
    """
    ppo, environment, run = config.ppo, config.environment, config.run
    number, notes = choose_processes(
        run.processes,
        saved=None if saved is None else saved.run.processes,
        sequences=ppo.minibatch_size // ppo.bptt_length,
        envs=environment.num_envs,
        steps=ppo.total_steps,
        threads=run.threads,
        # Gymnasium's environments have processes of their own, or take turns with the network.
        helpful=device.type == "cpu"
        and environment.vectorization == "auto"
        and rmc_envs.native(environment.ids) is not None,
    )
    ppo.share_of(number)
    share_of(environment.num_envs, number, "num_envs")
    return number, notes


def train(
    processes: Processes,
    config: RunConfig,
    device: torch.device,
    restore: bool,
    notes: Sequence[str] = (),
    saved: RunConfig | None = None,
) -> None:
    """Train in one process of a run.

    Args:
        processes: of the run.
        config: the configuration.
        device: where to train.
        restore: whether to continue from a checkpoint.
        notes: for the user.
        saved: the configuration of the resumed run.
    """
    with checking():
        import_modules(config.run.imports)
        trainer = build(config, processes, device)
        notes = [*notes, *ineffective(config, trainer, saved)] if processes.rank == 0 else []
        notes += accelerate(trainer.agent, config.run.precision, config.run.compile)
        notes += trainer.restore() if restore else []
        total = config.ppo.total_steps
        if saved is not None and trainer.steps > total != saved.ppo.total_steps:
            raise ValueError(f"--total-steps {total:,}: the run has already trained for {trainer.steps:,}")
    for note in notes:
        say(trainer.wording(note))
    say(f"run folder: {trainer.run_dir}")
    try:
        with resumable("ppo", trainer.run_dir, config.run, NOT_SAVED):
            trainer.run()
    finally:
        trainer.env.close()
        if trainer.evaluation is not None:
            trainer.evaluation.close()
    say(f"trained for {trainer.steps:,} steps in {trainer.seconds:.0f} s: {why_it_ended(trainer)}")
    best = best_checkpoint(trainer.run_dir, "evaluation") if trainer.evaluation is not None else None
    if best is not None:
        say(f"best evaluation: {describe_score(trainer, best[1])}: {best[0]}")
    say(f"evaluate it: {command_name('evaluate')} {shlex.quote(str(trainer.run_dir))}")


def _device_of(config: RunConfig) -> torch.device:
    """Return the device that a configuration asks for."""
    on_device = rmc_envs.runs_on_device(config.environment)
    return choose_device(config.run.device, None if on_device else config.ppo.minibatch_size)


def build(
    config: RunConfig,
    processes: Processes = ALONE,
    device: torch.device | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Build the trainer that a configuration describes, or that of one of several processes.

    Args:
        config: the configuration.
        processes: those that train together.
        device: where to train; the configuration's if None.
        callbacks: besides the trackers of the configuration.

    Raises:
        ValueError: something does not fit; nothing has been written yet.
    """
    environment, run = config.environment, config.run
    if run.threads:
        torch.set_num_threads(run.threads)
    device = device_of(device or _device_of(config), processes)
    run_dir = processes.from_first(lambda: run_dir_of(config))
    config.ppo.check_num_envs(environment.num_envs)
    if "," in (environment.train_on or "") and environment.vectorization != "auto":
        raise ValueError(
            f"--vectorization {environment.vectorization} runs one id, and --train-on (of the preset, if you "
            "gave none) names several: add --no-preset, or --train-on None --no-curriculum"
        )
    num_envs = share_of(environment.num_envs, processes.size, "num_envs")
    with checking(names_options=True):
        env = rmc_envs.build(dataclasses.replace(environment, num_envs=num_envs), device)
    evaluation = None
    try:
        if config.ppo.aux_coef and not env.aux_size:
            raise ValueError(
                f"--aux-coef {config.ppo.aux_coef:g}: {environment.env} has no auxiliary targets"
                + (
                    ""
                    if environment.vectorization == "auto"
                    else f" with --vectorization {environment.vectorization}: add --aux-coef 0"
                )
            )
        if config.ppo.teacher_coef and not env.has_teacher:
            raise ValueError(
                f"--teacher-coef {config.ppo.teacher_coef:g}: {environment.ids} has no teacher with "
                f"--vectorization {environment.vectorization} and these --env-options: leave it out, or "
                "train in another task"
            )
        evaluation = make_evaluation(config, processes, device)
        trainer = Trainer(
            make_agent(config, env, processes).to(device),
            env,
            config.ppo,
            run_dir,
            seed=run.seed,
            checkpoint_seconds=run.checkpoint_seconds,
            keep_checkpoints=run.keep_checkpoints,
            target_success_rate=run.target_success_rate,
            eval_tasks=[task for task in split_ids(environment.env) if task in env.tasks],
            curriculum=environment.curriculum,
            graphs=run.graphs and not run.compile,  # which makes its own
            extra={
                "precision": run.precision,
                "track": run.track,
                "imports": list(run.imports),
                **({"init_from": str(run.init_from)} if run.init_from else {}),
            },
            processes=processes,
            callbacks=[*callbacks, *make_trackers(run.track)] if processes.rank == 0 else (),
            evaluation=evaluation,
        )
        trainer.translate = partial(in_flags, config=RunConfig)
        return trainer
    except BaseException:
        env.close()
        if evaluation is not None:
            evaluation.close()
        raise


def make_evaluation(
    config: RunConfig, processes: Processes, device: torch.device
) -> PeriodicEvaluation | None:
    """Return the evaluation of --eval-every in the environments of --env; None without that flag.

    Raises:
        ValueError: an environment cannot be built.
    """
    run, environment = config.run, config.environment
    if run.eval_every is None:
        return None
    options = {name: value for name, value in environment.env_options.items() if name != "seeding"}
    share = -(-run.eval_episodes // processes.size)
    envs: list[rmc_envs.BatchedEnv] = []
    try:
        for env_id in split_ids(environment.env):
            kind = "batched" if rmc_envs.native(env_id) else rmc_envs.choose_implementation(env_id)
            with keep_global_generators(), checking(names_options=True):
                envs.append(rmc_envs.trials(env_id, kind, share, device, options))
        return PeriodicEvaluation(envs, run.eval_every, run.eval_episodes)
    except BaseException:
        for env in envs:
            env.close()
        raise


def run_dir_of(config: RunConfig) -> Path:
    """Return the run folder.

    Raises:
        UsageError: it is to be a new one, and holds a run.
    """
    run = config.run
    if run.resume:
        return run.resume
    run_dir = require_named(run.run_dir) or free_run_dir(run_name(config))
    require_no_run(run_dir)
    return run_dir


def make_agent(config: RunConfig, env: rmc_envs.BatchedEnv, processes: Processes) -> ActorCritic:
    """Build the agent, with weights drawn from the seed.

    Raises:
        ValueError: it cannot be built, or does not fit into memory.
    """
    run, agent = config.run, config.agent
    observation_space = env.observation_space
    if (resume := run.resume) is not None:  # the agent reads its observations as it did before
        observation_space = processes.from_first(lambda: saved_observation_space(resume))
    else:
        agent = matched(observation_space, env.action_space, agent, run.match_parameters)
    aux_size = env.aux_size if config.ppo.aux_coef else 0
    make = partial(ActorCritic.from_config, observation_space, env.action_space, agent, aux_size=aux_size)
    require_room(make)
    torch.manual_seed(run.seed)
    try:
        with checking(names_options=True):
            made = make()
        if run.init_from is not None and resume is None:
            initialize(made, run.init_from)
        return made
    except UsageError as error:
        if not isinstance(error.__cause__, TypeError):
            raise
        mistake = f"core {agent.core} cannot be built with {shown(agent.core_options)}: {error}"
        raise UsageError(mistake) from error
    except RuntimeError as error:  # what torch says of sizes that do not fit into memory
        raise ValueError(f"no agent of these sizes can be built: {shown(error)}") from error


def merge_options(default: RunConfig, config: RunConfig) -> RunConfig:
    """Add the options and modules that were given to those of the preset, or of the resumed run."""
    environment, agent, run = config.environment, config.agent, config.run
    env_options = {**default.environment.env_options, **environment.env_options}
    core_options = {**default.agent.core_options, **agent.core_options}
    imports = tuple(dict.fromkeys([*default.run.imports, *run.imports]))
    return dataclasses.replace(
        config,
        environment=dataclasses.replace(environment, env_options=env_options),
        agent=dataclasses.replace(agent, core_options=core_options),
        run=dataclasses.replace(run, imports=imports),
    )


def run_name(config: RunConfig) -> str:
    """Return ENV-CORE-sSEED, in characters that every file system accepts."""
    env = config.environment.env.replace("MiniGrid-", "").replace("-v0", "").replace(",", "+")
    return portable_name(f"{env}-{config.agent.core}-s{config.run.seed}".lower())


def describe_score(trainer: Trainer, score: Sequence[float]) -> str:
    """Return the score of an evaluation in words."""
    success = "" if trainer.env.reports_success is False else f"success {score[0]:.3f}, "
    return f"{success}return {score[1]:.3f}"


def why_it_ended(trainer: Trainer) -> str:
    """Say whether the target was reached, and how much of the budget was used."""
    share = f"{100 * trainer.steps / trainer.config.total_steps:.0f} % of the budget"
    if not trainer.target_reached:
        return "budget used up" if trainer.steps >= trainer.config.total_steps else f"stopped at {share}"
    return f"target success rate of {trainer.target_success_rate:g} reached at {share}"


def cli() -> None:
    """Run the script as a command."""
    run_script(main, RunConfig, failures=(rmc_envs.EnvironmentFailed,))


if __name__ == "__main__":
    cli()

"""Train an agent that remembers: `python train/ppo.py --env MiniGrid-MemoryS9-v0 --core rmc`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

import envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.checkpoint import checkpoints, free_run_dir, require_no_run
from rmc_agents.cli import choose_device, parse, resume_command, run_script
from rmc_agents.config import RunConfig
from rmc_agents.errors import Interrupted, UsageError
from rmc_agents.execution import run_networks
from rmc_agents.presets import preset_of
from rmc_agents.resume import require_same, resumed, run_to_resume
from rmc_agents.runs import names


def main(args: Sequence[str]) -> None:
    """Parse the flags, build environments and agent, train."""
    resume = run_to_resume(args)
    default = resumed(Path(resume)) if resume else preset_of(args)
    try:
        config = parse(RunConfig, default, args, prog="train/ppo.py")
        config = over_preset(default, config)
        if resume:
            require_same(default, config)
        trainer, run_dir = build(config)
        notes = run_networks(trainer.agent, config.precision, config.compile)
        # A run that was killed before it first saved begins again.
        notes += trainer.restore() if resume and checkpoints(run_dir) else []
    except ValueError as error:
        raise UsageError(str(error)) from error
    for note in notes:
        print(note)
    print(f"run folder: {run_dir}", flush=True)
    try:
        trainer.run()
    except Interrupted as stop:
        command = resume_command("train/ppo.py", run_dir, args)
        raise Interrupted(f"{stop}\ngo on with: {command}", stop.signal) from None
    finally:
        trainer.env.close()
    print(f"trained for {trainer.steps:,} steps in {trainer.seconds:.0f} s")
    print(f"evaluate it: python train/evaluate.py {run_dir}")


def build(config: RunConfig) -> tuple[Trainer, Path]:
    """The trainer that a configuration describes, and its run folder.

    Raises:
        ValueError: anything that does not fit, before anything is written.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    run_dir = config.resume or config.run_dir or free_run_dir(run_name(config))
    if not config.resume:
        require_no_run(run_dir)
    config.ppo.check_num_envs(config.num_envs)
    if "," in (config.train_on or "") and config.vectorization != "auto":
        raise ValueError(
            f"--vectorization {config.vectorization} plays one id, and --train-on (of the preset, if you "
            "gave none) names several: add --train-on None --no-curriculum"
        )
    env = envs.make(
        config.train_on or config.env,
        config.num_envs,
        device,
        config.vectorization,
        config.env_timeout,
        config.restart_crashed_envs,
        **config.env_options,
    )
    if config.ppo.hint_coef and not env.hint_size:
        raise ValueError(f"--hint-coef {config.ppo.hint_coef:g}: {config.env} has no hints; leave it out")
    torch.manual_seed(config.seed)
    try:
        agent = ActorCritic(
            env.observation_space,
            env.action_space,
            config.core,
            config.core_options,
            features=config.features,
            hidden_size=config.hidden_size,
            critic_memory=config.critic_memory,
            previous_action=config.previous_action,
            previous_reward=config.previous_reward,
            skip=config.skip,
            hint_size=env.hint_size if config.ppo.hint_coef else 0,
        ).to(device)
    except (RuntimeError, TypeError) as error:  # what torch says of a width of -1 or of "x"
        raise ValueError(
            f"no agent of these sizes can be built: {str(error).splitlines()[0][:200]}"
        ) from error
    description = {
        "env": {
            "id": config.env,
            "train_on": config.train_on,
            "curriculum": config.curriculum,
            "options": config.env_options,
            "num_envs": config.num_envs,
            "vectorization": config.vectorization,
            "timeout": config.env_timeout,
            "restart": config.restart_crashed_envs,
        },
        "stop_at_success": config.stop_at_success,
        "precision": config.precision,
    }
    trainer = Trainer(
        agent,
        env,
        config.ppo,
        run_dir,
        seed=config.seed,
        description=description,
        checkpoint_seconds=config.checkpoint_seconds,
        keep_checkpoints=config.keep_checkpoints,
        stop_at_success=config.stop_at_success,
        judged_by=[task for task in names(config.env) if task in env.tasks],
        curriculum=config.curriculum,
    )
    return trainer, run_dir


def over_preset(default: RunConfig, config: RunConfig) -> RunConfig:
    """Options that were given go over those of the preset, key by key."""
    return dataclasses.replace(
        config,
        env_options={**default.env_options, **config.env_options},
        core_options={**default.core_options, **config.core_options},
    )


def run_name(config: RunConfig) -> str:
    """ENV-CORE-SEED."""
    env = config.env.replace("MiniGrid-", "").replace("-v0", "").replace("/", "-").replace(",", "+")
    return f"{env}-{config.core}-s{config.seed}".lower()


if __name__ == "__main__":
    run_script(main, failures=(envs.EnvironmentFailed,))

"""Train an agent that remembers: `python train/ppo.py --env MiniGrid-MemoryS9-v0 --core rmc`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.checkpoint import checkpoints, read_config, read_newest, require_fit
from rmc_agents.cli import choose_device, flag_value, parse, run_script
from rmc_agents.config import Option, RunConfig
from rmc_agents.errors import Interrupted, UsageError
from rmc_agents.ppo import PPOConfig
from rmc_agents.presets import preset


def main(args: Sequence[str]) -> None:
    """Parse the flags, build environments and agent, train."""
    resume = flag_value(args, "--resume") or run_to_resume(args)
    default = resumed(Path(resume)) if resume else preset(flag_value(args, "--env") or RunConfig.env)
    try:
        config = parse(RunConfig, default, args, prog="train/ppo.py")
        config = over_preset(default, config)
        if resume:
            require_same(default, config)
        trainer, run_dir = build(config)
        # A run that was killed before it first saved begins again.
        notes = trainer.restore() if resume and checkpoints(run_dir) else []
    except ValueError as error:
        raise UsageError(str(error)) from error
    for note in notes:
        print(note)
    print(f"run folder: {run_dir}", flush=True)
    try:
        trainer.run()
    except Interrupted as stop:
        command = shlex.join(["python", "train/ppo.py", "--resume", str(run_dir)])
        raise Interrupted(f"{stop}\ngo on with: {command}", stop.signal) from None
    finally:
        trainer.env.close()
    print(f"trained for {trainer.steps:,} steps in {trainer.seconds:.0f} s")
    print(f"evaluate it: python train/evaluate.py {run_dir}")


def run_to_resume(args: Sequence[str]) -> str | None:
    """The --run-dir of --auto-resume, if it holds a run already."""
    if "--auto-resume" not in args:
        return None
    run_dir = flag_value(args, "--run-dir")
    if run_dir is None:
        raise UsageError(
            "--auto-resume goes on with the run in --run-dir, if there is one: say --run-dir too"
        )
    return run_dir if (Path(run_dir) / "config.json").exists() else None


def build(config: RunConfig) -> tuple[Trainer, Path]:
    """The trainer that a configuration describes, and its run folder.

    Raises:
        ValueError: anything that does not fit, before anything is written.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    run_dir = config.resume or config.run_dir or free_run_dir(config)
    if not config.resume and checkpoints(run_dir):
        raise UsageError(
            f"{run_dir} already holds a run: go on with --resume {run_dir}, or choose another --run-dir"
        )
    config.ppo.check_num_envs(config.num_envs)
    env = envs.make(
        config.train_on or config.env,
        config.num_envs,
        device,
        config.vectorization,
        config.env_timeout,
        config.restart_crashed_envs,
        **config.env_options,
    )
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
        ).to(device)
    except (RuntimeError, TypeError) as error:  # what torch says of a width of -1 or of "x"
        raise ValueError(
            f"no agent of these sizes can be built: {str(error).splitlines()[0][:200]}"
        ) from error
    description = {
        "env": {
            "id": config.env,
            "train_on": config.train_on,
            "options": config.env_options,
            "num_envs": config.num_envs,
            "vectorization": config.vectorization,
            "timeout": config.env_timeout,
            "restart": config.restart_crashed_envs,
        },
        "stop_at_success": config.stop_at_success,
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
    )
    return trainer, run_dir


def over_preset(default: RunConfig, config: RunConfig) -> RunConfig:
    """Options that were given go over those of the preset, key by key; another core starts without them."""
    same_core = default.core == config.core
    return dataclasses.replace(
        config,
        env_options={**default.env_options, **config.env_options},
        core_options={**default.core_options, **config.core_options} if same_core else config.core_options,
    )


def free_run_dir(config: RunConfig) -> Path:
    """runs/ENV-CORE-SEED, with a number behind it where that is taken."""
    env = config.env.replace("MiniGrid-", "").replace("-v0", "").replace("/", "-").replace(",", "+")
    base = f"{env}-{config.core}-s{config.seed}".lower()
    tries = (Path("runs") / (base if n == 1 else f"{base}-{n}") for n in range(1, 10_000))
    return next(path for path in tries if not path.exists())


def resumed(run_dir: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        UsageError: no run, or a config.json or checkpoint that is not of one.
    """
    saved = read_config(run_dir)
    try:
        config = configured(saved, run_dir)
        for part in (config, config.ppo):
            require_types(part)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{run_dir}/config.json does not describe a run to go on with: {reason}") from error
    if checkpoints(run_dir):
        # Before anything is built in the sizes that config.json claims.
        path, payload, _ = read_newest(run_dir)
        require_fit(saved, payload, path)
        running = payload.get("running")
        if not isinstance(running, list) or [len(x) for x in running] != [config.num_envs] * 2:
            raise UsageError(f"{path} belongs to a run of other than {config.num_envs} environments")
    return config


def configured(saved: dict[str, Any], run_dir: Path) -> RunConfig:
    """What a config.json says, unchecked."""
    agent, env = saved["agent"], saved["env"]
    return RunConfig(
        env=env["id"],
        train_on=env.get("train_on"),
        env_options=env["options"],
        num_envs=env["num_envs"],
        vectorization=env["vectorization"],
        env_timeout=env.get("timeout", RunConfig.env_timeout),
        restart_crashed_envs=env.get("restart", RunConfig.restart_crashed_envs),
        core=agent["core"],
        core_options=agent["core_options"],
        features=agent["features"],
        hidden_size=agent["hidden_size"],
        critic_memory=agent["critic_memory"],
        previous_action=agent["previous_action"],
        previous_reward=agent["previous_reward"],
        skip=agent["skip"],
        ppo=PPOConfig(**saved["ppo"]),
        stop_at_success=saved["stop_at_success"],
        seed=saved["seed"],
        resume=run_dir,
    )


def require_types(config: RunConfig | PPOConfig) -> None:
    """Raise TypeError for a field of another type than its default's, or than what it may be beside None."""
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(type(config), field.name, {})
        if field.name in ("run_dir", "resume", "ppo"):
            continue
        optional = (str,) if "str" in str(field.type) else (int, float)
        kinds = {float: (int, float), type(None): (*optional, type(None))}
        if type(value) not in kinds.get(type(default), (type(default),)):
            raise TypeError(f"{field.name} is {str(value)[:60]!r}")
        if isinstance(value, dict) and not all(isinstance(option, Option) for option in value.values()):
            raise TypeError(f"{field.name} is {str(value)[:60]!r}")


FREE = {"device", "threads", "checkpoint_seconds", "keep_checkpoints", "stop_at_success", "total_steps"}
FREE |= {"env_timeout", "restart_crashed_envs", "run_dir", "auto_resume", "may_change"}
"""What a resumed run may have otherwise without being told so: how far, where, how often it is saved."""


def require_same(saved: RunConfig, asked: RunConfig) -> None:
    """Raise UsageError if a resumed run was asked to be another run."""
    allowed = {name.lstrip("-").replace("-", "_") for name in asked.may_change}
    pairs = [(f.name, saved, asked) for f in dataclasses.fields(RunConfig) if f.name != "ppo"]
    pairs += [(f.name, saved.ppo, asked.ppo) for f in dataclasses.fields(PPOConfig)]
    unknown = allowed - {name for name, _, _ in pairs}
    if unknown:
        raise UsageError(f"--may-change {' '.join(sorted(unknown))}: there is no such flag")
    changed = [
        f"--{name.replace('_', '-')} was {getattr(old, name)}, asked for {getattr(new, name)}"
        for name, old, new in pairs
        if name not in FREE | allowed and getattr(old, name) != getattr(new, name)
    ]
    if changed:
        raise UsageError(
            "a resumed run cannot change: "
            + "; ".join(changed)
            + ". Leave these flags out, say --may-change NAME, or start a new run without --resume"
        )
    if asked.run_dir is not None and asked.resume is not None and asked.run_dir != asked.resume:
        raise UsageError(f"--resume {asked.resume} goes on in that folder, not in --run-dir {asked.run_dir}")


if __name__ == "__main__":
    run_script(main, failures=(envs.EnvironmentFailed,))

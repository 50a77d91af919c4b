"""Train an agent that remembers: `python train/ppo.py --env MiniGrid-MemoryS9-v0 --core rmc`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

import envs
from rmc_agents import ActorCritic, Trainer
from rmc_agents.checkpoint import checkpoints, read_config
from rmc_agents.cli import choose_device, flag_value, parse, run_script
from rmc_agents.config import RunConfig
from rmc_agents.errors import UsageError
from rmc_agents.ppo import PPOConfig
from rmc_agents.presets import preset


def main(args: Sequence[str]) -> None:
    """Parse the flags, build environments and agent, train."""
    resume = flag_value(args, "--resume")
    default = resumed(Path(resume)) if resume else preset(flag_value(args, "--env") or RunConfig.env)
    try:
        config = parse(RunConfig, default, args, prog="train/ppo.py")
        config = over_preset(default, config)
        if resume:
            require_same(default, config)
        trainer, run_dir = build(config)
        notes = trainer.restore() if resume else []
    except ValueError as error:
        raise UsageError(str(error)) from error
    for note in notes:
        print(note)
    print(f"run folder: {run_dir}", flush=True)
    trainer.run()
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
    run_dir = config.resume or config.run_dir or free_run_dir(config)
    if not config.resume and checkpoints(run_dir):
        raise UsageError(
            f"{run_dir} already holds a run: go on with --resume {run_dir}, or choose another --run-dir"
        )
    config.ppo.check_num_envs(config.num_envs)
    env = envs.make(config.env, config.num_envs, device, config.vectorization, **config.env_options)
    torch.manual_seed(config.seed)
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
    description = {
        "env": {
            "id": config.env,
            "options": config.env_options,
            "num_envs": config.num_envs,
            "vectorization": config.vectorization,
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
    """The configuration that a run was started with."""
    saved = read_config(run_dir)
    agent, env = saved["agent"], saved["env"]
    return RunConfig(
        env=env["id"],
        env_options=env["options"],
        num_envs=env["num_envs"],
        vectorization=env["vectorization"],
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


def require_same(saved: RunConfig, asked: RunConfig) -> None:
    """Raise UsageError if a resumed run was asked to be another run."""
    free = {"device", "threads", "checkpoint_seconds", "stop_at_success", "ppo", "ppo.total_steps"}
    pairs = [(f.name, saved, asked) for f in dataclasses.fields(RunConfig)]
    pairs += [(f"ppo.{f.name}", saved.ppo, asked.ppo) for f in dataclasses.fields(PPOConfig)]
    changed = [
        f"--{key.replace('_', '-')} was {getattr(old, key)}, asked for {getattr(new, key)}"
        for name, old, new in pairs
        if name not in free and getattr(old, key := name.removeprefix("ppo.")) != getattr(new, key)
    ]
    if changed:
        raise UsageError(
            "a resumed run cannot change: "
            + "; ".join(changed)
            + ". Leave these flags out, or start a new run without --resume"
        )


if __name__ == "__main__":
    run_script(main, failures=(envs.EnvironmentFailed,))

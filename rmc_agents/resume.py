"""Going on with a run that `python train/ppo.py` began: what it was, and what may not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmc_agents.checkpoint import checkpoints, read_config, read_newest, require_fit
from rmc_agents.cli import flag_value
from rmc_agents.config import Option, RunConfig
from rmc_agents.errors import UsageError
from rmc_agents.ppo import PPOConfig


def run_to_resume(args: Sequence[str]) -> str | None:
    """The run of --resume, or the --run-dir of --auto-resume if it holds a run already."""
    resume = flag_value(args, "--resume")
    if resume is not None:
        if not resume:
            raise UsageError("--resume goes on with a run: say which folder")
        return resume
    if "--auto-resume" not in args:
        return None
    run_dir = flag_value(args, "--run-dir")
    if run_dir is None:
        raise UsageError(
            "--auto-resume goes on with the run in --run-dir, if there is one: say --run-dir too"
        )
    return run_dir if (Path(run_dir) / "config.json").exists() else None


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
        curriculum=env.get("curriculum", RunConfig.curriculum),
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
        precision=saved.get("precision", RunConfig.precision),
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
FREE |= {"compile", "env_timeout", "restart_crashed_envs", "run_dir", "auto_resume", "may_change"}
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
    require_same_folder(asked.resume, asked.run_dir)


def require_same_folder(resume: Path | None, run_dir: Path | None) -> None:
    """Raise UsageError if a run is to go on in another folder than its own."""
    if run_dir is not None and resume is not None and run_dir != resume:
        raise UsageError(f"--resume {resume} goes on in that folder, not in --run-dir {run_dir}")

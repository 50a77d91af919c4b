"""Resuming a run of `python train/ppo.py`: its configuration, and which flags may not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.saved import require_fit
from rmc_agents.cli.config import RunConfig, RunOptions
from rmc_agents.cli.script import current_flag
from rmc_agents.environment import EnvConfig
from rmc_agents.errors import UsageError
from rmc_agents.options import require_types
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints, read_config

RESUME_MAY_CHANGE = {
    *("device", "threads", "compile", "checkpoint_seconds", "keep_checkpoints"),
    *("target_success_rate", "total_steps", "env_timeout", "restart_crashed_envs"),
    *("run_dir", "resume", "auto_resume", "may_change", "imports", "preset"),
}
"""Flags whose value may change on resume: budget, device, checkpointing."""


def run_to_resume(resume: Path | None, auto_resume: bool, run_dir: Path | None) -> Path | None:
    """Return the run of --resume, or that of --run-dir with --auto-resume if it holds a run already.

    Raises:
        UsageError: the flags are incomplete.
    """
    if resume is not None:
        if str(resume) == ".":  # what an empty path becomes
            raise UsageError("--resume needs the run folder to resume")
        return resume
    if not auto_resume:
        return None
    if run_dir is None:
        raise UsageError("--auto-resume resumes the run in --run-dir, if there is one: give --run-dir too")
    return run_dir if (run_dir / "config.json").exists() else None


def resumed(run_dir: Path) -> RunConfig:
    """Return the configuration that a run was started with.

    Raises:
        UsageError: no run, or a config.json or checkpoint that is not of one.
    """
    saved = read_config(run_dir)
    if "agent" in saved and "environment" not in saved:
        raise UsageError(
            f"{run_dir}/config.json does not say how its environments were made (rmc_envs.make did not make "
            "them): resume it from Python, with Trainer.restore()"
        )
    try:
        config = configured(saved, run_dir)
        for part in (config.agent, config.ppo):  # the others check their types themselves
            require_types(part)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{run_dir}/config.json does not describe a run to resume: {reason}") from error
    if checkpoints(run_dir):
        # Before anything is built in the sizes that config.json claims.
        path, payload, _ = read_newest(run_dir)
        require_fit(saved, payload, path)
        if "optimizer" not in payload:
            raise UsageError(f"{path} holds an agent only, which can be evaluated but not resumed")
        running, num_envs = payload.get("running"), config.environment.num_envs
        if not isinstance(running, list) or [len(x) for x in running] != [num_envs] * 2:
            raise UsageError(f"{path} belongs to a run of other than {num_envs} environments")
    return config


def configured(saved: dict[str, Any], run_dir: Path) -> RunConfig:
    """Return what a config.json says, with the types of its values unchecked."""
    return RunConfig(
        environment=EnvConfig(**saved["environment"]),
        agent=AgentConfig(**saved["agent"]),
        ppo=PPOConfig(**saved["ppo"]),
        run=RunOptions(
            target_success_rate=saved["target_success_rate"],
            precision=saved.get("precision", RunOptions.precision),
            imports=tuple(saved.get("imports", ())),
            seed=saved["seed"],
            resume=run_dir,
        ),
    )


def require_same(saved: RunConfig, asked: RunConfig) -> None:
    """Raise UsageError if a flag changes a setting that is fixed on resume."""
    flags = [current_flag(f"--{name.lstrip('-')}") for name in asked.run.may_change]
    allowed = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    pairs = list(_pairs(saved, asked))
    unknown = allowed - {name for name, _, _ in pairs}
    if unknown:
        raise UsageError(f"--may-change {' '.join(sorted(unknown))}: there is no such flag")
    changed = [
        f"--{name.replace('_', '-')} was {old}, now {new}"
        for name, old, new in pairs
        if name not in RESUME_MAY_CHANGE | allowed and old != new
    ]
    if changed:
        raise UsageError(
            f"a resumed run cannot change: {'; '.join(changed)}. Leave these flags out, add "
            "--may-change NAME, or start a new run without --resume"
        )
    require_same_folder(asked.run.resume, asked.run.run_dir)


def _pairs(saved: RunConfig, asked: RunConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield each flag's name with its saved and its new value."""
    for part in dataclasses.fields(RunConfig):
        old, new = getattr(saved, part.name), getattr(asked, part.name)
        for field in dataclasses.fields(old):
            yield field.name, getattr(old, field.name), getattr(new, field.name)


def require_same_folder(resume: Path | None, run_dir: Path | None) -> None:
    """Raise UsageError if a run is to be resumed in another folder than its own."""
    if run_dir is not None and resume is not None and run_dir != resume:
        raise UsageError(f"--resume {resume} continues in that folder, not in --run-dir {run_dir}")

"""Resuming a run: its configuration, and which flags may not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.saved import require_fit
from rmc_agents.cli.config import RunConfig, RunOptions, Start
from rmc_agents.cli.flags import current_flag
from rmc_agents.environment import EnvConfig
from rmc_agents.errors import UsageError, shown
from rmc_agents.options import require_types
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.training.snapshot import OTHERS

RESUME_MAY_CHANGE = {
    *("device", "threads", "processes", "compile", "graphs", "checkpoint_seconds", "keep_checkpoints"),
    *("target_success_rate", "total_steps", "env_timeout", "restart_crashed_envs"),
    *("run_dir", "resume", "auto_resume", "may_change", "imports", "preset", "preset_file", "scale"),
    "match_parameters",
    *("eval_every", "eval_episodes", "track"),
}
"""Flags of `train/ppo.py` whose value may change on resume: budget, device, checkpointing."""
NEVER_CHANGE = {
    *("core", "features", "hidden_size", "critic_memory", "skip", "reconstruct", "normalize_observations"),
    *("previous_action", "previous_reward", "start_flag", "clock", "num_envs", "train_on"),
}
"""Flags on which the form of a checkpoint's weights and memories depends."""


def run_to_resume(start: Start) -> Path | None:
    """Return the run of --resume, or that of --run-dir with --auto-resume if it holds a run already.

    Raises:
        UsageError: the flags are incomplete, or exclude each other.
    """
    resume, run_dir = start.resume, start.run_dir
    if resume is not None:
        if start.auto_resume:
            raise UsageError(
                "--resume and --auto-resume exclude each other: --resume names the run, --auto-resume "
                "finds it in --run-dir"
            )
        if str(resume) == ".":  # what an empty path becomes
            raise UsageError("--resume needs the run folder to resume")
        return resume
    if not start.auto_resume:
        return None
    if run_dir is None:
        raise UsageError("--auto-resume resumes the run in --run-dir, if there is one: give --run-dir too")
    return run_dir if (run_dir / "config.json").exists() else None


def require_named(run_dir: Path | None) -> Path | None:
    """Return the folder of --run-dir; raise UsageError if it was given without a name."""
    if run_dir is not None and str(run_dir) == ".":  # what an empty path becomes
        raise UsageError("--run-dir needs the name of a folder, such as runs/NAME")
    return run_dir


def resumed(run_dir: Path) -> RunConfig:
    """Return the configuration that a run of `train/ppo.py` was started with.

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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_resumable(run_dir, error) from error
    if checkpoints(run_dir):
        # Before anything is built in the sizes that config.json claims.
        path, payload, _ = read_newest(run_dir)
        require_fit(saved, payload, path)
        if "optimizer" not in payload:
            raise UsageError(f"{path} holds an agent only, which can be evaluated but not resumed")
        num_envs = config.environment.num_envs
        if _saved_envs(payload) != num_envs:
            raise UsageError(f"{path} belongs to a run of other than {num_envs} environments")
    return config


def processes_of(saved: dict[str, Any]) -> int:
    """Return the number of processes that a config.json names; older ones name none, since there was one.

    Raises:
        ValueError: it is no number of processes.
    """
    number = saved.get("processes", 1)
    if type(number) is not int or number < 1:
        raise ValueError(f"processes={shown(number, 40)}: expected 1 or more")
    return number


def _saved_envs(payload: dict[str, Any]) -> int | None:
    """Return the number of environments of a checkpoint, over all processes; None if it does not say."""
    others = payload.get(OTHERS, [])
    parts = [payload, *others] if isinstance(others, list) else []
    total = 0
    for part in parts:
        running = part.get("running") if isinstance(part, dict) else None
        if not isinstance(running, list) or len(running) != 2 or len({len(x) for x in running}) != 1:
            return None
        total += len(running[0])
    return total


def not_resumable(run_dir: Path, error: Exception) -> UsageError:
    """Return the error for a config.json from which no configuration can be made."""
    reason = f"it has no {error}" if isinstance(error, KeyError) else shown(error)
    return UsageError(f"{run_dir}/config.json does not describe a run to resume: {reason}")


def configured(saved: dict[str, Any], run_dir: Path) -> RunConfig:
    """Return what a config.json says, with the types of its values unchecked."""
    evaluation = saved.get("evaluation") or {}
    return RunConfig(
        environment=EnvConfig(**saved["environment"]),
        agent=AgentConfig(**saved["agent"]),
        ppo=PPOConfig(**saved["ppo"]),
        run=RunOptions(
            target_success_rate=saved["target_success_rate"],
            precision=saved.get("precision", RunOptions.precision),
            imports=tuple(saved.get("imports", ())),
            seed=saved["seed"],
            init_from=Path(saved["init_from"]) if saved.get("init_from") else None,
            processes=processes_of(saved),
            eval_every=evaluation.get("every"),
            eval_episodes=evaluation.get("episodes", RunOptions.eval_episodes),
            track=saved.get("track", RunOptions.track),
            resume=run_dir,
        ),
    )


def require_same(saved: RunConfig, asked: RunConfig) -> None:
    """Raise UsageError if a flag of `train/ppo.py` changes a setting that is fixed on resume."""
    flags = [current_flag(f"--{name.lstrip('-')}") for name in asked.run.may_change]
    allowed = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    unknown = allowed - {name for name, _, _ in settings(saved, asked)}
    if unknown:
        raise UsageError(f"--may-change {' '.join(sorted(unknown))}: there is no such flag")
    fixed = [
        f"--{name.replace('_', '-')} ({shown(old)})"
        for name, old, new in settings(saved, asked)
        if name in NEVER_CHANGE & allowed and old != new
    ]
    if fixed:
        raise UsageError(
            f"a resumed run cannot change {', '.join(fixed)}, even with --may-change: the weights and "
            "memories of its checkpoints would not fit. Leave these flags out or start a new run without "
            "--resume"
        )
    require_unchanged(saved, asked, RESUME_MAY_CHANGE | allowed, ", add --may-change NAME,")
    require_same_folder(asked.run.resume, asked.run.run_dir)


def require_unchanged(saved: Any, asked: Any, may_change: Collection[str], advice: str = "") -> None:
    """Raise UsageError if two configurations differ in a setting that may not change on resume.

    Args:
        saved: the configuration of the run: a dataclass, with nested ones.
        asked: the configuration that the flags ask for.
        may_change: names of the settings that may change.
        advice: what else than leaving the flags out is possible, for the message.
    """
    changed = [
        f"--{name.replace('_', '-')} was {shown(old)}, now {shown(new)}"
        for name, old, new in settings(saved, asked)
        if name not in may_change and old != new
    ]
    if changed:
        raise UsageError(
            f"a resumed run cannot change: {'; '.join(changed)}. Leave these flags out{advice} or start a "
            "new run without --resume"
        )


def settings(saved: Any, asked: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each setting of two dataclasses, nested ones included, with both values."""
    for field in dataclasses.fields(saved):
        old, new = getattr(saved, field.name), getattr(asked, field.name)
        if dataclasses.is_dataclass(old):
            yield from settings(old, new)
        else:
            yield field.name, old, new


def require_same_folder(resume: Path | None, run_dir: Path | None) -> None:
    """Raise UsageError if a run is to be resumed in another folder than its own."""
    if run_dir is not None and resume is not None and run_dir != resume:
        raise UsageError(f"--resume {resume} continues in that folder, not in --run-dir {run_dir}")

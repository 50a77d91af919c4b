"""Presets in files: settings that a sweep found, as defaults of the flags, and as a whole command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig, RunOptions
from rmc_agents.environment import EnvConfig
from rmc_agents.errors import UsageError, shown
from rmc_agents.options import require_types
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.runs.files import read_regular, write_json

MAX_BYTES = 2**20
"""Largest file of a preset that is read."""
_PARTS = {"environment": EnvConfig, "agent": AgentConfig, "ppo": PPOConfig}


def write_preset(path: Path, config: RunConfig, about: Mapping[str, Any] | None = None) -> Path:
    """Write the settings of a configuration as a preset; return the path.

    Args:
        path: of the file.
        config: its environment, agent, PPO, target and imports are written.
        about: where the settings come from, for the reader.

    Raises:
        OSError: it cannot be written.
    """
    parts = {name: asdict(getattr(config, name)) for name in _PARTS}
    own = {"target_success_rate": config.run.target_success_rate, "imports": list(config.run.imports)}
    write_json(path, {**parts, **own, **({} if about is None else {"about": dict(about)})})
    return path


def read_preset(path: Path) -> RunConfig:
    """Read a preset; settings that it does not name have their general defaults.

    Raises:
        UsageError: there is no such file, or it is not a preset.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large for a preset")
        data = json.loads(read_regular(path))
    except OSError as error:
        raise UsageError(f"preset {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"preset {path} is not JSON: {shown(error)}") from error
    known = (*_PARTS, "target_success_rate", "imports", "about")
    unknown = sorted(set(data) - set(known)) if isinstance(data, dict) else ["no entries"]
    if unknown:
        has = shown(", ".join(unknown))
        raise UsageError(f"{path} is not a preset: it has {has}; expected {', '.join(known)}")
    try:
        parts: dict[str, Any] = {name: part(**data.get(name, {})) for name, part in _PARTS.items()}
        for part in parts.values():
            require_types(part)
        target, imports = data.get("target_success_rate"), data.get("imports", [])
        if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
            raise ValueError(f"imports={shown(imports, 60)}: expected names of modules")
        return RunConfig(**parts, run=RunOptions(target_success_rate=target, imports=tuple(imports)))
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is not a preset: {shown(error)}") from error


def preset_for(path: Path, core: str | None) -> tuple[RunConfig, str]:
    """Return the configuration of a preset, and one line about it.

    Args:
        path: of the file.
        core: of the user; options in the preset belong to its own core.

    Raises:
        UsageError: there is no such preset.
    """
    config = read_preset(path)
    if core not in (None, config.agent.core):
        config = replace(config, agent=replace(config.agent, core_options={}))
    config = replace(config, run=replace(config.run, preset_file=path))
    return config, f"preset of {path}, tuned for {config.agent.core} on {config.environment.env}"


def flags_of(config: RunConfig, default: RunConfig) -> list[str]:
    """Return the words of the command line that turn one configuration into another.

    `--env` and `--core` come first, since the defaults of the others depend on them.
    """
    words = ["--env", config.environment.env, "--core", config.agent.core]
    for part in _PARTS:
        new, old = vars(getattr(config, part)), vars(getattr(default, part))
        for name, value in new.items():
            if name not in ("env", "core") and value != old[name]:
                words += _flag(name, value, old[name])
    if config.run.target_success_rate != default.run.target_success_rate:
        words += _flag("target_success_rate", config.run.target_success_rate, None)
    for module in config.run.imports:
        words += ["--import", module]
    return words


def _flag(name: str, value: Any, old: Any) -> Iterator[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
        return
    yield f"--{flag}"
    if isinstance(value, dict):
        yield from (
            f"{key}={option}" for key, option in value.items() if key not in old or old[key] != option
        )
    else:
        yield str(value)


def command_line(program: str, words: list[str]) -> str:
    """Return a command as the user types it."""
    return f"{program} {shlex.join(words)}"

"""Model card of a shared agent: what it is, its figures, and the commands that reproduce them.

The front matter is YAML in the form that Hugging Face expects; JSON strings are valid in it.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.config import AgentConfig
from rmc_agents.environment import EnvConfig
from rmc_agents.errors import printable
from rmc_agents.evaluation.entries import Entry
from rmc_agents.rl.ppo import PPOConfig

TASK = "reinforcement-learning"


def model_card(name: str, agent: ActorCritic, config: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    """Return the text of a model card.

    Args:
        name: of the folder.
        agent: the agent.
        config: its config.json.
        entries: its evaluations, by environment.
    """
    environment = config.get("environment")
    env_id = environment.get("env") if isinstance(environment, Mapping) else None
    parameters = sum(p.numel() for p in agent.parameters())
    where = f" for `{printable(str(env_id))}`" if env_id else ""
    lines = [
        *_front_matter(name, agent.core_name, env_id, entries),
        f"# {printable(name)}",
        "",
        f"An agent with a memory{where}: core `{agent.core_name}`, {parameters:,} parameters, trained with "
        "`rmc_agents`.",
        "",
        *_figures(entries),
        *_use(),
        *_commands(config, env_id),
        "## Observations and actions",
        "",
        "```text",
        *agent.describe().splitlines(),
        "```",
        "",
        *_versions(config),
    ]
    return "\n".join(lines)


def train_command(config: Mapping[str, Any]) -> str | None:
    """Return the command that trains an agent as a config.json says; None if it does not say how."""
    try:
        parts = [
            EnvConfig(**config["environment"]),
            AgentConfig(**config["agent"]),
            PPOConfig(**config["ppo"]),
        ]
    except (KeyError, TypeError, ValueError):
        return None
    words = ["--env", parts[0].env, "--no-preset"]
    for part in parts:
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name != "env" and value != getattr(type(part)(), field.name):
                words += _flag(field.name, value)
    for name, usual in (
        ("seed", 0),
        ("processes", 1),
        ("target_success_rate", None),
        ("precision", "float32"),
    ):
        value = config.get(name, usual)
        if value != usual:
            words += _flag(name, value)
    for module in config.get("imports", ()):
        words += ["--import", str(module)]
    return f"rmc-train {shlex.join(words)}"


def _flag(name: str, value: Any) -> list[str]:
    """Return the words of a flag, as the scripts read them."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, Mapping):
        return [f"--{flag}", *(f"{key}={option}" for key, option in value.items())]
    return [f"--{flag}", str(value)]


def _front_matter(name: str, core: str, env_id: str | None, entries: Mapping[str, Entry]) -> Iterator[str]:
    tags = [TASK, "deep-reinforcement-learning", "memory", core, *([env_id] if env_id else [])]
    yield from ("---", "library_name: rmc-agents", f"pipeline_tag: {TASK}", "tags:")
    yield from (f"- {json.dumps(tag)}" for tag in tags)
    if entries:
        yield from ("model-index:", f"- name: {json.dumps(name)}", "  results:")
    for env, entry in entries.items():
        figures = entry.figures
        yield from ("  - task:", f"      type: {TASK}", f"      name: {TASK}", "    dataset:")
        yield from (f"      name: {json.dumps(env)}", f"      type: {json.dumps(env)}", "    metrics:")
        metrics = {"mean_reward": figures.mean_return, "success_rate": figures.success_rate}
        for metric, value in metrics.items():
            if value is not None:
                yield from (f"    - type: {metric}", f"      name: {metric}", f"      value: {value:.4g}")
                yield "      verified: false"
    yield from ("---", "")


def _figures(entries: Mapping[str, Entry]) -> Iterator[str]:
    if not entries:
        return
    yield from ("## Figures", "", "| environment | success rate | mean return | mean length | episodes |")
    yield "|---|---|---|---|---|"
    for env_id, entry in entries.items():
        x = entry.figures
        success = (
            "-" if x.success_rate is None else f"{100 * x.success_rate:.1f} %{_interval(x.success_ci95, 100)}"
        )
        value = "-" if x.mean_return is None else f"{x.mean_return:.3f}{_interval(x.return_ci95, 1)}"
        length = "-" if x.mean_length is None else f"{x.mean_length:.1f}"
        how = ", drawn actions" if entry.is_drawn else ""
        yield f"| `{printable(env_id)}` | {success} | {value} | {length} | {entry.episodes:,}{how} |"
    yield from ("", "Brackets hold 95 % intervals.", "")


def _interval(ends: tuple[float, float] | None, factor: float) -> str:
    return "" if ends is None else f" [{factor * ends[0]:.3g}, {factor * ends[1]:.3g}]"


def _use() -> Iterator[str]:
    yield from ("## Use", "", "```python", "import rmc_agents", "")
    yield from (
        'agent = rmc_agents.load("path/to/this/folder")',
        "action, state = agent.predict(obs)",
        "```",
        "",
    )
    yield from ("Loading reads numbers and JSON, and runs no code of this folder.", "")


def _commands(config: Mapping[str, Any], env_id: str | None) -> Iterator[str]:
    evaluate = "rmc-evaluate path/to/this/folder" + ("" if env_id else " --env ID")
    train = train_command(config)
    yield from ("## Commands", "", "Evaluate it:", "", "```sh", evaluate, "```", "")
    if train is not None:
        yield from ("Train it again:", "", "```sh", train, "```", "")


def _versions(config: Mapping[str, Any]) -> Iterator[str]:
    found = config.get("versions")
    if isinstance(found, Mapping):
        text = ", ".join(f"{name} {version}" for name, version in found.items())
        yield from (f"Trained with {printable(text)}.", "")

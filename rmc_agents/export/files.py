"""Export of an agent as one file that runs without this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.errors import UsageError, shown
from rmc_agents.export.formats import format_of, open_exported, require_installed, to_bytes
from rmc_agents.export.step import ExportedStep, Slot
from rmc_agents.export.verification import Agreement, compare
from rmc_agents.runs.files import write_atomically
from rmc_agents.runs.versions import versions
from rmc_agents.spaces.serialization import space_to_json

FILE_FORMAT = 1
"""Version of the description in an exported file."""


@dataclass(frozen=True)
class Export:
    """An exported file that was compared with its agent."""

    path: Path
    inputs: dict[str, Slot]
    """By name, in the order of the file."""
    outputs: dict[str, Slot]
    agreement: Agreement


def export_file(
    agent: ActorCritic, path: Path | str, *, sample: bool = False, about: Mapping[str, Any] | None = None
) -> Export:
    """Write one step of an agent as a file: observation, state, episode start -> action, new state.

    See `ExportedStep` for its inputs and outputs. Before it is written, the file is compared with the agent's
    `predict` over random episodes.

    Args:
        agent: any agent; it does not change.
        path: ends in .onnx, or in .pt2 for a program of `torch.export`; an older file is replaced.
        sample: draw actions by means of random numbers that the caller gives, instead of taking the most
            likely ones.
        about: more entries of the file's description, which JSON can hold.

    Raises:
        UsageError: an unknown ending, a missing package, a core that cannot be exported, or a path that
            cannot be written.
        Mismatch: the file would not compute what the agent does.
    """
    path = Path(path)
    kind = format_of(path)
    require_installed(kind)
    step = ExportedStep(agent, sample)
    description = describe_step(step) | dict(about or {})
    try:
        data = to_bytes(step, kind, description)
    except Exception as error:
        if type(agent.core).__module__.startswith("rmc_agents."):
            raise
        reason = shown(str(error).strip().partition("\n")[0])
        raise UsageError(
            f"the core {agent.core_name!r} cannot be exported ({type(error).__name__}: {reason}); "
            "torch.export accepts no Python branches on the values of tensors"
        ) from error
    file = open_exported(data)
    agreement = compare(file, agent)
    compare(file, agent, steps=5, rows=1)
    try:
        write_atomically(path, lambda opened: opened.write(data))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    return Export(path, step.inputs, step.outputs, agreement)


def describe_step(step: ExportedStep) -> dict[str, Any]:
    """Return what a file says about itself."""
    agent = step.agent
    return {
        "format": FILE_FORMAT,
        "sample": step.sample,
        "noise": agent.policy.noise_name if step.sample else None,
        "inputs": {name: slot.to_json() for name, slot in step.inputs.items()},
        "outputs": {name: slot.to_json() for name, slot in step.outputs.items()},
        "observation_space": space_to_json(agent.observations.space),
        "action_space": space_to_json(agent.actions.space),
        "agent": agent.to_json()["agent"],
        "versions": versions(),
    }

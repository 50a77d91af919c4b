"""Export trained agents: `python train/export.py runs/NAME` writes one file that runs without this package.

python train/export.py runs/NAME                          # agent.onnx, for onnxruntime
python train/export.py runs/NAME --format torch           # agent.pt2, for torch.export.load
python train/export.py runs/NAME --format pretrained      # a folder to share: safetensors, JSON, model card
python train/export.py model.zip --output agent.onnx      # an RMCPolicy that Stable-Baselines3 saved
"""

from __future__ import annotations

# First, so that Ctrl-C is handled while the others are imported:
from rmc_agents.cli.start import command_name

# isort: split
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.saved import Run
from rmc_agents.cli.config import Imports
from rmc_agents.cli.flags import parse
from rmc_agents.cli.script import checking, import_plugins, run_script, say
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.output import output_folder
from rmc_agents.evaluation.runs import load_with_imports
from rmc_agents.export.files import Export, export_file
from rmc_agents.export.formats import SUFFIXES, format_of, require_installed
from rmc_agents.export.pretrained import figures_of, save_pretrained
from rmc_agents.export.step import Slot
from rmc_agents.export.verification import Mismatch
from rmc_agents.runs.folder import best_checkpoint

Kind = Literal["onnx", "torch", "pretrained"]


@dataclass(frozen=True)
class ExportConfig:
    """Export a trained agent as one file, or as a small folder."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Run folder, one checkpoint in it, a folder written by --format pretrained, or a .zip of
    Stable-Baselines3 (which is a pickle: export only files that you trust)."""
    format: Kind | None = None
    """onnx: a file for onnxruntime; torch: a program of torch.export; pretrained: a folder with
    safetensors, config.json and model card. Without this the ending of --output decides, or it is onnx."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Which checkpoint of a run folder."""
    output: Path | None = None
    """File or folder to write. Without this it is agent.onnx, agent.pt2 or pretrained/ in the run folder."""
    sample: bool = False
    """Let the file draw actions, by means of random numbers that it is given, instead of taking the most
    likely ones."""
    imports: Imports = ()
    """Module that registers cores of your own; one flag per module. Those that a run remembers are
    imported anyway."""


@dataclass(frozen=True)
class Job:
    """An agent to export."""

    agent: ActorCritic
    source: ActorCritic | Path
    """What `save_pretrained` takes: the run, if there is one."""
    output: Path
    about: dict[str, Any]
    """What a file says about its run."""


def main(args: Sequence[str]) -> None:
    """Parse the flags, write the file and compare it with the agent, or write the folder."""
    with checking():
        config = parse(ExportConfig, None, args, prog=command_name("export"))
        kind = kind_of(config)
        if config.sample and kind == "pretrained":
            raise UsageError("--sample is about files: --format onnx or torch")
        if kind != "pretrained":
            require_installed(kind)
        torch.set_num_threads(1)  # the fastest at these sizes
        import_plugins(config.imports)
        if config.run is None:
            raise UsageError(f"give a run folder: {command_name('export')} runs/NAME")
        is_model = config.run.suffix == ".zip"
        job = model_job(config, config.run, kind) if is_model else run_job(config, config.run, kind)
    if kind == "pretrained":
        say(f"agent: {save_pretrained(job.source, job.output)} (model.safetensors, config.json, README.md)")
    else:
        report(export_file(job.agent, job.output, sample=config.sample, about=job.about))


def kind_of(config: ExportConfig) -> Kind:
    """Return what to write: what --format says, or the ending of --output.

    Raises:
        UsageError: the two differ.
    """
    if config.format == "pretrained" or config.output is None:
        return config.format or "onnx"
    kind = format_of(config.output)
    if config.format not in (None, kind):
        raise UsageError(
            f"output={config.output} with format={config.format}: expected {SUFFIXES[config.format]}"
        )
    return kind


def run_job(config: ExportConfig, path: Path, kind: Kind) -> Job:
    """Load the agent of a run.

    Raises:
        UsageError: there is no such run or checkpoint.
    """
    if config.checkpoint == "best":
        best = best_checkpoint(path)
        if best is None:
            raise UsageError(f"{path} has no best checkpoint: leave out --checkpoint best")
        path = best[0]
    run = load_with_imports(path)
    name = "pretrained" if kind == "pretrained" else f"agent{SUFFIXES[kind]}"
    return Job(run.agent, path, config.output or output_folder(run.folder) / name, describe_run(run))


def model_job(config: ExportConfig, path: Path, kind: Kind) -> Job:
    """Load the policy of a model of Stable-Baselines3.

    Raises:
        UsageError: there is no such model, or it cannot be an agent.
    """
    from rmc_agents.export.policy import agent_of, load_model  # imports Stable-Baselines3

    agent = agent_of(load_model(path))
    suffix = "" if kind == "pretrained" else SUFFIXES[kind]
    return Job(agent, agent, config.output or path.with_suffix(suffix), {})


def describe_run(run: Run) -> dict[str, Any]:
    """Return what a file says about the run that it comes from."""
    return {
        "run": run.name,
        "checkpoint": run.path.name,
        "environment": None if run.environment is None else asdict(run.environment),
        "figures": {env_id: entry.figures.to_json() for env_id, entry in figures_of(run).items()},
    }


def report(export: Export) -> None:
    """Print inputs and outputs of a file, and how well it agrees with its agent."""
    for kind, slots in (("input", export.inputs), ("output", export.outputs)):
        for name, slot in slots.items():
            say(f"{kind}: {describe(name, slot)}")
    agreement = export.agreement
    say(
        f"compared with the agent over {agreement.steps} steps of {agreement.rows} rows, "
        f"{agreement.episodes} episodes: largest error {max(agreement.error, agreement.state_error):.1e}"
    )
    say(f"file: {export.path}")


def describe(name: str, slot: Slot) -> str:
    """Return an input or output in one line."""
    shape = ", ".join(["batch", *map(str, slot.shape)])
    return f"{name} {slot.dtype} [{shape}]" + ("" if slot.words is None else ", ids of words")


def cli() -> None:
    """Run the script as a command."""
    run_script(main, ExportConfig, failures=(Mismatch,))


if __name__ == "__main__":
    cli()

"""Small folders to share an agent: weights, configuration and model card.

FOLDER/model.safetensors  the weights, in full precision
FOLDER/config.json        what builds the agent, as in a run folder, and how it was trained
FOLDER/README.md          the model card
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.saved import Run
from rmc_agents.agent.shapes import shapes_only
from rmc_agents.errors import UsageError
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.results import read_evaluation
from rmc_agents.evaluation.runs import load_with_imports
from rmc_agents.export.card import model_card
from rmc_agents.export.step import require_float32
from rmc_agents.plugins import registering_modules
from rmc_agents.runs.files import write_json, write_text
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.runs.migrations import CONFIG_FORMAT
from rmc_agents.runs.safetensors_file import WEIGHTS, write_tensors
from rmc_agents.runs.versions import versions
from rmc_agents.runs.weights import shorten


def save_pretrained(agent: ActorCritic | Path | str, folder: Path | str) -> Path:
    """Write an agent as a small folder, which `rmc_agents.load`, `evaluate` and the scripts read.

    The folder holds no pickle, and loading it runs no code of the folder. Its predictions are those of the
    agent, bit for bit. Its model card has the form that Hugging Face expects.

    Args:
        agent: an agent or, for a model card with figures and commands, a run folder or one of its
            checkpoints.
        folder: made if it does not exist; an agent that was shared there before is replaced.

    Returns:
        the folder.

    Raises:
        UsageError: no run, an agent that config.json cannot describe, such as one with other layers, or the
            folder cannot be written or holds something else.
    """
    folder = Path(folder)
    require_free(folder)
    if isinstance(agent, ActorCritic):
        name, network, entries = folder.resolve().name, agent, {}
        imports = list(registering_modules(agent.core))
        config: dict[str, Any] = {"format": CONFIG_FORMAT, **agent.to_json(), "imports": imports}
        config["versions"] = versions()
        _require_described(agent, config)
    else:
        run = load_with_imports(Path(agent))
        name, network, config, entries = run.name, run.agent, read_config(run.folder), figures_of(run)
    try:
        write_json(folder / "config.json", config)
        write_text(folder / "README.md", model_card(name, network, config, entries))
        write_tensors(folder / WEIGHTS, network.state_dict())
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _require_described(agent: ActorCritic, config: dict[str, Any]) -> None:
    """Raise UsageError if an agent built from `config` could not load the weights of this one."""
    require_float32(agent)
    try:
        with shapes_only():
            blank = ActorCritic.from_json(config)
    except Exception:  # a user's core that cannot be built there
        return
    own, built = ({name: x.shape for name, x in x.state_dict().items()} for x in (agent, blank))
    changed = sorted(name for name in {*own, *built} if own.get(name) != built.get(name))
    if changed:
        raise UsageError(
            f"the agent's weights are not those that its options make ({shorten(changed)}): undo what "
            "replaced its layers, parametrizations with torch.nn.utils.parametrize.remove_parametrizations"
        )


def figures_of(run: Run) -> dict[str, Entry]:
    """Return the evaluations of a run's checkpoint, by environment.

    Raises:
        UsageError: evaluation.json is damaged.
    """
    found = {}
    for env_id, entry in read_evaluation(run.folder).items():
        same = [x for x in (entry, *entry.earlier) if Path(x.checkpoint or run.path).name == run.path.name]
        if same:
            found[env_id] = same[0]
    return found


def require_free(folder: Path) -> None:
    """Raise UsageError if a folder holds something else than a shared agent."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another folder")
    if checkpoints(folder):
        raise UsageError(f"{folder} holds a run: choose another folder, such as {folder / 'pretrained'}")
    if not (folder / WEIGHTS).exists():
        others = [name for name in ("README.md", "config.json") if (folder / name).exists()]
        if others:
            raise UsageError(f"{folder} holds {others[0]} of something else: choose another folder")

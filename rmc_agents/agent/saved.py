"""Loading and exporting of trained agents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.config import AgentConfig
from rmc_agents.agent.entities import cell_size_of
from rmc_agents.agent.shapes import shapes_only
from rmc_agents.cores import core_options
from rmc_agents.environment import EnvConfig
from rmc_agents.errors import NotAnAgent, UsageError, shown
from rmc_agents.options import require_types
from rmc_agents.runs.checkpoint import read_checkpoint, read_newest, save_checkpoint
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import checkpoints, read_config, run_folder_of
from rmc_agents.runs.safetensors_file import WEIGHTS, read_tensors
from rmc_agents.runs.weights import half_precision, load_weights, shorten
from rmc_agents.spaces.plain import Actions, Observations, vocabularies
from rmc_agents.spaces.reading import named_parts
from rmc_agents.spaces.serialization import space_from_json
from rmc_agents.spaces.text import AnnotatedText
from rmc_agents.tree import to_device

AUX_HEAD = "aux_head."
"""What the names of weights begin with that predict auxiliary targets."""
GRIDS = ("MiniGrid-", "BabyAI-", "rmc/MemoryS", "rmc/Memory-v0")
"""Prefixes of the ids of Farama's grid worlds."""


@dataclass(frozen=True)
class Run:
    """The agent of a run, from one of its checkpoints, or of a shared folder."""

    folder: Path
    path: Path
    """The checkpoint, or the file of weights."""
    agent: ActorCritic
    environment: EnvConfig | None
    """What the agent was trained in; None if config.json does not say."""
    imports: tuple[str, ...] = ()
    """Modules that register the run's core or tasks."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def env_ids(self) -> list[str]:
        """The ids that the agent is evaluated on by default; empty if config.json does not say."""
        return [] if self.environment is None else split_ids(self.environment.env)

    def options_for(self, env_id: str) -> dict[str, Any]:
        """Return the options of training or, for another grid world, those that match the agent's spaces."""
        if self.environment is not None and env_id in self.env_ids:
            return {name: x for name, x in self.environment.env_options.items() if name != "seeding"}
        space, actions = self.agent.observation_space, self.agent.action_space
        grid = env_id.startswith(GRIDS)
        if grid and isinstance(space, spaces.Dict) and "image" in space.spaces:
            three = isinstance(actions, spaces.Discrete) and actions.n == 3
            options: dict[str, Any] = {
                "view_size": (space["image"].shape or (7,))[0],
                **({"actions": 3} if three else {}),
            }
            if "Memory" not in env_id:
                options["mission"] = "read" if "mission" in space.spaces else "drop"
            return options
        return {}

    def require_fit(self, env_id: str, env: Any) -> None:
        """Raise UsageError unless the agent can observe and act in an environment (anything with spaces)."""
        given_texts = vocabularies((env.own_spaces or (env.observation_space,))[0])
        texts = vocabularies(self.agent.observations.space)
        for key, text in texts.items():
            if key in given_texts and given_texts[key].words != text.words:
                self._require_words(env_id, key, text, given_texts[key])
        for name, kind in (("observation_space", Observations), ("action_space", Actions)):
            own, given = getattr(self.agent, name), getattr(env, name)
            if own != given and own != kind(given).plain:
                such_as = f", such as {', '.join(self.env_ids)}" if self.env_ids else ""
                raise UsageError(
                    f"{self.folder} was trained with {name} {own}; {env_id} has {given}. Choose an "
                    f"environment with the same spaces{such_as}"
                )
        for key, text in texts.items():
            self._require_words(env_id, key, text, given_texts.get(key))

    def _require_words(self, env_id: str, key: str, own: AnnotatedText, given: AnnotatedText | None) -> None:
        """Raise UsageError unless an environment's texts have the words of the agent's."""
        if given == own:
            return
        new = [word for word in (given.words if given is not None else ()) if word not in own.words]
        words = (
            f"the agent does not know {shorten(new)}" if new else f"the agent's are {', '.join(own.words)}"
        )
        raise UsageError(
            f"{self.folder} was trained with other words of {key!r} than {env_id} has: {words}. Choose an "
            "environment with the same words"
        )


def split_ids(env_ids: str) -> list[str]:
    """Split `"A, B"` into `["A", "B"]`."""
    return [name.strip() for name in env_ids.split(",")]


def load_run(path: Path, device: torch.device | str = "cpu") -> Run:
    """Load the agent of a run folder, of one checkpoint in it, or of a shared folder, and its environment.

    Raises:
        UsageError: no run, no readable weights, or weights that do not fit config.json.
    """
    folder = run_folder_of(path)
    config = read_config(folder)
    try:
        environment = EnvConfig(**config["environment"]) if config.get("environment") else None
    except (TypeError, ValueError) as error:
        raise UsageError(f"{folder}/config.json does not describe environments: {error}") from error
    saved, agent = _load(path, folder, config, device)
    return Run(folder, saved, agent, environment, tuple(config.get("imports", ())))


def load(run: Path | str, device: torch.device | str = "cpu") -> ActorCritic:
    """Load a trained agent, in evaluation mode.

    Args:
        run: a run folder (its newest intact checkpoint is read), one checkpoint in it, or a folder that
            `save_pretrained` wrote.
        device: where to put the agent.

    Raises:
        UsageError: no run, no readable weights, or weights that do not fit config.json.
    """
    run = Path(run)
    run_dir = run_folder_of(run)
    return _load(run, run_dir, read_config(run_dir), device)[1]


def _load(
    run: Path, run_dir: Path, config: dict[str, Any], device: torch.device | str
) -> tuple[Path, ActorCritic]:
    """Return the file of the weights, and the agent."""
    path, payload = _read_weights(run, device)
    require_fit(config, payload, path)
    agent = build_agent(config, run_dir).to(device)
    load_weights(agent, payload, path)
    return path, agent.eval()


def _read_weights(run: Path, device: torch.device | str) -> tuple[Path, dict[str, Any]]:
    """Return the file of the weights, and a checkpoint or the part of one that holds them."""
    shared = run / WEIGHTS
    if run.is_file():
        return run, read_checkpoint(run, device)
    if shared.exists() and not checkpoints(run):
        return shared, {"agent": to_device(read_tensors(shared), torch.device(device))}
    return read_newest(run, device)[:2]


def initialize(agent: ActorCritic, run: Path | str) -> None:
    """Give an agent the weights of a trained one, to continue from them in another task.

    Where the numbers of auxiliary targets differ, the layer that predicts them starts anew; no policy reads
    it.

    Args:
        agent: of the same sizes and with the same spaces.
        run: a run folder, one checkpoint in it, or a folder that `save_pretrained` wrote.

    Raises:
        UsageError: no run, no readable weights, or weights of an agent of other sizes, or one that reads its
            observations in another way.
    """
    run = Path(run)
    folder = run_folder_of(run)
    config = read_config(folder)
    for name in ("observation_space", "action_space"):
        saved, own = space_from_json(config[name]), getattr(agent, name)
        if saved != own:
            raise UsageError(f"{folder} was trained with {name} {saved}; the new agent has {own}")
    require_same_reading(agent, folder)
    before, now = _settings(saved_agent_config(run)), _settings(agent.config)
    differ = [
        f"{name}={shown(old)}, now {shown(now.get(name))}"
        for name, old in before.items()
        if now.get(name) != old
    ]
    if differ:
        raise UsageError(
            f"{folder} was trained with {'; '.join(differ)}: its weights would mean something else"
        )
    path, payload = _read_weights(run, agent.device)
    if config.get("aux_size", 0) != agent.aux_size:
        kept = {name: x for name, x in payload["agent"].items() if not name.startswith(AUX_HEAD)}
        own = {name: x for name, x in agent.state_dict().items() if name.startswith(AUX_HEAD)}
        payload = {**payload, "agent": {**kept, **own}}
    load_weights(agent, payload, path)


def _settings(config: AgentConfig) -> dict[str, Any]:
    """Return what decides which weights an agent has, and what they mean."""
    # The last is a weight, which training has changed since.
    others = ("read_as", "action_masks", "log_std_init")
    settings = {name: x for name, x in vars(config).items() if name not in others}
    return settings | {
        "core_options": {**core_options(config.core), **config.core_options},
        "cell_size": cell_size_of(config),
    }


def saved_agent_config(run: Path) -> AgentConfig:
    """Return the configuration of the agent of a run folder, of a checkpoint in it, or of a shared folder.

    Raises:
        UsageError: no run, or a config.json that describes no agent.
    """
    folder = run_folder_of(run)
    saved = read_config(folder)
    _require_agent(saved, folder)
    try:
        config = AgentConfig(**saved["agent"])
        require_types(config)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/config.json does not describe an agent: {_brief(error)}") from error
    return config


def export_agent(run: Path | str, folder: Path | str) -> Path:
    """Write a run's trained agent as a small run folder, without what is needed to resume training.

    Floating-point weights are rounded to half precision: a fifth of the bytes or less, and evaluation differs
    in the last digit at most. The folder can be loaded, evaluated and probed.

    Returns:
        the checkpoint in `folder`.

    Raises:
        UsageError: `run` holds no run or no readable checkpoint, or weights too large for half precision.
    """
    folder = Path(folder)
    path, payload, _ = read_newest(Path(run))
    config = read_config(run)
    require_fit(config, payload, path)
    weights = half_precision(payload["agent"], path)
    write_json(folder / "config.json", config)
    for old in checkpoints(folder):
        old.unlink()
    return save_checkpoint(folder, payload["steps"], {"agent": weights, "steps": payload["steps"]})


def _require_agent(config: dict[str, Any], run_dir: Path) -> None:
    """Raise NotAnAgent if a config.json describes a classifier."""
    if "classifier" in config:
        raise NotAnAgent(
            f"{run_dir} holds a classifier, not an agent: load it with rmc_agents.load_classifier"
        )


def build_agent(config: dict[str, Any], run_dir: Path) -> ActorCritic:
    """Build the untrained agent that a config.json describes.

    Raises:
        NotAnAgent: it describes a classifier.
        UsageError: it describes no agent that can be built here.
    """
    _require_agent(config, run_dir)
    try:
        return ActorCritic.from_json(config)
    except Exception as error:  # whatever a core's constructor raises for options of a wrong type
        modules = ", ".join(map(str, config.get("imports", ())))
        advice = f" (the run needs the module {modules}: import it first)" if modules else ""
        raise UsageError(
            f"{run_dir}/config.json does not describe an agent: {_brief(error)}{advice}"
        ) from error


def saved_observation_space(run_dir: Path) -> spaces.Space[Any]:
    """Return the observation space of a run's agent, with how each part is read.

    Raises:
        UsageError: no run, or a config.json that describes no such space.
    """
    try:
        return space_from_json(read_config(run_dir)["observation_space"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{run_dir}/config.json does not describe an agent: {_brief(error)}") from error


def require_same_reading(agent: ActorCritic, run_dir: Path) -> None:
    """Raise UsageError if a run's agent reads its observations in another way than `agent`.

    The weights would fit nevertheless, and mean something else.
    """
    words, saved_words = (
        vocabularies(space) for space in (agent.observations.space, _saved_own_space(run_dir))
    )
    if words != saved_words:
        raise UsageError(
            f"the agent of {run_dir} reads texts with the words {_named(saved_words)}, this one with "
            f"{_named(words)}: its environments have other words now"
        )
    own, saved = (
        {key: getattr(part, "read_as", "") for key, part in named_parts(space).items()}
        for space in (agent.observation_space, saved_observation_space(run_dir))
    )
    if list(own.items()) != list(saved.items()):
        raise UsageError(
            f"the agent of {run_dir} reads its observation as {saved}, this one as {own}; build it with "
            f"rmc_agents.load({str(run_dir)!r}).train()"
        )


def _saved_own_space(run_dir: Path) -> spaces.Space[Any]:
    """Return the space of the observations that `predict` of a run's agent takes."""
    own = read_config(run_dir).get("own_spaces")
    return saved_observation_space(run_dir) if own is None else space_from_json(own["observation"])


def _named(texts: dict[str, AnnotatedText]) -> str:
    return shown("; ".join(f"{key}: {', '.join(text.words)}" for key, text in texts.items()) or "none", 300)


def require_fit(config: dict[str, Any], payload: dict[str, Any], path: Path) -> None:
    """Raise UsageError if the agent that config.json describes is not the checkpoint's.

    The agent is built as shapes only, so that this costs nothing, however large config.json claims
    the agent to be.
    """
    try:
        with shapes_only():
            blank = ActorCritic.from_json(config)
    except Exception:  # a user's core that cannot be built there; `build_agent` reports what is wrong
        return
    load_weights(blank, payload, path)


def _brief(error: Exception) -> str:
    text = str(error).splitlines()[0][:200] if str(error) else ""
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__} {text}".strip()

"""Shared folders: loaded bit for bit, or refused in one message; model cards that machines read."""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

import rmc_agents
from benchmarks.robustness.mutations import outcome, scramble
from rmc_agents import UsageError, save_pretrained
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.flags import parse
from rmc_agents.cli.presets import defaults_for
from rmc_agents.evaluation.entries import Entry
from rmc_agents.evaluation.results import save_entry
from rmc_agents.export.card import train_command
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.folder import checkpoints, read_config
from tests.support.agents import MAZE, evaluation_figures
from tests.support.exports import agent_for
from tests.support.runs import saved_run


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter of a model card, and its text."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with figures of its checkpoint, and of another one in another environment."""
    folder = saved_run(tmp_path_factory.mktemp("runs") / "maze", actions=3)
    for env_id, checkpoint in ((MAZE, "step_000000000007.pt"), ("Other-v0", "step_000000000001.pt")):
        data = {**evaluation_figures(0.987, 0.95), "checkpoint": f"runs/x/checkpoints/{checkpoint}"}
        save_entry(folder, env_id, Entry.from_json(data, "test"))
    return folder


@pytest.fixture(scope="module")
def shared(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(run, tmp_path_factory.mktemp("shared") / "agent")


def test_loaded_agent_predicts_bit_for_bit(any_core: str, tmp_path: Path) -> None:
    space = spaces.Dict(image=spaces.Box(0, 255, (5, 5, 3), np.uint8), x=spaces.Tuple((spaces.Discrete(3),)))
    agent = agent_for(space, spaces.Discrete(4, start=2), any_core, previous_action=True)
    folder = save_pretrained(agent, tmp_path / "agent")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = rmc_agents.load(folder)
    assert not loaded.training
    assert loaded.observations.space == space
    states = [None, None]
    for seed in range(5):
        space.seed(seed)
        obs, actions = space.sample(), []
        for i, each in enumerate((agent, loaded)):
            action, states[i] = each.predict(obs, states[i])
            actions.append(action)
        assert actions[0] == actions[1]
    first, second = (list(rmc_agents.ActorCritic.state_dict(each).values()) for each in (agent, loaded))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_statistics_of_observations_are_shared(tmp_path: Path) -> None:
    agent = agent_for(normalize_observations=True)
    agent.update_statistics(3 + torch.randn(4, 2, 3), torch.ones(4, 2, dtype=torch.bool))
    loaded = rmc_agents.load(save_pretrained(agent, tmp_path / "agent"))
    for name, x in agent.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], x)


def test_folder_of_a_run_keeps_what_it_was_trained_in(run: Path, shared: Path) -> None:
    assert read_config(shared) == read_config(run)
    weights = rmc_agents.load(run).state_dict()
    for name, x in rmc_agents.load(shared).state_dict().items():
        assert torch.equal(x, weights[name])


def test_model_card_holds_figures_and_commands(shared: Path) -> None:
    front, text = card_of(shared)
    assert front["library_name"] == "rmc-agents"
    assert MAZE in front["tags"]
    (index,) = front["model-index"]
    assert index["name"] == "maze"
    (result,) = index["results"]  # those of another checkpoint are left out
    assert result["dataset"] == {"name": MAZE, "type": MAZE}
    assert result["task"]["type"] == "reinforcement-learning"
    metrics = {each["type"]: each["value"] for each in result["metrics"]}
    assert metrics == {"mean_reward": 0.95, "success_rate": 0.987}
    assert f"| `{MAZE}` | 98.7 % [11.1, 99.9] | 0.950 [0.2, 0.3] | 12.0 | 1,000 |" in text
    assert "rmc-evaluate path/to/this/folder\n" in text
    assert "image: Box(0, 255, (7, 7, 3), uint8), read as codes" in text


def test_model_card_of_an_agent_without_a_run_has_no_figures(tmp_path: Path) -> None:
    front, text = card_of(save_pretrained(agent_for(), tmp_path / "small"))
    assert "model-index" not in front
    assert text.startswith("\n# small\n")
    assert "rmc-train" not in text
    assert "rmc-evaluate path/to/this/folder --env ID" in text


def test_training_command_of_a_card_rebuilds_the_configuration(tmp_path: Path) -> None:
    given = [
        *("--env", MAZE, "--no-preset", "--env-options", "view_size=3", "--core", "gru", "--seed", "4"),
        *("--core-options", "hidden_size=48", "--no-skip", "--learning-rate", "0.0003", "--previous-action"),
        *("--target-kl", "0.1", "--read-as", "image=codes:11,6,4", "--import", "math"),
    ]
    config = parse(RunConfig, None, given, "test")
    described = {
        "environment": vars(config.environment),
        "agent": vars(config.agent),
        "ppo": vars(config.ppo),
        "seed": config.run.seed,
        "imports": list(config.run.imports),
    }
    command = train_command(described)
    assert command is not None
    program, *words = shlex.split(command)
    assert program == "rmc-train"
    defaults, _ = defaults_for(parse_selection(words))
    assert parse(RunConfig, defaults, words, "test") == config
    assert train_command({"agent": {}}) is None


def parse_selection(words: list[str]) -> Selection:
    return Selection(env=MAZE, preset="--no-preset" not in words)


def test_best_checkpoint_of_a_run_is_named_by_its_path(run: Path, tmp_path: Path) -> None:
    folder = save_pretrained(checkpoints(run)[0], tmp_path / "agent")
    assert card_of(folder)[0]["model-index"]


def test_folders_of_something_else_are_refused(run: Path, tmp_path: Path) -> None:
    agent = agent_for()
    with pytest.raises(UsageError, match=r"maze holds a run: choose another folder, such as .*pretrained"):
        save_pretrained(agent, run)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"project holds README\.md of something else"):
        save_pretrained(agent, tmp_path / "project")
    with pytest.raises(UsageError, match=r"README\.md is a file"):
        save_pretrained(agent, tmp_path / "project" / "README.md")
    with pytest.raises(UsageError, match=r"README\.md.* cannot be written"):
        save_pretrained(agent, tmp_path / "project" / "README.md" / "agent")
    with pytest.raises(UsageError, match="is not a run folder"):
        save_pretrained(tmp_path / "none", tmp_path / "agent")
    folder = save_pretrained(agent, tmp_path / "agent")
    assert save_pretrained(agent_for(), folder) == folder  # a shared agent is replaced


def test_weights_of_another_agent_are_refused(shared: Path, tmp_path: Path) -> None:
    folder = save_pretrained(agent_for(), tmp_path / "agent")
    (folder / "config.json").write_bytes((shared / "config.json").read_bytes())
    with pytest.raises(UsageError, match=r"model\.safetensors belongs to another configuration"):
        rmc_agents.load(folder)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    agent = agent_for()
    with torch.no_grad():
        agent.value_head.bias.fill_(torch.nan)
    with pytest.raises(UsageError, match=r"weights that are not finite: value_head\.bias"):
        rmc_agents.load(save_pretrained(agent, tmp_path / "agent"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_agents_in_another_precision_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    agent = agent_for().to(dtype)
    message = f"the agent is in {str(dtype).removeprefix('torch.')}, expected float32"
    with pytest.raises(UsageError, match=message):
        save_pretrained(agent, tmp_path / "agent")
    with pytest.raises(UsageError, match=message):
        rmc_agents.export_file(agent, tmp_path / "agent.onnx")
    assert not list(tmp_path.iterdir())


def test_agents_with_other_layers_are_refused(tmp_path: Path) -> None:
    agent = agent_for()
    weight_norm(agent.encoder.linear)
    with pytest.raises(UsageError, match=r"not those that its options make \(encoder\.linear"):
        save_pretrained(agent, tmp_path / "agent")
    assert not list(tmp_path.iterdir())
    remove_parametrizations(agent.encoder.linear, "weight")
    assert rmc_agents.load(save_pretrained(agent, tmp_path / "agent")).config == agent.config


def test_damaged_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    folder = save_pretrained(agent_for(), tmp_path / "agent")
    path = folder / "model.safetensors"
    good, rng, found = path.read_bytes(), random.Random(0), []
    for i in range(120):
        header = 8 + int.from_bytes(good[:8], "little")
        forged = scramble(good[:header], rng) + good[header:] if i % 2 else scramble(good, rng)
        path.write_bytes(forged)
        found.append(outcome(lambda: rmc_agents.load(folder)))
    assert set(found) <= {"loaded", "refused"}
    assert found.count("refused") > 30


@pytest.mark.parametrize("header", [{}, {"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}])
def test_foreign_weights_are_refused(header: dict[str, Any], tmp_path: Path) -> None:
    folder = save_pretrained(agent_for(), tmp_path / "agent")
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * bool(header))
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        rmc_agents.load(folder)


def test_checkpoints_count_before_shared_weights(tmp_path: Path) -> None:
    """A run that was trained into the folder of a shared agent is newer."""
    folder = save_pretrained(agent_for(), tmp_path / "agent")
    other = agent_for()
    save_checkpoint(folder, 1, {"agent": other.state_dict()})
    assert torch.equal(rmc_agents.load(folder).value_head.weight, other.value_head.weight)

"""Older run folders: every renamed key, and runs of the previous release, loaded, evaluated and resumed.

The runs in `tests/support/old_runs` were interrupted half-way by the previous release.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_agents
import rmc_envs
from rmc_agents import UsageError
from rmc_agents.agent.saved import load_run
from rmc_agents.cli.resume import configured, resumed
from rmc_agents.runs.checkpoint import read_checkpoint, read_newest, save_checkpoint
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import checkpoints, read_config
from rmc_agents.runs.migrations import CHECKPOINT_FORMAT, CONFIG_FORMAT, migrate_checkpoint, migrate_config
from rmc_agents.spaces import read as read_space
from rmc_agents.spaces import space_from_json
from rmc_agents.supervised.classifier import SequenceClassifier, load_classifier
from rmc_agents.supervised.evaluate import evaluate_classifier
from tests.support.commands import ROOT, Command, in_process
from tests.support.trainers import assert_identical, ppo_trainer, save_interrupted
from train import nth_farthest as nth_farthest_script

OLD_RUNS = Path(__file__).parents[1] / "support" / "old_runs"
AGENTS = ("recall", "hints", "cartpole", "curriculum")
TRAINED = sorted(path.parent for path in (ROOT / "trained").glob("*/config.json"))


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of the previous release, in a folder that may be written."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD_RUNS, tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def ppo(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return in_process("ppo", monkeypatch, capfd)


@pytest.fixture
def nth_farthest(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, with the small read-out of the old run instead of the paper's."""
    small = partial(SequenceClassifier, hidden_size=8, hidden_layers=1)
    monkeypatch.setattr(nth_farthest_script, "SequenceClassifier", small)
    return in_process("nth_farthest", monkeypatch, capfd)


def old_config(name: str) -> dict[str, Any]:
    """Return a config.json as the previous release wrote it."""
    return json.loads((OLD_RUNS / name / "config.json").read_text())


# ---- whole runs


@pytest.mark.parametrize("name", AGENTS)
def test_old_agent_loads_and_evaluates(name: str, old_run: Path) -> None:
    run = load_run(old_run / name)
    (env_id,) = run.env_ids
    assert env_id == old_config(name)["env"]["id"]
    options = run.options_for(env_id)
    env = rmc_envs.trials(env_id, rmc_envs.choose_implementation(env_id), 3, options=options)
    run.require_fit(env_id, env)
    episodes = rmc_agents.evaluate(run.agent, env, 3, step_limit=2000)
    env.close()
    assert len(episodes.returns) == 3
    assert run.agent.aux_size == (15 if name == "hints" else 0)


@pytest.mark.parametrize("name", AGENTS)
def test_old_agent_resumes_to_its_end(name: str, old_run: Path, ppo: Command) -> None:
    run_dir = old_run / name
    before = rmc_agents.load(run_dir).state_dict()
    code, out, errors = ppo("--resume", str(run_dir))
    assert code == 0, errors
    assert f"resuming from {run_dir}/checkpoints/step_000000000064.pt" in out
    assert "trained for 128 steps" in out
    path, payload, skipped = read_newest(run_dir)
    assert (path.name, payload["steps"], skipped) == ("step_000000000128.pt", 128, [])
    assert torch.load(path, weights_only=True)["format"] == CHECKPOINT_FORMAT
    assert json.loads((run_dir / "config.json").read_text())["format"] == CONFIG_FORMAT
    after = rmc_agents.load(run_dir).state_dict()
    assert after.keys() == before.keys()
    assert not all(torch.equal(after[key], before[key]) for key in after)
    assert (payload["curriculum"] is not None) == (name == "curriculum")


def test_old_classifier_loads_and_evaluates(old_run: Path, nth_farthest: Command) -> None:
    model, path, payload = load_classifier(old_run / "classifier")
    assert path.name == "step_000000001200.pt"
    assert payload["counters"][0] == 1200
    assert model.aux_head is not None
    task = nth_farthest_script.NthFarthestTask(aux_targets=False)
    assert sum(group.asked for group in evaluate_classifier(model, task, samples=100)) == 100
    code, out, errors = nth_farthest("--evaluate", str(old_run / "classifier"), "--test-samples", "100")
    assert code == 0, errors
    assert "classifier (gru, " in out


def test_old_classifier_resumes_to_its_end(old_run: Path, nth_farthest: Command) -> None:
    run_dir = old_run / "classifier"
    code, out, errors = nth_farthest("--resume", str(run_dir), "--test-samples", "100")
    assert code == 0, errors
    assert "trained on 2,400 samples" in out
    path, payload, _ = read_newest(run_dir)
    assert payload["counters"][0] == 2400
    assert torch.load(path, weights_only=True)["format"] == CHECKPOINT_FORMAT
    config = json.loads((run_dir / "config.json").read_text())
    assert config["format"] == CONFIG_FORMAT
    assert config["target_accuracy"] == 0.99
    assert config["supervised"]["orthogonalization"] == "bfloat16"
    assert load_classifier(run_dir)[1] == path


def test_old_classifier_from_before_levels_of_objects_resumes(old_run: Path, nth_farthest: Command) -> None:
    path = old_run / "classifier" / "config.json"
    config = json.loads(path.read_text())
    del config["nth_farthest"]["objects"]
    write_json(path, config)
    code, _, errors = nth_farthest("--resume", str(old_run / "classifier"), "--test-samples", "100")
    assert code == 0, errors
    assert read_config(old_run / "classifier")["nth_farthest"]["objects"] == [8]


@pytest.mark.parametrize("run_dir", TRAINED, ids=lambda path: path.name)
def test_trained_network_loads_and_fits(run_dir: Path) -> None:
    if run_dir.name.startswith("nth-farthest"):
        model, _, _ = load_classifier(run_dir)
        task = nth_farthest_script.NthFarthestTask(aux_targets=False)
        right = sum(group.right for group in evaluate_classifier(model, task, samples=200))
        assert right > 100
        return
    run = load_run(run_dir)
    (env_id,) = run.env_ids
    env = rmc_envs.make(env_id, 4, **run.options_for(env_id))
    run.require_fit(env_id, env)
    assert rmc_agents.evaluate(run.agent, env, 4).success is not None
    config = configured(read_config(run_dir), run_dir)
    assert (config.environment, config.agent) == (run.environment, run.agent.config)
    with pytest.raises(UsageError, match="holds an agent only, which can be evaluated but not resumed"):
        resumed(run_dir)


# ---- config.json, key by key


@pytest.mark.parametrize(
    ("shape", "dtype", "reading"),
    [
        ([7, 7, 3], "uint8", "codes:11,6,4"),
        ([84, 84, 3], "uint8", "picture:hwc"),
        ([4, 84, 84], "uint8", "picture:chw"),
        ([7, 7, 20], "uint8", "picture:chw"),
        ([36, 36], "uint8", "raw"),
        ([84, 84, 3], "float32", "raw"),
    ],
)
def test_format_2_read_observations_by_their_shape(shape: list[int], dtype: str, reading: str) -> None:
    """Old agents keep the reading with which they were trained, even where it was a poor one."""
    box = {"type": "Box", "low": 0, "high": 255, "shape": shape, "dtype": dtype}
    space = {"type": "Dict", "spaces": {"x": box, "n": {"type": "Discrete", "n": 2, "start": 0}}}
    old = {"format": 2, "agent": {}, "observation_space": space, "action_space": {}}
    new = migrate_config(old)
    assert new["observation_space"]["spaces"] == {**space["spaces"], "x": {**box, "read_as": reading}}
    assert "read_as" not in box, "the old configuration is not changed"
    again = space_from_json(new["observation_space"])["x"]  # type: ignore[index]
    assert str(read_space(again)) == reading


def test_config_of_an_agent_has_every_key_renamed() -> None:
    old = old_config("recall")
    new = migrate_config(old)
    assert new["format"] == CONFIG_FORMAT
    assert new["target_success_rate"] == old["stop_at_success"] == 0.99
    assert new["environment"] == {
        "env": old["env"]["id"],
        "env_options": old["env"]["options"],
        "env_timeout": old["env"]["timeout"],
        "restart_crashed_envs": old["env"]["restart"],
        **{name: old["env"][name] for name in ("train_on", "curriculum", "num_envs", "vectorization")},
    }
    assert new["observation_space"] == {**old["agent"]["observation_space"], "read_as": "raw"}
    assert new["action_space"] == old["agent"]["action_space"]
    assert new["aux_size"] == old["agent"]["hint_size"]
    moved = ("observation_space", "action_space", "hint_size")
    assert new["agent"] == {
        **{name: value for name, value in old["agent"].items() if name not in moved},
        "action_masks": "ignore",
    }
    assert new["ppo"] == {
        **{name: value for name, value in old["ppo"].items() if name != "hint_coef"},
        "aux_coef": old["ppo"]["hint_coef"],
    }
    assert {"env", "stop_at_success", "classifier"}.isdisjoint(new)
    for name in ("seed", "precision", "versions"):
        assert new[name] == old[name]


def test_config_of_a_classifier_has_every_key_renamed() -> None:
    old = old_config("classifier")
    new = migrate_config(old)
    assert new["format"] == CONFIG_FORMAT
    assert new["target_accuracy"] == old["stop_at_accuracy"] == 0.99
    assert new["classifier"] == {
        **{name: value for name, value in old["agent"].items() if name != "hint_size"},
        "aux_size": old["agent"]["hint_size"],
    }
    renamed = {"hint_weight": "aux_coef", "aids_share": "aux_until"}
    assert new["supervised"] == {
        **{renamed.get(k, k): value for k, value in old["supervised"].items()},
        "orthogonalization": "bfloat16",
    }
    assert (new["supervised"]["aux_coef"], new["supervised"]["aux_until"]) == (20.0, 0.9)
    assert new["nth_farthest"] == {
        **{name: value for name, value in old["nth_farthest"].items() if name != "hints"},
        "aux_targets": old["nth_farthest"]["hints"],
    }
    assert {"agent", "stop_at_accuracy"}.isdisjoint(new)


def test_config_without_keys_that_came_later_gets_their_defaults() -> None:
    old = old_config("classifier")
    del old["nth_farthest"]["objects"], old["agent"]["hint_size"]
    new = migrate_config(old)
    assert new["nth_farthest"]["objects"] == [8]
    assert new["classifier"]["aux_size"] == 0
    old = old_config("recall")
    del old["agent"]["hint_size"], old["ppo"]["hint_coef"]
    new = migrate_config(old)
    assert new["aux_size"] == 0
    assert "aux_coef" not in new["ppo"]


def test_agents_of_format_3_ignore_action_masks() -> None:
    agent = {"core": "gru", "core_options": {}}
    new = migrate_config({"format": 3, "agent": agent, "environment": {"env": "Taxi-v3"}})
    assert new == {
        "format": CONFIG_FORMAT,
        "agent": {**agent, "action_masks": "ignore"},
        "environment": {"env": "Taxi-v3"},
    }
    newest = {"format": CONFIG_FORMAT, "agent": {**agent, "action_masks": "use"}}
    assert migrate_config(newest) == newest


def test_migration_does_not_change_what_it_is_given() -> None:
    for name in (*AGENTS, "classifier"):
        old = old_config(name)
        new = migrate_config(old)
        assert old == old_config(name)
        assert migrate_config(new) == new


@pytest.mark.parametrize("found", [CONFIG_FORMAT + 1, 0, -1, 1.5, "2", None, 10**30])
def test_config_of_an_unknown_format_is_refused(found: object, old_run: Path) -> None:
    path = old_run / "recall" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "format": found})
    message = rf"{path} does not describe a run: format .*; this version reads formats 1 to {CONFIG_FORMAT}"
    for read in (read_config, rmc_agents.load, resumed):
        with pytest.raises(UsageError, match=message):
            read(old_run / "recall")


def test_config_of_a_future_format_is_one_message(old_run: Path, ppo: Command) -> None:
    path = old_run / "recall" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "format": 99})
    code, _, errors = ppo("--resume", str(old_run / "recall"))
    assert code == 2
    assert errors == (
        f"error: {path} does not describe a run: format 99; this version reads formats 1 to {CONFIG_FORMAT}\n"
    )


# ---- checkpoints


@pytest.mark.parametrize("name", ["hints", "classifier"])
def test_checkpoint_has_every_weight_renamed(name: str) -> None:
    path = checkpoints(OLD_RUNS / name)[0]
    old = torch.load(path, weights_only=True)
    new = migrate_checkpoint(old)
    assert (old["format"], new["format"]) == (2, CHECKPOINT_FORMAT)
    parts = ["agent"] if name == "hints" else ["agent", "newest"]
    for part in parts:
        assert {"hint.weight", "hint.bias"} <= old[part].keys()
        renamed = {"hint.weight": "aux_head.weight", "hint.bias": "aux_head.bias"}
        assert list(new[part]) == [renamed.get(key, key) for key in old[part]]
        for key, weight in old[part].items():
            assert torch.equal(new[part][renamed.get(key, key)], weight)
    for key in old.keys() - {"format", *parts}:
        assert new[key] is old[key]
    assert read_checkpoint(path).keys() == new.keys()


def test_checkpoint_of_format_1_gets_returns_of_zero(tmp_path: Path) -> None:
    """Format 1 kept no returns of recent episodes. Made here from a run of this version."""
    whole = ppo_trainer(tmp_path / "whole")
    whole.run()
    first = ppo_trainer(tmp_path / "run", checkpoint_seconds=1e9)
    first.iterate()
    path = save_interrupted(first)
    old = torch.load(path, weights_only=True)
    old["format"], old["recent"] = 1, [sums[:2] for sums in old["recent"]]
    torch.save(old, path)
    again = ppo_trainer(tmp_path / "run")
    again.restore()
    assert list(again.recent) == [(n, solved, 0.0) for n, solved, _ in first.recent]
    again.recent = first.recent
    while not again.done:
        again.iterate()
    assert_identical(again, whole)


@pytest.mark.parametrize(
    "broken",
    [
        {"format": 1, "recent": 3},
        {"format": 1, "recent": [[1]]},
        {"format": 10**30},
        {"format": CHECKPOINT_FORMAT + 1},
        {"format": True},
        {"format": "2"},
        {},
    ],
    ids=str,
)
def test_checkpoint_that_does_not_match_its_format_is_refused(broken: dict[str, Any], tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {})
    torch.save(broken, path)
    with pytest.raises(UsageError, match=r"damaged|has format .*; this version reads formats 1 to 3"):
        read_checkpoint(path)


def test_checkpoint_of_a_future_format_is_one_message(old_run: Path, ppo: Command) -> None:
    path = checkpoints(old_run / "recall")[0]
    torch.save({**torch.load(path, weights_only=True), "format": 99}, path)
    code, _, errors = ppo("--resume", str(old_run / "recall"))
    assert code == 2
    assert errors == (
        f"error: {old_run}/recall holds no readable checkpoint: "
        f"{path} has format 99; this version reads formats 1 to {CHECKPOINT_FORMAT}\n"
    )

"""Resuming by flags: which run, what it was, and what may change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rmc_envs
from rmc_agents import UsageError
from rmc_agents.cli.config import RunConfig, Start
from rmc_agents.cli.flags import field_names, parse
from rmc_agents.cli.resume import (
    NEVER_CHANGE,
    RESUME_MAY_CHANGE,
    require_same,
    require_same_folder,
    resumed,
    run_to_resume,
)
from rmc_agents.runs.folder import checkpoints
from tests.support.trainers import QUICK, ppo_trainer


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    env = rmc_envs.make("rmc/Recall-v0", 8, num_symbols=3, delay=2)
    run = ppo_trainer(tmp_path / "run", env=env, target_success_rate=0.9, extra={"imports": ["math"]})
    run.run()
    return tmp_path / "run"


def test_run_to_resume_is_named_or_found_in_run_dir(tmp_path: Path) -> None:
    assert run_to_resume(Start(run_dir=tmp_path)) is None
    assert run_to_resume(Start(resume=tmp_path)) == tmp_path
    assert run_to_resume(Start(run_dir=tmp_path, auto_resume=True)) is None
    (tmp_path / "config.json").write_text("{}")
    assert run_to_resume(Start(run_dir=tmp_path, auto_resume=True)) == tmp_path
    with pytest.raises(UsageError, match="--resume needs the run folder"):
        run_to_resume(Start(resume=Path("")))
    with pytest.raises(UsageError, match="give --run-dir too"):
        run_to_resume(Start(auto_resume=True))


def test_resumed_returns_the_configuration_of_the_run(run_dir: Path) -> None:
    config = resumed(run_dir)
    assert config.ppo == QUICK
    assert config.environment.env == "rmc/Recall-v0"
    assert config.environment.env_options == {"num_symbols": 3, "delay": 2}
    assert config.agent.core == "gru"
    assert (config.run.seed, config.run.target_success_rate, config.run.resume) == (5, 0.9, run_dir)
    assert config.run.imports == ("math",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ppo": {"gamma": "x"}}, "does not describe a run to resume: "),
        ({"ppo": {"normalize_advantage": 3}}, "normalize_advantage is 3, of type int"),
        ({"ppo": {"gamma": 3.0}}, "gamma must be between 0 and 1"),
        ({"ppo": {"gama": 3.0}}, "gama"),
        ({"environment": {"num_envs": 2.5}}, "num_envs is 2.5, of type float"),
        ({"environment": {"num_envs": 4}}, "belongs to a run of other than 4 environments"),
        ({"environment": {"env_options": 3}}, "env_options is 3"),
        ({"environment": {"vectorization": "magic"}}, "vectorization='magic'"),
        ({"agent": {"features": 3}}, "another configuration"),
        ({"seed": None}, "seed is None"),
    ],
    ids=str,
)
def test_config_json_that_was_changed_by_hand_is_refused(
    change: dict[str, Any], message: str, run_dir: Path
) -> None:
    path = run_dir / "config.json"
    config = json.loads(path.read_text())
    for name, value in change.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message):
        resumed(run_dir)


def test_config_json_without_a_needed_key_is_refused(run_dir: Path) -> None:
    path = run_dir / "config.json"
    config = json.loads(path.read_text())
    for name in ("ppo", "seed", "target_success_rate"):
        path.write_text(json.dumps({key: value for key, value in config.items() if key != name}))
        with pytest.raises(UsageError, match=f"does not describe a run to resume: it has no '{name}'"):
            resumed(run_dir)


def test_agent_without_the_state_of_its_training_cannot_be_resumed(run_dir: Path) -> None:
    (path,) = checkpoints(run_dir)
    payload = torch.load(path, weights_only=True)
    torch.save({name: payload[name] for name in ("format", "agent", "steps")}, path)
    with pytest.raises(UsageError, match="holds an agent only, which can be evaluated but not resumed"):
        resumed(run_dir)


def test_changed_flags_are_listed_unless_they_may_change(run_dir: Path) -> None:
    words = ["--resume", str(run_dir), "--gamma", "0.5", "--seed", "3", "--total-steps", "96"]
    saved = resumed(run_dir)
    asked = parse(RunConfig, saved, words, prog="test")
    with pytest.raises(UsageError, match=r"--gamma was 0\.99, now 0\.5; --seed was 5, now 3") as error:
        require_same(saved, asked)
    assert "total-steps" not in str(error.value)
    more = [*words, "--may-change", "gamma", "seed"]
    require_same(saved, parse(RunConfig, saved, more, prog="test"))
    wrong = parse(RunConfig, saved, [*words, "--may-change", "gama"], prog="test")
    with pytest.raises(UsageError, match="no such flag"):
        require_same(saved, wrong)


@pytest.mark.parametrize("name", sorted(NEVER_CHANGE))
def test_flag_that_decides_the_form_of_a_checkpoint_never_changes(name: str, run_dir: Path) -> None:
    saved = resumed(run_dir)
    other = {"core": "lstm", "critic_memory": "none", "train_on": "rmc/Other-v0"}
    parts = {}
    for part in ("environment", "agent"):
        old = getattr(saved, part)
        if name in field_names(type(old)):
            value = getattr(old, name)
            new = other.get(name, not value if isinstance(value, bool) else 7)
            parts[part] = dataclasses.replace(old, **{name: new})
    run = dataclasses.replace(saved.run, may_change=(name,))
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(UsageError, match=f"cannot change {flag} .*, even with --may-change"):
        require_same(saved, dataclasses.replace(saved, **parts, run=run))


def test_flags_that_may_change_exist(run_dir: Path) -> None:
    assert field_names(RunConfig) >= RESUME_MAY_CHANGE | NEVER_CHANGE
    saved = resumed(run_dir)
    environment = dataclasses.replace(saved.environment, env_timeout=1.0)
    ppo = dataclasses.replace(saved.ppo, total_steps=10**6)
    run = dataclasses.replace(saved.run, device="cpu", threads=3, imports=("cmath",), target_success_rate=0.5)
    require_same(saved, dataclasses.replace(saved, environment=environment, ppo=ppo, run=run))


def test_resumed_run_stays_in_its_folder(tmp_path: Path) -> None:
    require_same_folder(tmp_path, tmp_path)
    require_same_folder(tmp_path, None)
    with pytest.raises(UsageError, match="continues in that folder, not in --run-dir other"):
        require_same_folder(tmp_path, Path("other"))

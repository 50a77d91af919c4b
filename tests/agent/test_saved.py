"""Saved agents: loaded and exported with what they were trained in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rmc_agents
import rmc_envs
from rmc_agents import EnvConfig, UsageError
from rmc_agents.agent.saved import export_agent, load_run, split_ids
from rmc_agents.errors import NotAnAgent
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.folder import checkpoints, write_config
from tests.support.agents import MAZE, small_agent
from tests.support.runs import saved_run
from tests.support.trainers import ppo_trainer, supervised_trainer


def test_exported_agent_is_small_and_nearly_unchanged(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ppo_trainer(run_dir).run()
    path = export_agent(run_dir, tmp_path / "kept" / "agent")
    assert 4 * path.stat().st_size < checkpoints(run_dir)[0].stat().st_size
    before = rmc_agents.load(run_dir).state_dict()
    for name, x in rmc_agents.load(tmp_path / "kept" / "agent").state_dict().items():
        torch.testing.assert_close(x, before[name], atol=1e-4, rtol=1e-3)
    with pytest.raises(UsageError):
        export_agent(tmp_path / "none", tmp_path / "other")


def test_load_run_describes_what_the_agent_was_trained_in(tmp_path: Path) -> None:
    folder = saved_run(tmp_path / "maze", MAZE, "gru", imports=("math",), actions=3, view_size=3)
    run = load_run(folder)
    assert (run.name, run.folder, run.path) == ("maze", folder, checkpoints(folder)[0])
    assert run.environment == EnvConfig(env=MAZE, env_options={"actions": 3, "view_size": 3}, num_envs=2)
    assert (run.env_ids, run.imports) == ([MAZE], ("math",))
    assert run.agent.core_name == "gru"
    assert not run.agent.training
    assert load_run(run.path).folder == folder


def test_options_for_other_mazes_fit_the_agent(tmp_path: Path) -> None:
    run = load_run(saved_run(tmp_path, MAZE, "gru", actions=3, view_size=3, seeding="farama"))
    assert run.options_for(MAZE) == {"actions": 3, "view_size": 3}
    assert run.options_for("MiniGrid-MemoryS13-v0") == {"view_size": 3, "actions": 3}
    assert run.options_for("CartPole-v1") == {}
    for env_id in (MAZE, "MiniGrid-MemoryS13-v0"):
        run.require_fit(env_id, rmc_envs.make(env_id, 2, **run.options_for(env_id)))
    with pytest.raises(UsageError, match=rf"Choose an environment with the same spaces, such as {MAZE}"):
        run.require_fit("rmc/Recall-v0", rmc_envs.make("rmc/Recall-v0", 2))


def test_run_made_with_a_hand_built_environment_has_no_ids(tmp_path: Path) -> None:
    ppo_trainer(tmp_path, env=rmc_envs.Recall(8)).run()
    run = load_run(tmp_path)
    assert run.environment is None
    assert run.env_ids == []


def test_config_json_of_another_kind_is_refused(tmp_path: Path) -> None:
    supervised_trainer(tmp_path / "classifier", total_samples=64).run()
    with pytest.raises(
        NotAnAgent, match=r"holds a classifier, not an agent: load it with rmc_agents\.load_cl"
    ):
        rmc_agents.load(tmp_path / "classifier")
    agent = small_agent("gru")
    save_checkpoint(tmp_path / "run", 1, {"agent": agent.state_dict()})
    good = agent.to_json()
    for broken, message in [
        ({**good, "environment": {"id": "x"}}, "does not describe environments"),
        ({**good, "agent": {**good["agent"], "core": "lstn"}}, "does not describe an agent: .*lstn"),
        ({**good, "agent": {**good["agent"], "color": "red"}}, "does not describe an agent: .*color"),
        ({**good, "action_space": {"type": "Text"}}, "does not describe an agent"),
    ]:
        write_config(tmp_path / "run", broken)
        with pytest.raises(UsageError, match=message):
            load_run(tmp_path / "run")


def test_split_ids_strips_spaces() -> None:
    assert split_ids("A, B,C") == ["A", "B", "C"]


def test_load_run_reads_a_shared_folder(tmp_path: Path) -> None:
    folder = rmc_agents.save_pretrained(
        saved_run(tmp_path / "maze", MAZE, "gru", actions=3), tmp_path / "shared"
    )
    run = load_run(folder)
    assert (run.name, run.path.name, run.env_ids) == ("shared", "model.safetensors", [MAZE])
    assert run.options_for(MAZE) == {"actions": 3}
    assert not run.agent.training

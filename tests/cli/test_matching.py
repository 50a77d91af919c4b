"""`--match-parameters`: presets, conflicts, and the agents of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import rmc_envs
from rmc_agents import ActorCritic
from rmc_agents.agent.config import AgentConfig
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.matching import matched, without_widths
from rmc_agents.errors import UsageError
from tests.support.commands import in_process

PRESET = RunConfig(agent=AgentConfig(core_options={"head_size": 32, "forget_bias": 3.0}))


def test_widths_of_a_preset_give_way() -> None:
    found = without_widths(PRESET, Selection(match_parameters=1000))
    assert found.agent.core_options == {"forget_bias": 3.0}
    assert without_widths(PRESET, Selection()) == PRESET


def test_widths_of_the_flags_are_refused() -> None:
    selection = Selection(match_parameters=1000, core="gru", core_options={"hidden_size": 3})
    with pytest.raises(
        UsageError, match=r"^--match-parameters 1000 chooses hidden_size of core gru, and --core-"
    ):
        without_widths(PRESET, selection)


def test_core_of_an_agent_has_the_number_of_parameters() -> None:
    env = rmc_envs.make("rmc/Recall-v0", 2)
    config = AgentConfig(core="gru", previous_action=True, critic_memory="separate")
    found = matched(env.observation_space, env.action_space, config, 30_000)
    agent = ActorCritic.from_config(env.observation_space, env.action_space, found)
    assert abs(sum(p.numel() for p in agent.core.parameters()) / 30_000 - 1) < 0.03
    heads = matched(
        env.observation_space,
        env.action_space,
        replace(config, core="gtrxl", core_options={"num_heads": 5}),
        30_000,
    )
    assert heads.core_options == {"num_heads": 5, "hidden_size": 25, "mlp_size": 47}
    with pytest.raises(UsageError, match=r"^--match-parameters 7: core gru cannot"):
        matched(env.observation_space, env.action_space, config, 7)


def test_run_records_the_widths_and_resumes_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ppo = in_process("ppo", monkeypatch, capfd)
    command = ["--env", "rmc/Recall-v0", "--core", "gru", "--num-envs", "2", "--num-steps", "16"]
    command += ["--bptt-length", "8", "--minibatch-size", "16", "--run-dir", "run", "--auto-resume"]
    command += ["--match-parameters", "5000", "--total-steps"]
    assert ppo(*command, "32")[0] == 0
    options = json.loads(Path("run/config.json").read_text())["agent"]["core_options"]
    assert options == {"hidden_size": 12}
    code, _, errors = ppo(*command, "64")
    assert (code, errors) == (0, "")

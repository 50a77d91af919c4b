"""Runs from before agents read missions: they load, are evaluated and resume without the mission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rmc_agents
import rmc_envs
from rmc_agents import UsageError
from rmc_agents.agent.saved import load_run
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import read_config
from rmc_agents.runs.migrations import CONFIG_FORMAT, migrate_config
from tests.support.commands import Command, in_process

DOOR = "MiniGrid-GoToDoor-5x5-v0"
SIZES = (
    "--num-envs 2 --num-steps 8 --bptt-length 8 --minibatch-size 16 --core gru --core-options hidden_size=4"
)


@pytest.fixture
def ppo(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return in_process("ppo", monkeypatch, capfd)


def trained(ppo: Command, *flags: str) -> Path:
    """Return the folder of a run of 32 steps."""
    code, _, errors = ppo("--env", DOOR, *SIZES.split(), "--total-steps", "32", "--run-dir", "run", *flags)
    assert code == 0, errors
    return Path("run")


def make_old(run_dir: Path) -> dict[str, Any]:
    """Write config.json as format 3 was, which knew no missions; return it."""
    config = json.loads((run_dir / "config.json").read_text())
    del config["environment"]["env_options"]["mission"]
    write_json(run_dir / "config.json", {**config, "format": 3})
    return config


def test_old_run_resumes_and_is_evaluated_without_the_mission(ppo: Command) -> None:
    run_dir = trained(ppo, "--env-options", "mission=drop")
    make_old(run_dir)
    code, out, errors = ppo("--resume", "run", "--total-steps", "48")
    assert code == 0, errors
    assert "trained for 48 steps" in out
    run = load_run(run_dir)
    env = rmc_envs.trials(DOOR, "farama", 2, options=run.options_for(DOOR))
    run.require_fit(DOOR, env)
    assert rmc_agents.evaluate(run.agent, env, 2).episodes == 2
    assert read_config(run_dir)["environment"]["env_options"] == {"mission": "drop"}


@pytest.mark.parametrize(
    ("env", "options", "expected"),
    [
        (DOOR, {"actions": 3}, {"actions": 3, "mission": "drop"}),
        ("minigrid:BabyAI-GoToObj-v0", {}, {"mission": "drop"}),
        ("MiniGrid-MemoryS9-v0", {"actions": 3}, {"actions": 3}),
        ("CartPole-v1", {}, {}),
    ],
)
def test_format_3_did_not_read_missions(env: str, options: dict, expected: dict) -> None:
    old = {"format": 3, "environment": {"env": env, "env_options": options}}
    new = migrate_config(old)
    assert new == {"format": CONFIG_FORMAT, "environment": {"env": env, "env_options": expected}}
    assert old["environment"]["env_options"] == options  # type: ignore[index]
    assert migrate_config({"format": 3}) == {"format": CONFIG_FORMAT}


def test_run_that_reads_missions_resumes_and_is_evaluated(ppo: Command) -> None:
    run_dir = trained(ppo)
    code, out, errors = ppo("--resume", "run", "--total-steps", "48")
    assert code == 0, errors
    assert "trained for 48 steps" in out
    log = [json.loads(line).get("note", "") for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert any("mission: AnnotatedText(10 words" in note for note in log)
    run = load_run(run_dir)
    for other in (DOOR, "MiniGrid-GoToDoor-8x8-v0"):
        env = rmc_envs.trials(other, "farama", 2, options=run.options_for(other))
        run.require_fit(other, env)
        assert rmc_agents.evaluate(run.agent, env, 2).episodes == 2


def test_other_words_are_refused(ppo: Command) -> None:
    run = load_run(trained(ppo))
    env = rmc_envs.make("MiniGrid-UnlockPickup-v0", 1, **run.options_for("MiniGrid-UnlockPickup-v0"))
    with pytest.raises(
        UsageError, match="trained with other words of 'mission' than MiniGrid-UnlockPickup-v0"
    ) as error:
        run.require_fit("MiniGrid-UnlockPickup-v0", env)
    assert "the agent does not know box, pick, up. Choose an environment with the same words" in str(
        error.value
    )


def test_run_with_other_words_than_its_environments_have_is_not_resumed(ppo: Command) -> None:
    run_dir = trained(ppo)
    text = (run_dir / "config.json").read_text()
    (run_dir / "config.json").write_text(text.replace('"purple"', '"pink"'))
    code, _, errors = ppo("--resume", "run", "--total-steps", "48")
    assert code == 2
    assert "reads texts with the words mission: blue, door, go, green, grey, pink" in errors

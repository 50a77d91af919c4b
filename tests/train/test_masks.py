"""The scripts train and evaluate with action masks, and say so where they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest

from rmc_agents.runs.folder import read_config
from tests.support.commands import in_process
from tests.support.masked_task import Strict

TRAIN = ("--no-preset", "--core", "gru", "--core-options", "hidden_size=16", "--num-envs", "4")
BUDGET = ("--total-steps", "256", "--num-steps", "32", "--minibatch-size", "64")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """The scripts, with an environment that raises at forbidden actions and one without masks."""
    for name, form in (("test/Masked-v0", "method"), ("test/Free-v0", "none")):
        spec = gymnasium.envs.registration.EnvSpec(
            name, Strict, disable_env_checker=True, kwargs={"form": form}
        )
        monkeypatch.setitem(gymnasium.registry, name, spec)

    def run(name: str, *words: str) -> Any:
        return in_process(name, monkeypatch, capfd)(*words)

    return run


def test_run_with_masks_is_trained_resumed_and_evaluated(scripts: Any, tmp_path: Path) -> None:
    run = tmp_path / "masked"
    result = scripts("ppo", "--env", "test/Masked-v0", *TRAIN, *BUDGET, "--run-dir", str(run))
    assert result.code == 0, result.errors
    assert read_config(run)["agent"]["action_masks"] == "use"
    result = scripts("ppo", "--resume", str(run), "--total-steps", "384")
    assert result.code == 0, result.errors
    quiet = ("--episodes", "3", "--no-gif", "--no-report", "--stochastic")
    result = scripts("evaluate", str(run), *quiet)
    assert result.code == 0, result.errors
    assert "action masks" not in result.out
    result = scripts("evaluate", str(run), "--env", "test/Free-v0", *quiet)
    assert result.code == 0, result.errors
    note = "masked was trained with action masks, and test/Free-v0 gives none: every action is free"
    assert note in " ".join(result.out.split())


def test_flag_that_needs_masks_is_refused_without_them(scripts: Any, tmp_path: Path) -> None:
    words = ("--env", "test/Free-v0", *TRAIN, *BUDGET, "--run-dir", str(tmp_path / "free"))
    result = scripts("ppo", *words, "--action-masks", "use")
    assert result.code == 2
    assert "--action-masks" in result.errors
    assert "test/Free-v0 gives no action masks" in result.errors
    assert not (tmp_path / "free").exists()
    result = scripts("ppo", *words)
    assert result.code == 0, result.errors
    assert read_config(tmp_path / "free")["agent"]["action_masks"] == "auto"

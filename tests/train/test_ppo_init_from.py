"""`python train/ppo.py --init-from`: a new run that starts with the weights of a trained agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rmc_agents
from rmc_agents.runs.folder import checkpoints
from tests.support.commands import Command, in_process

RECALL = ["--env", "rmc/Recall-v0", "--env-options", "delay=2"]
SMALL = ["--num-envs", "8", "--num-steps", "16", "--minibatch-size", "64", "--bptt-length", "16"]


@pytest.fixture
def ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process and an empty folder that holds a run."""
    monkeypatch.chdir(tmp_path)
    command = in_process("ppo", monkeypatch, capfd)
    words = ["--core", "gru", "--core-options", "hidden_size=24", "--features", "16"]
    code, _, errors = command("--run-dir", "first", *RECALL, *SMALL, *words, "--total-steps", "256")
    assert code == 0, errors
    return command


@pytest.mark.parametrize("source", ["first", "checkpoint", "shared"])
def test_run_starts_with_the_weights_and_sizes_of_a_trained_agent_in_another_task(
    source: str, ppo: Command, tmp_path: Path
) -> None:
    trained = rmc_agents.load(tmp_path / "first")
    path = tmp_path / source
    if source == "checkpoint":
        path = checkpoints(tmp_path / "first")[-1]
    if source == "shared":
        rmc_agents.save_pretrained(tmp_path / "first", path)
    words = ["--run-dir", "second", "--env", "rmc/Recall-v0", "--env-options", "delay=7", *SMALL]
    # With this learning rate, what is saved is what training started with.
    words += ["--init-from", str(path), "--learning-rate", "1e-30", "--num-envs", "16"]
    code, _, errors = ppo(*words, "--total-steps", "256")
    assert code == 0, errors
    started = rmc_agents.load(tmp_path / "second")
    assert started.config == trained.config
    pairs = zip(started.state_dict().items(), trained.state_dict().items(), strict=True)
    assert all(a == b and torch.allclose(x, y, rtol=0, atol=1e-20) for (a, x), (b, y) in pairs)
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["environment"]["env_options"] == {"delay": 7}
    assert Path(config["init_from"]) == path
    # The same command continues the run, whatever becomes of the other one.
    (tmp_path / "first" / "config.json").unlink()
    if source != "shared":
        code, _, errors = ppo("--resume", "second", "--total-steps", "512")
    else:
        code, _, errors = ppo(*words, "--auto-resume", "--total-steps", "512")
    assert code == 0, errors


FROM_FIRST = ["--init-from", "first"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*RECALL, "--init-from", "nothing"], "nothing is not a run folder"),
        ([*RECALL, *FROM_FIRST, "--core", "rmc"], "an agent with --core gru, not rmc"),
        ([*RECALL, *FROM_FIRST, "--features", "32"], "first was trained with --features 16, now 32"),
        ([*RECALL[:3], "num_symbols=9", *FROM_FIRST], "first was trained with observation_space Box"),
        (["--env", "rmc/KeyValue-v0", *FROM_FIRST], "first was trained with observation_space Box"),
        (["--resume", "first", *FROM_FIRST], "--init-from was None, now /"),
        ([*RECALL, *FROM_FIRST, "--core-options", "update_bias=2"], "first was trained with --core-options"),
        ([*RECALL, *FROM_FIRST, "--start-flag"], "first was trained with --no-start-flag, now"),
        ([*RECALL, "--init-from", ""], "--init-from needs the run folder"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_one_message_before_training(
    words: list[str], message: str, ppo: Command, tmp_path: Path
) -> None:
    code, _, errors = ppo(*words, "--total-steps", "512", *(SMALL if "--resume" not in words else []))
    assert code == 2
    assert message in errors
    assert [folder.name for folder in tmp_path.iterdir() if folder.is_dir()] == ["first"]


def test_initial_standard_deviation_is_no_matter_of_weights_that_were_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = in_process("ppo", monkeypatch, capfd)
    words = ["--env", "Pendulum-v1", "--no-preset", *SMALL, "--core", "feedforward", "--total-steps", "128"]
    code, _, errors = command(*words, "--run-dir", "first", "--log-std-init", "-2")
    assert code == 0, errors
    words += ["--init-from", "first", "--log-std-init", "-1", "--learning-rate", "1e-30"]
    code, _, errors = command(*words, "--run-dir", "second")
    assert code == 0, errors
    first, second = (rmc_agents.load(tmp_path / name).policy.state_dict() for name in ("first", "second"))
    assert first["log_std"].item() == pytest.approx(-2, abs=0.1)
    assert second["log_std"].item() == pytest.approx(first["log_std"].item(), abs=1e-6)

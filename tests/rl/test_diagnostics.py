"""Training diagnostics: non-finite values are located and described, divergence is reported once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents import PPOConfig, TrainingError
from rmc_agents.rl.diagnostics import DivergenceMonitor
from rmc_agents.runs.checkpoint import read_newest
from tests.support.trainers import ppo_trainer


class PoisonedRecall(rmc_envs.Recall):
    """Recall with one number replaced at the 21st step of environment 3."""

    def __init__(self, what: str, number: float) -> None:
        super().__init__(8)
        self.what, self.number, self.steps = what, number, 0

    def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
        transition = super().step(actions)
        self.steps += 1
        spoiled = transition.reward if self.what == "reward" else transition.obs
        assert isinstance(spoiled, torch.Tensor)
        if self.steps == 21:
            spoiled[3] = self.number
        return transition


@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_non_finite_value_is_located_and_described(what: str, number: float, tmp_path: Path) -> None:
    run = ppo_trainer(tmp_path / "run", env=PoisonedRecall(what, number), checkpoint_seconds=0)
    with pytest.raises(
        TrainingError, match=rf"the {what} of environment 3 \(rmc/Recall-v0\) is not finite at step"
    ):
        run.run()
    facts = json.loads((tmp_path / "run" / "diagnostic.json").read_text())
    assert (facts["what"], facts["environment"]) == (what, 3)
    assert facts["step"] == 128 + 8 * (4 if what == "reward" else 5)
    assert facts["numbers"]["nan" if number != number else "infinite"] > 0
    assert (tmp_path / "run" / "diagnostic.json").stat().st_size < 10_000
    assert all(p.isfinite().all() for p in run.agent.parameters())
    assert read_newest(tmp_path / "run")[1]["steps"] == 128


@pytest.mark.parametrize("reward", [1e25, 3e38])
def test_overflowing_loss_reaches_neither_weights_nor_moments(reward: float, tmp_path: Path) -> None:
    """Each reward is finite; its square is not."""
    run = ppo_trainer(tmp_path / "run", env=PoisonedRecall("reward", reward), checkpoint_seconds=0)
    with pytest.raises(TrainingError, match=r"environment 3 .* is not finite.*diagnostic\.json"):
        run.run()
    moments = [x for state in run.optimizer.state.values() for x in state.values()]
    assert all(x.isfinite().all() for x in [*run.agent.parameters(), *moments])
    facts = json.loads((tmp_path / "run" / "diagnostic.json").read_text())
    assert facts["losses_not_finite"] or facts["gradients_not_finite"]
    assert facts["parameters_not_finite"] == []
    assert read_newest(tmp_path / "run")[1]["steps"] == 128


def test_monitor_warns_once_of_exploding_loss_and_collapsed_entropy() -> None:
    monitor = DivergenceMonitor(spaces.Discrete(4))
    well = {"train/value_loss": 0.5, "train/entropy_loss": -1.2, "rollout/success_rate": 0.3}
    for _ in range(20):
        assert monitor.warnings(well) == []
    (message,) = monitor.warnings({**well, "train/value_loss": 1e4})
    assert "value loss rose from 0.5 to 1e+04" in message
    assert monitor.warnings({**well, "train/value_loss": 1e4}) == []
    assert monitor.warnings({**well, "train/entropy_loss": -1e-3, "rollout/success_rate": 1.0}) == []
    (message,) = monitor.warnings({**well, "train/entropy_loss": -1e-3})
    assert "entropy collapsed" in message
    continuous = DivergenceMonitor(spaces.Box(-1, 1, (2,)))
    assert continuous.warnings({**well, "train/entropy_loss": -2.8}) == []
    assert continuous.warnings({**well, "train/entropy_loss": 5.0}) == []
    assert len(continuous.warnings({**well, "train/entropy_loss": 8.0})) == 1


def test_monitor_skips_iterations_without_an_update() -> None:
    assert DivergenceMonitor(spaces.Discrete(4)).warnings({"rollout/success_rate": 1.0}) == []


def test_warnings_are_printed_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PPOConfig(
        total_steps=8 * 16 * 30, num_steps=16, bptt_length=8, minibatch_size=64, epochs=1, learning_rate=1e-5
    )

    class InflatedRecall(rmc_envs.Recall):
        steps = 0

        def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
            self.steps += 1
            transition = super().step(actions)
            return transition._replace(reward=transition.reward + (1000.0 if self.steps > 25 * 16 else 0.0))

    ppo_trainer(tmp_path / "run", env=InflatedRecall(8), config=config).run()
    assert capsys.readouterr().out.count("warning: the value loss rose from") == 1
    assert "the value loss rose from" in (tmp_path / "run" / "log.jsonl").read_text()

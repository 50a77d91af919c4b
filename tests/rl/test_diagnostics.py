"""Training diagnostics: non-finite values are located and described, divergence is reported once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents import PPOConfig, TrainingError
from rmc_agents.rl.diagnostics import DivergenceMonitor, LearningMonitor
from rmc_agents.runs.checkpoint import read_newest
from rmc_agents.spaces.masks import choice_sizes
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


@pytest.mark.parametrize(
    ("space", "free"),
    [(spaces.Discrete(6), 6), (spaces.MultiDiscrete([2, 4]), 4), (spaces.MultiBinary(3), 2)],
    ids=str,
)
def test_entropy_is_compared_with_that_of_the_allowed_actions(space: spaces.Space, free: int) -> None:
    """In one of 100 steps the last component is free, and in all others a single action is allowed."""
    sizes = choice_sizes(space)
    assert sizes is not None
    mask = torch.cat([torch.arange(size) == 0 for size in sizes])
    rollout = SimpleNamespace(action_masks=mask.repeat(20, 5, 1))
    rollout.action_masks[7, 2, -sizes[-1] :] = True
    largest = math.log(free) / 100
    for share, warns in ((0.9, False), (0.02, False), (0.005, True), (0.0, True)):
        monitor = DivergenceMonitor(space, rollout)  # type: ignore[arg-type]
        figures = {"train/value_loss": 0.5, "train/entropy_loss": -share * largest}
        assert bool(monitor.warnings(figures)) == warns
        assert DivergenceMonitor(space).warnings(figures), "without masks it has collapsed"
    rollout.action_masks = mask.repeat(20, 5, 1)
    forced = DivergenceMonitor(space, rollout)  # type: ignore[arg-type]
    assert forced.warnings({"train/value_loss": 0.5, "train/entropy_loss": -0.0}) == []


def test_monitor_skips_iterations_without_an_update() -> None:
    assert DivergenceMonitor(spaces.Discrete(4)).warnings({"rollout/success_rate": 1.0}) == []


def heard(returns: list[float], success: float | None = None, steps: int = 0) -> list[tuple[int, str]]:
    """Return the warnings of a run with these mean returns, each with its iteration of 100."""
    monitor, found = LearningMonitor(100_000, steps, ["normalize_rewards=True"]), []
    for i, number in enumerate(returns):
        figures = {"rollout/ep_rew_mean": number, "time/total_timesteps": 1000.0 * (i + 1)}
        if success is not None:
            figures["rollout/success_rate"] = success
        found += [(i + 1, message) for message in monitor.warnings(figures)]
    return found


NOISE = torch.randn(100, generator=torch.Generator().manual_seed(0)).mul(50).tolist()


def test_monitor_warns_once_if_returns_do_not_rise() -> None:
    ((iteration, message),) = heard([-1200 + x for x in NOISE])
    assert iteration == 40
    assert message.startswith("warning: after 40,000 of 100,000 steps the mean return of -1")
    assert "is not clearly above that of the first rollouts, -1" in message
    assert message.endswith("try normalize_rewards=True, or another learning_rate or entropy_coef")
    assert [i for i, _ in heard([-200.0] * 100)] == [40]
    assert [i for i, _ in heard([100.0 - i for i in range(100)])] == [40]


def test_monitor_names_exploration_if_no_episode_was_better_than_another() -> None:
    ((_, message),) = heard([-500.0] * 100)
    assert "try wait_for_signal=True (in a new run), a higher action_persistence (in a new run), " in message
    monitor = LearningMonitor(100_000, hints=["normalize_rewards=True"], waits=True)
    figures = [{"rollout/ep_rew_mean": -500.0, "time/total_timesteps": 1000.0 * i} for i in range(1, 60)]
    (message,) = (message for each in figures for message in monitor.warnings(each))
    assert message.endswith("try a higher action_persistence (in a new run)")
    ((_, message),) = heard([-500.0] * 20 + [-499.0] + [-500.0] * 79)
    assert "wait_for_signal" not in message


def test_monitor_is_silent_where_returns_rise_or_nothing_is_known() -> None:
    assert heard([-1200 + x + 10 * i for i, x in enumerate(NOISE)]) == []
    assert heard([-1200 + x for x in NOISE], steps=1000) == [], "a resumed run"
    assert heard([-1200.0] * 15) == [], "too short a run"
    assert heard([]) == []


def test_monitor_gives_tasks_that_report_success_more_time() -> None:
    """A memory maze: guessing is learned in the first rollouts, remembering after half of the budget."""
    guessing = [min(0.05 * i, 0.45) for i in range(60)]
    assert heard([*guessing, *[0.9] * 40], success=0.5) == []
    assert heard([*[0.5] * 60, *[0.9] * 40], success=0.5) == []
    assert [i for i, _ in heard([0.5] * 100, success=0.5)] == [80]
    assert heard([0.95] * 100, success=0.95) == [], "solved from the start"


def test_warning_about_returns_names_what_the_run_does_not_normalise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class ConstantRewards(rmc_envs.Recall):
        reports_success = False

        def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
            step = super().step(actions)
            return step._replace(reward=torch.ones_like(step.reward), success=None)

    config = PPOConfig(
        total_steps=8 * 16 * 40, num_steps=16, bptt_length=8, minibatch_size=128, epochs=1, learning_rate=1e-5
    )
    ppo_trainer(tmp_path / "run", env=ConstantRewards(8, num_symbols=3, delay=2), config=config).run()
    out = capsys.readouterr().out
    assert out.count("the agent may learn nothing") == 1
    assert "normalize_rewards=True, normalize_observations=True" in out


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

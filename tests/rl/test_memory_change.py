"""The loss on changes of the memory: its value, what it leaves out, and that it reaches training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import rmc_envs
from rmc_agents import PPOConfig, Trainer
from rmc_agents.rl.ppo import ppo_loss, squared_change
from tests.support.agents import chunks_of, collected, fresh_agent, small_agent
from tests.support.trainers import QUICK


def test_change_is_that_since_the_step_before_in_the_same_episode() -> None:
    outputs = torch.tensor([[1.0, 1.0], [2.0, 3.0], [2.0, 3.0], [0.0, 0.0]]).unsqueeze(1).expand(4, 2, 2)
    starts = torch.tensor([[False, True], [False, False], [False, False], [False, True]])
    assert squared_change(outputs, starts).tolist() == [[0, 0], [2.5, 2.5], [0, 0], [6.5, 0]]
    assert squared_change(outputs[:1], starts[:1]).tolist() == [[0, 0]]


@pytest.mark.parametrize("core", ["rmc", "gru", "delta_rmc"])
def test_change_enters_the_loss_and_its_gradient_with_its_weight(core: str) -> None:
    agent = small_agent(core)
    chunks = chunks_of(agent, collected(agent, steps=16)[1], 8)
    evaluated = agent.evaluate_actions(
        chunks.obs, chunks.actions, chunks.rewards, chunks.starts, chunks.state
    )
    change = squared_change(evaluated.memory_outputs, chunks.starts)
    change = (change * chunks.valid).sum() / chunks.valid.sum()
    plain, without = ppo_loss(agent, chunks, PPOConfig(), 0.01)
    loss, metrics = ppo_loss(agent, chunks, PPOConfig(memory_change_coef=3.0), 0.01)
    assert without.memory_change == 0
    assert change > 0
    torch.testing.assert_close(metrics.memory_change, change.detach())
    torch.testing.assert_close(loss, plain + 3 * change, rtol=1e-5, atol=1e-6)
    weights = list(agent.core.parameters())
    expected = torch.autograd.grad(plain + 3 * change, weights)
    for one, other in zip(expected, torch.autograd.grad(loss, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def trained(run_dir: Path, coef: float) -> list[float | None]:
    torch.manual_seed(5)
    env = rmc_envs.make("MiniGrid-MemoryS5-v0", 8, actions=3, view_size=3)
    config = dataclasses.replace(QUICK, total_steps=4000, learning_rate=3e-3, memory_change_coef=coef)
    run = Trainer(fresh_agent("rmc", env), env, config, run_dir, seed=5)
    return [run.iterate().get("train/memory_change") for _ in range(24)]


def test_trained_memory_changes_less_with_a_larger_weight(tmp_path: Path) -> None:
    little, much = trained(tmp_path / "little", 1e-6), trained(tmp_path / "much", 1.0)
    assert sum(x or 0 for x in much[-3:]) < 0.5 * sum(x or 0 for x in little[-3:])
    assert trained(tmp_path / "none", 0.0) == [None] * 24


def test_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_change_coef must be 0 or more"):
        PPOConfig(memory_change_coef=-0.1)
